"""A few examples of each split as they are, as the model is tested on them, and as it trains on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from headstart.data import ImageDataModule
from headstart.errors import DataError
from headstart.seeds import derive

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3)"""
_THUMBNAIL = 384


@dataclass(frozen=True)
class Shown:
    """An example, before and after."""

    id: str
    label: str
    size: tuple[int, int]
    """Width and height of the original."""
    original: Pixels
    evaluated: Pixels
    augmented: tuple[Pixels, ...]
    """As training would see it in its first epochs."""


def shown_examples(
    data: ImageDataModule, name: str, *, count: int, draws: int, labels: Sequence[str], seed: int
) -> list[Shown]:
    """At most `count` examples of a split, of as many classes as can be; `labels` are the split's own, in order.

    `draws` augmented images of each, for the training split.
    """
    split = data.splits[name]
    chosen = chosen_places(labels, count=count, seed=derive(seed, "shown", name))
    evaluated, augmented = _seen(data, name, chosen, draws=draws)
    found = []
    for row, place in enumerate(chosen):
        index = int(split.indices[place])
        picture = split.examples.image(index)
        size = picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])
        found.append(
            Shown(
                id=split.examples.ids[index],
                label=labels[place],
                size=size,
                original=_original(data, name, place),
                evaluated=evaluated[row],
                augmented=tuple(draw[row] for draw in augmented),
            )
        )
    return found


def chosen_places(labels: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Places of at most `count` examples: one of each class before a second of any, drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[str, int] = {}
    rank = []
    for place in order:
        rank.append(seen.get(labels[place], 0))
        seen[labels[place]] = rank[-1] + 1
    first = np.argsort(rank, kind="stable")[:count]
    return sorted((int(order[i]) for i in first), key=lambda place: (labels[place], place))


def _seen(
    data: ImageDataModule, name: str, places: Sequence[int], *, draws: int
) -> tuple[list[Pixels], list[list[Pixels]]]:
    """What the loaders of a data module with these examples alone give: as evaluated, and for each epoch."""
    some = data.excerpt(name, places)
    loaders = {
        "train": some.plain_train_dataloader,
        "val": some.val_dataloader,
        "test": some.test_dataloader,
    }
    batch = some.on_after_batch_transfer(next(iter(loaders[name]())), 0)
    evaluated = _pixels(some, batch["image"])
    augmented: list[list[Pixels]] = []
    for epoch in range(draws if name == "train" else 0):
        some.epoch = partial(int, epoch)
        batch = some.on_after_batch_transfer(next(iter(some.train_dataloader())), 0)
        drawn = _pixels(some, batch["image"])
        by_place = dict(zip(batch["index"].tolist(), drawn, strict=True))
        augmented.append([by_place[row] for row in range(len(places))])
    return evaluated, augmented


def _pixels(data: ImageDataModule, images: torch.Tensor) -> list[Pixels]:
    """Normalised images as one looks at them: of other than three channels the first, grey."""
    mean, std = data.normalize.mean.to(images.device), data.normalize.std.to(images.device)
    levels = ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    shown = levels[:, :3] if levels.shape[1] in (3, 4) else levels[:, :1].expand(-1, 3, -1, -1)
    return [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in shown]


def _original(data: ImageDataModule, name: str, place: int) -> Pixels:
    try:
        _, content = data.thumbnail(name, place, side=_THUMBNAIL)
    except DataError:  # channels that make no picture: the first of them
        split = data.splits[name]
        picture = np.asarray(split.examples.image(int(split.indices[place])))
        return np.repeat(picture[:, :, :1], 3, axis=2)
    return np.asarray(Image.open(io.BytesIO(content), formats=("PNG", "JPEG")).convert("RGB"))
