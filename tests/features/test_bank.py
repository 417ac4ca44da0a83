"""The features of a frozen backbone: the same bits however, whenever and with whatever else they are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import make_photos
from torch import nn

from headstart.caches import FEATURES
from headstart.cli import main
from headstart.config.compose import compose
from headstart.config.schema.head import LinearHeadConfig
from headstart.data import ImageDataModule, load_data
from headstart.errors import ConfigError
from headstart.features import bank as bank_module
from headstart.features.bank import FeatureBank, open_bank
from headstart.features.extract import composed
from headstart.models.classifier import build_classifier
from headstart.resolve import resolve, spec_of

BATCH = 8


def module(photos: Path, *overrides: str, seed: int = 0) -> ImageDataModule:
    base = ["backbone.name=test_resnet", "weights=scratch", "data=image_folder", f"data.path={photos}"]
    config = resolve(compose([*base, "data.image_size=32", "data.cache=false", "trainer.threads=1", *overrides]))
    return load_data(config.data, spec_of(config), seed=seed, threads=1, num_workers=0)


def backbone(seed: int = 0) -> nn.Module:
    built = build_classifier(
        name="test_resnet",
        library="timm",
        head=LinearHeadConfig(),
        classes=3,
        channels=3,
        size=(32, 32),
        weights=None,
        seed=seed,
    )
    return built.model.backbone


def opened(tmp_path: Path, model: nn.Module | None = None, **changes: Any) -> FeatureBank:
    options: dict[str, Any] = {
        "name": "test_resnet",
        "library": "timm",
        "pool": "auto",
        "precision": "32-true",
        "device": torch.device("cpu"),
        "batch_size": BATCH,
        "dtype": "float32",
        "cache": tmp_path / "cache",
        "cache_gb": 1.0,
    }
    return open_bank(model if model is not None else backbone(), **(options | changes))


def rows(bank: FeatureBank, data: ImageDataModule, name: str = "train") -> torch.Tensor:
    table = bank.tables(data, [name])[name]
    return table.rows(torch.arange(len(table)))


def by_hand(model: nn.Module, data: ImageDataModule, name: str = "train") -> torch.Tensor:
    """Each image alone in its slot of a batch that is empty otherwise."""
    split, found = data.splits[name], []
    images = data.sample(name, 10_000)
    with torch.no_grad():
        for image, place in zip(images, split.indices.tolist(), strict=True):
            batch = torch.zeros(BATCH, *image.shape)
            batch[place % BATCH] = image
            found.append(model.eval()(batch)[place % BATCH])
    return torch.stack(found)


def test_rows_are_what_the_backbone_gives(photos: Path, tmp_path: Path) -> None:
    model, data = backbone().train(), module(photos)
    model[1].eval() if isinstance(model, nn.Sequential) else model.bn1.eval()  # type: ignore[operator, union-attr]
    modes = [one.training for one in model.modules()]
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    bank = opened(tmp_path, model)
    tables = bank.tables(data, ["train", "val", "test"])
    assert torch.equal(torch.get_rng_state(), state)
    assert [one.training for one in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for name, table in tables.items():
        assert len(table) == data.facts.sizes[name]
        assert torch.equal(table.rows(torch.arange(len(table))), by_hand(model, data, name))
    positions = torch.tensor([3, 0, 3, 7])
    assert torch.equal(tables["train"].rows(positions), by_hand(model, data)[positions])
    assert tables["train"].rows(positions).dtype == torch.float32
    assert tables["train"].width == 96


def test_a_later_bank_reads_no_image(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, again = module(photos), module(photos)
    first = opened(tmp_path)
    assert first.missing(data, ["train", "val"]) == data.facts.sizes["train"] + data.facts.sizes["val"]
    fresh = rows(first, data)
    for file in photos.rglob("*.jpg"):
        file.write_bytes(b"gone")
    later = opened(tmp_path)
    assert later.missing(again, ["train"]) == 0
    assert torch.equal(rows(later, again), fresh)
    assert later.about() | {"seconds": 0} == {
        "key": first.about()["key"],
        "dtype": "float32",
        "batch_size": BATCH,
        "rows": {"found": len(fresh), "computed": 0},
        "seconds": 0,
        "kept": True,
    }
    assert first.about()["rows"] == {"found": 0, "computed": len(fresh)}
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert "features of frozen backbones" in said
    assert "test_resnet" in said
    assert main(["cache", "--clear", FEATURES, "--yes"]) == 0
    assert not list((tmp_path / "cache" / FEATURES).iterdir())


def test_without_the_cache_the_bits_are_the_same(photos: Path, tmp_path: Path) -> None:
    data = module(photos)
    in_memory = opened(tmp_path, cache=None)
    held = rows(in_memory, data)
    assert torch.equal(rows(in_memory, data), held)
    assert in_memory.about()["rows"] == {"found": len(held), "computed": len(held)}
    assert in_memory.about()["kept"] is False
    assert not (tmp_path / "cache" / FEATURES).exists()
    assert torch.equal(rows(opened(tmp_path), data), held)


def test_subsets_share_rows_in_any_order(photos: Path, tmp_path: Path) -> None:
    few, many = module(photos, "data.train_size=9"), module(photos, "data.train_size=20", "data.split_seed=3")
    alone = {id(one): rows(opened(tmp_path, cache=None), one) for one in (few, many)}
    bank = opened(tmp_path)
    assert torch.equal(rows(bank, few), alone[id(few)])
    table = bank.tables(many, ["train"])["train"]
    shared = len(set(few.splits["train"].ids) & set(many.splits["train"].ids))
    assert 0 < shared < 9
    assert bank.about()["rows"] == {"found": shared, "computed": 9 + 20 - shared}
    order = torch.randperm(20)
    assert torch.equal(table.rows(order), alone[id(many)][order])
    assert torch.equal(rows(bank, few), alone[id(few)])  # though more lie on the device now


class ByPlace(nn.Module):
    """Features that depend on the slot."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * torch.arange(1, len(images) + 1)[:, None]


