"""Activations that stand in for frozen layers: the same run, without their work and without images."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config
from tests.features.test_feature_store import files_of_at_most
from tests.training.test_resume import assert_same, interrupted

from headstart import shortcuts
from headstart.caches import FEATURES, MEASUREMENTS
from headstart.config.identity import config_hash
from headstart.config.plain import read_config
from headstart.data.digits import DigitExamples
from headstart.errors import ConfigError
from headstart.experiment import resume, run
from headstart.features.prefix_choice import obstacle
from headstart.features.prefix_speed import Speed
from headstart.preparation import prepare
from headstart.records.schema import RunRecord
from headstart.strategies.penalties import Penalty
from headstart.strategies.penalties.bss import Bss
from headstart.strategies.penalties.co_tuning import CoTuning
from headstart.strategies.penalties.delta import Delta
from headstart.strategies.penalties.l2_sp import L2Sp
from headstart.strategies.plan import Phase, TrainingPlan
from headstart.training.shortcut import epochs_without_images
from headstart.training.step import StepModule

THREE = (
    "strategy=gradual",
    "strategy.milestones=[3,7]",
    "strategy.unit=step",
    "strategy.groups_per_step=1",
    "trainer.max_epochs=3",
)
LAST = ("strategy=last_k", "strategy.k=1", "trainer.max_epochs=2")
SAME = {"rtol": 1e-4, "atol": 2e-5}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last.safetensors")


def without_and_with(run_tiny: RunTiny, *words: str) -> tuple[RunRecord, RunRecord]:
    """Run both ways and compare all that came out."""
    words = ("optimizer=sgd", *words)  # Adam makes steps of the rounding of small gradients
    plain_folder, plain = run_tiny("features.prefix=false", *words)
    folder, record = run_tiny("features.prefix=true", "features.batch_size=16", *words)
    before = prepare(tiny_config(*words)).built
    start = {name: value.clone() for name, value in before.model.state_dict().items()}
    for name, value in weights(folder).items():
        torch.testing.assert_close(value, weights(plain_folder)[name], **SAME)
        if torch.equal(weights(plain_folder)[name], start[name]):
            assert torch.equal(value, start[name])
    for key, value in plain.metrics.items():
        assert record.metrics[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key
    assert plain.features == {}
    return plain, record


@pytest.mark.parametrize(
    ("words", "cuts"),
    [
        pytest.param(LAST, ["layer3"], marks=pytest.mark.slow),
        ((*LAST, "trainer.ema_decay=0.9", "trainer.micro_batch_size=13", "regularizer=[bss]"), ["layer3"]),
        pytest.param(
            (*LAST, "backbone.name=test_vit", "data.image_size=160", "data.train_size=40"),
            ["blocks.4"],
            marks=pytest.mark.slow,
        ),
        (THREE, ["features", "layer3", "layer2"]),
        pytest.param(("strategy=lp_ft", "trainer.max_epochs=2"), ["features"], marks=pytest.mark.slow),
    ],
    ids=["last_k", "last_k with all the rest", "last_k of a vit", "gradual", "lp_ft"],
)
def test_a_run_comes_out_the_same(run_tiny: RunTiny, words: tuple[str, ...], cuts: list[str]) -> None:
    _, record = without_and_with(run_tiny, *words)
    kept = record.features["prefix"]
    assert list(kept) == cuts
    count = record.data["sizes"]["train"] + record.data["sizes"]["val"]
    assert all(about["rows"] == {"found": 0, "computed": count} and about["kept"] for about in kept.values())


def test_features_of_linear_probes_serve_the_first_part_of_lp_ft(run_tiny: RunTiny, tmp_path: Path) -> None:
    run_tiny("strategy=lp_ft", "trainer.max_epochs=2", "features.prefix=true")
    (folder,) = (tmp_path / "cache" / FEATURES).iterdir()
    _, again = run_tiny("strategy=lp_ft", "trainer.max_epochs=2", "features.prefix=true", "optimizer.lr=0.01")
    assert again.features["prefix"]["features"]["rows"]["computed"] == 0
    assert json.loads((folder / "about.json").read_text())["key"].startswith(folder.name)


def test_no_image_is_loaded(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("data.cache=false", "trainer.test=false", "features.prefix=true", *LAST)
    run_tiny(*words)
    read: list[int] = []
    of = DigitExamples.image

    def counted(self: Any, index: int) -> Any:
        read.append(index)
        return of(self, index)

    monkeypatch.setattr(DigitExamples, "image", counted)
    prepared = prepare(tiny_config(*words))
    read.clear()
    prepared.data.first_images_sha256()
    for_record = len(read)
    read.clear()
    _, record = run(prepared.config, prepared=prepared)
    assert len(read) <= for_record + 48  # the record's, and pictures
    assert record.features["prefix"]["layer3"]["rows"]["computed"] == 0
    assert "image" in next(iter(prepared.data.val_dataloader()))  # for whoever comes after


def test_loader_workers_know_which_epochs_have_no_images(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are forked before training begins."""
    seen: list[bool] = []
    stand_in = StepModule.stand_in

    def watched(self: Any, batch: Any, split: str, phase: Any) -> None:
        if split == "train":
            seen.append("image" in batch)
        stand_in(self, batch, split, phase)

    monkeypatch.setattr(StepModule, "stand_in", watched)
    run_tiny("data.num_workers=1", "features.prefix=true", *LAST)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("at", [pytest.param(5, marks=pytest.mark.slow), 8])
