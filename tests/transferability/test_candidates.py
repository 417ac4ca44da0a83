"""What `backbones=[...]` stands for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
from tests.conftest import RunTiny

from headstart.errors import ConfigError
from headstart.transferability.candidates import find_candidates, split_asked, with_controls


def named(*entries: str, shared: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.name, one.overrides) for one in find_candidates(entries, shared=shared)]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("backbones=[resnet18,vit_*]", ["resnet18", "vit_*"]),
        ("backbones=resnet18", ["resnet18"]),
        ("backbones=resnet18,resnet34", ["resnet18", "resnet34"]),
        (
            "backbones=[resnet18.a1_in1k,'resnet18 weights=scratch']",
            ["resnet18.a1_in1k", "resnet18 weights=scratch"],
        ),
        ("+backbones=[outputs/runs/20260101T000000Z-a-b1]", ["outputs/runs/20260101T000000Z-a-b1"]),
    ],
)
def test_the_list_is_read_as_hydra_reads_lists(text: str, entries: list[str]) -> None:
    assert split_asked(["data=digits", text, "seed=1"]) == (entries, ["data=digits", "seed=1"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=digits"], r"backbones=\[\.\.\.\]: names what to rank"),
        (["backbones=[]"], r"backbones=\[\]: names no candidate\."),
        (["backbones=[a]", "backbones=[b]"], "is given twice"),
        (["backbones=[a]", "backbone=resnet18"], r"backbone=resnet18: backbones=\[\.\.\.\] names the candidates"),
        (["backbones=[a"], "cannot be read"),
    ],
)
def test_a_list_that_cannot_be(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        split_asked(overrides)


def test_names_presets_globs_and_own_overrides() -> None:
    assert named("resnet10t", "efficientnet_lite0", "resnet10t") == [
        ("resnet10t", ("backbone.name=resnet10t",)),
        ("efficientnet_lite0", ("backbone=efficientnet_lite0",)),
    ]
    assert named("resnet10t weights=scratch seed=3") == [
        ("resnet10t weights=scratch seed=3", ("backbone.name=resnet10t", "weights=scratch", "seed=3"))
    ]
    published = {name.partition(".")[0] for name in timm.list_pretrained("test_*")}
    assert [name for name, _ in named("test_*")] == [name for name in timm.list_models() if name in published]
    assert [name for name, _ in named("test_*", shared=("weights=scratch",))] == timm.list_models("test_*")
    assert [name for name, _ in named("resnet50.*in1k")] == timm.list_pretrained("resnet50.*in1k")
    assert named("vgg1? backbone.library=torchvision")[0] == (
        "vgg11 backbone.library=torchvision",
        ("backbone.name=vgg11", "backbone.library=torchvision"),
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("nosuchnet_*", r"backbones: nosuchnet_\*: matches no model; `headstart list backbones 'nosuchnet_\*'`"),
        ("resnet1", r"backbones: resnet1: timm has no such model\. Did you mean"),
        ("resnet18.nosuch", "has no weights tag"),
        ("outputs/runs/nothing", r"is no run \(it has no run\.json\)"),
        ("resnet18 optimizer.lr=1", r"'optimizer\.lr=1' is no override of backbone, weights, head\.pool, seed"),
        ("resnet18 'weights", "cannot be read"),
    ],
)
def test_an_entry_that_cannot_be(entry: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        named(entry)
    assert "\n" not in str(caught.value)


def test_a_run_is_its_backbone_with_its_weights(run_tiny: RunTiny) -> None:
    folder, record = run_tiny("head.pool=max")
    (one,) = find_candidates([str(folder)], shared=())
    assert one.name == record.id
    assert one.overrides == (
        f"backbone.name={record.config['backbone']['name']}",
        "head.pool=max",
        "weights=run",
        f"weights.path={Path(folder).resolve()}",
    )
    assert one.control.name == "test_resnet head.pool=max weights=scratch"


def test_folders_with_spaces_and_folders_of_one_name(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny()
    for parent in ("my runs", "others"):
        shutil.copytree(folder, Path(parent) / "x=1,b")
    (one,) = find_candidates(["my runs/x=1,b"], shared=())
    assert one.overrides[-1] == f"weights.path='{Path('my runs/x=1,b').resolve()}'"
    with pytest.raises(ConfigError, match=r"another candidate is called x=1,b too"):
        find_candidates(["my runs/x=1,b", "others/x=1,b"], shared=())


def test_each_backbone_has_one_control() -> None:
    asked = find_candidates(["resnet18.a1_in1k", "resnet18.tv_in1k", "vgg16 weights=scratch", "vgg16"], shared=())
    assert [one.name for one in with_controls(asked)] == [
        "resnet18.a1_in1k", "resnet18.tv_in1k", "vgg16 weights=scratch", "vgg16", "resnet18 weights=scratch",
    ]  # fmt: skip
    random = ("weights=scratch",)
    drawn = find_candidates(["resnet18", "vgg16"], shared=random)
    assert with_controls(drawn, shared=random) == drawn