def test_slots_are_kept_to_where_they_matter_and_not_where_they_do_not(tmp_path: Path) -> None:
    data = module(make_photos(tmp_path / "many", per_class=50), "data.train_size=40")
    for model in (ByPlace(), backbone()):
        counted = [0]
        hook = model.register_forward_pre_hook(lambda *_, n=counted: n.__setitem__(0, n[0] + 1))
        found = rows(opened(tmp_path, model), data)
        hook.remove()
        assert torch.equal(found, by_hand(model, data))
        kept = len(composed(data.splits["train"].indices % BATCH))
        assert kept > 7
        assert counted[0] == (kept + 2 if isinstance(model, ByPlace) else 5 + 2)


def test_batches_hold_one_image_for_each_slot() -> None:
    slots = np.array([5, 1, 5, 0, 1, 5, 7])
    assert [slots[one].tolist() for one in composed(slots)] == [[0, 1, 5, 7], [1, 5], [5]]
    assert sorted(np.concatenate(composed(slots)).tolist()) == list(range(7))
    assert composed(np.array([], dtype=np.int64)) == []


def test_rows_that_do_not_fit_the_device_are_gathered(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module(photos)
    whole = rows(opened(tmp_path), data)
    monkeypatch.setattr(bank_module, "CONTIGUOUS", 1000)
    positions = torch.tensor([5, 5, 1])
    assert torch.equal(opened(tmp_path).tables(data, ["train"])["train"].rows(positions), whole[positions])


def test_views_are_what_epochs_draw(photos: Path, tmp_path: Path) -> None:
    model = backbone().eval()
    data = module(photos, "data.augment=light", "data.sampling=natural")
    bank = opened(tmp_path, model)
    tables = bank.tables(data, ["train", "val"], views=2)
    assert tables["train"].views == 2
    assert torch.equal(tables["val"].rows(torch.arange(3)), by_hand(model, data, "val")[:3])
    for view in (0, 1):
        data.epoch = lambda view=view: view
        for batch in data.train_dataloader():
            seen = data.on_after_batch_transfer(batch, 0)
            with torch.no_grad():
                expected = model(seen["image"])
            found = tables["train"].rows(seen["index"], view=view)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    first, second = (tables["train"].rows(torch.arange(9), view=view) for view in (0, 1))
    assert not torch.equal(first, second)
    assert opened(tmp_path, model).missing(data, ["train", "val"], views=3) == len(tables["train"])
    other_seed = module(photos, "data.augment=light", seed=1)
    count = len(other_seed.splits["train"].indices)
    assert opened(tmp_path, model).missing(other_seed, ["train"], views=2) == 2 * count


def test_the_half_of_the_room_is_marked_and_what_it_cannot_hold_is_said(photos: Path, tmp_path: Path) -> None:
    data = module(photos)
    bank, whole = opened(tmp_path, dtype="float16"), rows(opened(tmp_path), data)
    half = rows(bank, data)
    assert half.dtype == torch.float32
    assert torch.equal(half, whole.half().float())
    assert not torch.equal(half, whole)
    assert torch.equal(rows(opened(tmp_path, dtype="float16", cache=None), data), half)
    assert bank.about()["tolerance"] == "within tolerance"

    class Large(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] * 0 + 1e5

    with pytest.raises(ConfigError, match=r"features.dtype=float16: features of this backbone reach 1e\+05"):
        rows(opened(tmp_path, Large(), dtype="float16"), data)


def test_images_without_digests_are_kept_in_memory(photos: Path, tmp_path: Path) -> None:
    model, data = backbone(), module(photos)
    some = data.excerpt("train", [4, 2, 9])
    bank = opened(tmp_path, model)
    assert torch.equal(rows(bank, some), by_hand(model, data)[[4, 2, 9]])
    rows(bank, some)
    assert bank.about()["rows"] == {"found": 3, "computed": 3}
    assert not (tmp_path / "cache" / FEATURES).exists()


def test_mixed_precision_is_that_of_training(photos: Path, tmp_path: Path) -> None:
    model, data = backbone(), module(photos)
    found = rows(opened(tmp_path, model, precision="bf16-mixed"), data)
    with torch.autocast("cpu", torch.bfloat16):
        expected = by_hand(model, data).float()
    assert torch.equal(found, expected)
    assert not torch.equal(found, by_hand(model, data))
