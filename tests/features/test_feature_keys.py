"""The name of a cache of features covers all that changes a row, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.features.test_bank import backbone, module, opened

from headstart.features import keys
from headstart.features.bank import FeatureBank


def edited(change: Callable[[Any], object]) -> Any:
    model = copy.deepcopy(backbone())
    with torch.no_grad():
        change(model)
    return model


OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"name": "test_resnet.other"},
    "library": {"library": "torchvision"},
    "pool": {"pool": "max"},
    "precision": {"precision": "bf16-mixed"},
    "batch size": {"batch_size": 4},
    "dtype": {"dtype": "float16"},
}
DATA = {
    "size": ["data.image_size=48"],
    "interpolation": ["data.interpolation=nearest"],
    "crop": ["data.crop_pct=0.5"],
    "mean": ["data.mean=[0.1,0.1,0.1]"],
    "std": ["data.std=[0.3,0.3,0.3]"],
}
MODELS = {
    "a weight": lambda: edited(lambda m: next(m.parameters()).view(-1)[0].add_(1e-6)),
    "a buffer": lambda: edited(lambda m: next(b for b in m.buffers() if b.is_floating_point())[0].add_(1e-6)),
    "a scratch seed": lambda: backbone(seed=1),
    "the order in memory": lambda: edited(lambda m: m.to(memory_format=torch.channels_last)),
}


@pytest.fixture
def filled(photos: Path, tmp_path: Path) -> FeatureBank:
    bank = opened(tmp_path)
    bank.tables(module(photos), ["train", "val", "test"])
    return bank


def is_a_miss(bank: FeatureBank, data: Any, **options: Any) -> bool:
    count = bank.missing(data, ["train", "val", "test"], **options)
    assert count in (0, sum(data.facts.sizes.values()))
    return count > 0


def test_each_input_is_part_of_the_key(filled: FeatureBank, photos: Path, tmp_path: Path) -> None:
    data = module(photos)
    assert not is_a_miss(opened(tmp_path), data)
    for what, options in OPTIONS.items():
        assert is_a_miss(opened(tmp_path, **options), data), what
    for what, model in MODELS.items():
        assert is_a_miss(opened(tmp_path, model()), data), what
    for what, overrides in DATA.items():
        assert is_a_miss(opened(tmp_path), module(photos, *overrides)), what


def test_the_machine_and_the_libraries(
    filled: FeatureBank, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(photos)
    torch.set_num_threads(2)
    assert is_a_miss(opened(tmp_path), data)
    torch.set_num_threads(1)
    assert not is_a_miss(opened(tmp_path), data)
    for name in ("torch.__version__", "timm.__version__"):
        with monkeypatch.context() as patch:
            patch.setattr(name, "0.0")
            assert is_a_miss(opened(tmp_path), data), name
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_VERSION", 0)
        assert is_a_miss(opened(tmp_path), data)
    with monkeypatch.context() as patch:
        patch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX1024")
        assert is_a_miss(opened(tmp_path), data)


def test_a_graphics_card_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = []
    for name in ("H100", "H200"):
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device, name=name: name)
        facts.append(keys.device_facts(torch.device("cuda")))
    assert facts[0] != facts[1]
    assert "threads" not in facts[0]
    assert facts[0] != keys.device_facts(torch.device("cpu"))


def test_the_cut() -> None:
    def named(cut: str | None) -> str:
        options: dict[str, Any] = {"name": "n", "library": "timm", "pool": "auto", "precision": "32-true"}
        options |= {"device": torch.device("cpu"), "batch_size": 4, "dtype": "float32"}
        return keys.key_of(keys.backbone_facts(torch.nn.Linear(1, 1), cut=cut, **options))

    assert len({named(None), named("layer1"), named("layer2")}) == 3


def test_the_content_and_the_augmentation(filled: FeatureBank, photos: Path, tmp_path: Path) -> None:
    bank = opened(tmp_path)
    bank.tables(module(photos, "data.augment=light"), ["train"], views=1)
    assert not is_a_view_missing(opened(tmp_path), module(photos, "data.augment=light"))
    assert is_a_view_missing(opened(tmp_path), module(photos, "data.augment=trivial"))
    assert is_a_view_missing(opened(tmp_path), module(photos, "data.augment=light", seed=1))
    assert is_a_view_missing(opened(tmp_path), module(photos, "data.augment=light", "data.keep_side=35"))
    (photos / "red" / "01.jpg").write_bytes((photos / "blue" / "00.jpg").read_bytes())
    changed = module(photos)
    assert opened(tmp_path).missing(changed, ["train", "val", "test"]) == 1  # the same content in another slot


def is_a_view_missing(bank: FeatureBank, data: Any) -> bool:
    return bank.missing(data, ["train"], views=1) == len(data.splits["train"].indices)


def test_nothing_else_is_a_miss(filled: FeatureBank, photos: Path, tmp_path: Path) -> None:
    """Batch size, seeds and splits of training; where and how much is kept; modes and gradients of the backbone."""
    moved = photos.rename(tmp_path / "elsewhere")
    other = module(
        moved, "data.batch_size=3", "data.split_seed=5", "data.augment=light", "data.mixup_alpha=0.2", seed=4
    )
    assert not is_a_miss(opened(tmp_path, backbone().train().requires_grad_(False), cache_gb=3.0), other)
