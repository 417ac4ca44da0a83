"""The order of examples, and sampling that makes rare classes as frequent as others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.conftest import make_photos

from headstart.config.compose import compose
from headstart.data import ImageDataModule, load_data
from headstart.data.sampler import EpochSampler
from headstart.resolve import resolve, spec_of


def module(photos: Path, *overrides: str, workers: int = 0) -> ImageDataModule:
    base = ["backbone.name=test_resnet", "weights=scratch", "data=image_folder", f"data.path={photos}"]
    config = resolve(compose([*base, "data.image_size=16", "data.batch_size=8", *overrides]))
    return load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=workers)


def test_balanced_sampling_shows_each_class_as_often(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", per_class=30, size=(16, 16))
    for name, kept in (("red", 6), ("green", 15)):
        for file in sorted((photos / name).iterdir())[kept:]:
            file.unlink()
    alone: list[list[int]] = []
    for workers in (0, 2):
        data = module(photos, "data.sampling=balanced", workers=workers)
        epoch = 0
        data.epoch = lambda: epoch  # noqa: B023
        loader = data.train_dataloader()
        targets, orders = [], []
        for epoch in range(40):  # noqa: B007
            batches = list(loader)
            targets += [batch["target"] for batch in batches]
            orders.append(torch.cat([batch["index"] for batch in batches]).tolist())
        shares = torch.cat(targets).bincount(minlength=3) / len(torch.cat(targets))
        assert float((shares - 1 / 3).abs().max()) < 0.05
        assert orders[0] != orders[1]
        assert orders == (alone or orders)
        alone = orders
    natural = torch.cat([batch["target"] for batch in module(photos).train_dataloader()]).bincount(minlength=3)
    assert natural.tolist() == list(data.facts.class_counts["train"])


def test_every_example_once_an_epoch_without_weights() -> None:
    sampler = EpochSampler(50, seed=3, epoch=lambda: 2)
    order = [position for _, position in sampler]
    assert sorted(order) == list(range(50))
    assert order == [position for _, position in EpochSampler(50, seed=3, epoch=lambda: 2)]


def test_ranks_share_the_balanced_order() -> None:
    weights = np.array([1.0] * 30 + [10.0] * 3)
    whole = [p for _, p in EpochSampler(33, seed=0, epoch=lambda: 0, weights=weights)]
    shares = [
        [p for _, p in EpochSampler(33, seed=0, epoch=lambda: 0, weights=weights, batch_size=8, rank=r, world=2)]
        for r in range(2)
    ]
    together = [p for start in range(0, 16, 4) for share in shares for p in share[start : start + 4]]
    assert together == whole[:32]


def test_threads_that_share_a_batch_have_the_modes_of_who_asks() -> None:
    from headstart.data.transforms import Normalize

    pixels = torch.randint(0, 256, (6, 3, 5, 5), dtype=torch.uint8)
    normalize = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    torch.set_num_threads(2)
    plain = normalize(pixels)
    assert torch.equal(plain, pixels.float().div(255).sub(mean).div(std))
    with torch.inference_mode():
        assert torch.equal(normalize(pixels), plain)
    torch.set_num_threads(1)
    assert torch.equal(normalize(pixels), plain)


def test_steps_are_those_that_the_loader_has(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", per_class=12, size=(16, 16))
    for size in (16, 17, 18, 8, 9):
        data = module(photos, f"data.train_size={size}", "data.test_size=6", "data.val_size=6")
        assert data.steps_per_epoch == len(data.train_dataloader()) == len(list(data.train_dataloader()))
        data.world = 2
        assert data.steps_per_epoch == len(data.train_dataloader())