def test_a_resumed_run_goes_on_as_it_was(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    words = ("features.prefix=true", "head.dropout=0.2", "data.train_size=66", *THREE)
    unbroken = run_tiny(*words)
    folder = interrupted(at, monkeypatch, *words)
    resumed = resume(folder)
    assert_same(folder, resumed, unbroken)
    if at == 8:  # what was frozen in the phases before has moved
        assert list(resumed.features["prefix"]) == ["layer3", "layer2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.augment=light",), "data.augment=light draws anew in every epoch"),
        (("data.mixup_alpha=0.2",), "data.mixup_alpha=0.2 mixes images anew in every step"),
        (("trainer.devices=2", "trainer.threads=2"), "trainer.devices=2 trains in several processes"),
        (("trainer.grad_checkpointing=true",), "trainer.grad_checkpointing=true computes the backbone's layers"),
        (("strategy=full",), "test_resnet.r160_in1k has no cut: no layer group stays frozen"),
        (
            ("features.cache_gb=0.0001",),
            r"activations of 270 images at layer3 take 0.0 GB; features.cache_gb 0.0001",
        ),
    ],
)
def test_where_it_cannot_be_the_reason_is_said(words: tuple[str, ...], said: str) -> None:
    keys = {word.partition("=")[0] for word in words}
    own = [word for word in LAST if word.partition("=")[0].partition(".")[0] not in keys]
    with pytest.raises(ConfigError, match=rf"features\.prefix=true: .*{said}"):
        prepare(tiny_config("features.prefix=true", *own, *words))
    prepare(tiny_config(*own, *words))  # left open, the run goes its way


def test_penalties_that_look_inside_need_images() -> None:
    config = tiny_config(*LAST)
    for penalty, needs in ((Delta, True), (Penalty, True), (L2Sp, False), (Bss, False), (CoTuning, False)):
        own = penalty.__new__(penalty)
        torch.nn.Module.__init__(own)
        said = "regularizer=own needs the images of every step" if needs else ""
        assert obstacle(config, torch.nn.ModuleDict({"own": own})) == said


def test_what_is_faster_is_measured_once_and_kept(
    tmp_path: Path, run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shortcuts, "STEPS", 10)
    words = ("trainer.channels_last=false", *LAST[:-1], "trainer.max_epochs=3")
    folder, record = run_tiny(*words)
    (path,) = (tmp_path / "cache" / MEASUREMENTS).glob("*.json")
    seconds = json.loads(path.read_text())["seconds"]
    assert 0 < seconds["read"] < seconds["compute"]  # a gather against four stages of convolutions
    assert record.config["measured"] == {"prefix": [0]}
    assert yaml.safe_load((folder / "config.yaml").read_text())["measured"] == {"prefix": [0]}
    assert list(record.features["prefix"]) == ["layer3"]
    plain = tiny_config(*words)
    assert config_hash(read_config(folder / "config.yaml")) == record.config_hash
    assert plain.measured == {}
    for read, expected in ((10 * seconds["compute"], []), (0.0, [0])):  # what is there is believed
        path.write_text(json.dumps({"seconds": seconds | {"read": read}}))
        prepared = shortcuts.measure_prefix(prepare(plain))
        assert prepared.config.measured == {"prefix": expected}
        assert (shortcuts.shortcut_of(prepared) is not None) == bool(expected)
    path.write_text("{")
    assert shortcuts.measure_prefix(prepare(plain)).config.measured == {"prefix": [0]}
    assert json.loads(path.read_text())["seconds"]["compute"] > 0
    path.unlink()
    saved = prepare(read_config(folder / "config.yaml"))
    assert shortcuts.measure_prefix(saved).config.measured == {"prefix": [0]}
    assert not path.exists()  # a choice that a config brings is not measured again


def test_short_runs_and_others_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*words: str) -> dict[str, Any]:
        return shortcuts.measure_prefix(prepare(tiny_config(*words))).config.measured

    assert measured(*LAST) == {}
    monkeypatch.setattr(shortcuts, "STEPS", 4)
    assert measured(*LAST[:-1], "trainer.max_epochs=1") == {}
    assert measured("strategy=full", "trainer.max_epochs=2") == {}
    assert measured("strategy=linear_probe", "trainer.max_epochs=2") == {}
    assert measured(*LAST, "data.augment=light") == {}
    assert measured(*LAST, "features.prefix=false") == {}
    assert not (tmp_path / "cache" / MEASUREMENTS).exists()
    assert measured(*LAST)["prefix"] in ([], [0])


def test_what_pays() -> None:
    assert Speed(compute=1.0, read=0.1).pays(2)
    assert not Speed(compute=1.0, read=0.5).pays(2)
    assert Speed(compute=1.0, read=0.5).pays(3)
    assert not Speed(compute=1.0, read=1.0).pays(100)
    assert not Speed(compute=1.0, read=float("inf")).pays(100)


def test_epochs_that_need_no_images() -> None:
    a, b, c = Phase(0, {"head": 1.0}), Phase(4, {"head": 2.0}), Phase(10, {"head": 3.0})
    plan = TrainingPlan((a, b, c))

    def found(*phases: Phase) -> set[int]:
        return epochs_without_images(plan, phases, total_steps=14, steps_per_epoch=4)

    assert found(a, b, c) == {0, 1, 2, 3}
    assert found(a) == {0}
    assert found(b) == {1}  # the third has steps of the next phase
    assert found(a, c) == {0, 3}
    assert found(b, c) == {1, 2, 3}
    assert found() == set()


def test_a_full_disk_costs_speed_alone(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shortcuts, "IN_MEMORY", 1000)
    prepared = shortcuts.shortcut_of(prepare(tiny_config("features.prefix=true", *LAST)))
    assert prepared is not None
    data = prepare(tiny_config(*LAST))
    with files_of_at_most(2000):
        prepared.begin(data.built.model, data.data, step=0)
    said = capsys.readouterr().err
    assert "the cache of features cannot be written (File too large)" in said
    assert "features.prefix: the frozen layers are computed in every step after all (memory would hold" in said
    assert prepared.phases == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000
    _, plain = run_tiny("features.prefix=false", *LAST)
    monkeypatch.setattr(shortcuts, "IN_MEMORY", 0)
    _, record = run_tiny("features.prefix=true", "features.cache=false", *LAST)
    assert record.predictions_sha256 == plain.predictions_sha256
    assert list(record.features["prefix"]) == ["computed"]
