"""Batches of a split: bytes on the way to the device, and the draws that decide what is done to them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from headstart.data.augmentation import Augmentation
from headstart.data.decoded import Place, ShortDigests
from headstart.data.draws import keys_of, uniforms
from headstart.data.forms import Form, Pixels
from headstart.data.pictures import BAD_IMAGE
from headstart.data.resample import packed
from headstart.data.subset import Split
from headstart.errors import DataError

Batch = dict[str, Any]
"""`image`: uint8 (n, channels, height, width); `target`: (n,) int64 or (n, numbers) float32; `index`: (n,) places
in the split. Training images that are still to be augmented are `Crops`, and come with a NumPy array that stays on
the host: `draws` (n, k) says what is to be done."""


class ImageDataset(Dataset[Batch]):
    """Examples as the model takes them; asked for by (epoch, position), so that augmentation can follow both."""

    def __init__(
        self,
        split: Split,
        *,
        form: Form,
        augmentation: Augmentation | None,
        seed: int,
        places: Sequence[Place | None],
        travels: bool,
        digests: ShortDigests | None = None,
    ) -> None:
        self.split = split
        self.form = form
        self.augmentation = augmentation
        self.seed = seed
        self.places = places
        self.digests = digests
        self.travels = travels
        """Whether crops go to another process or device: then they are packed."""
        self._targets = targets_of(split)
        self._keys = keys_of(split.ids) if augmentation else None

    def __len__(self) -> int:
        return len(self.split.indices)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """A whole batch, of one epoch."""
        positions = [position for _, position in keys]
        images = [self._pixels(position) for position in positions]
        index = torch.tensor(positions)
        batch: Batch = {"target": self._targets[index], "index": index}
        if self.augmentation is None or self._keys is None:
            return batch | {"image": torch.from_numpy(np.stack(images))}
        draws = uniforms(self._keys[positions], seed=self.seed, epoch=keys[0][0], count=self.augmentation.draws)
        cut = self.augmentation.cut(images, draws)
        return batch | {"image": packed(cut) if self.travels else cut, "draws": draws}

    def _pixels(self, position: int) -> Pixels:
        place = self.places[position]
        if place is not None:
            return place.read()
        digest = None if self.digests is None else int(self.digests[position])
        try:
            return self.form(self.split.image(position, digest))
        except BAD_IMAGE as error:
            where = self.split.examples.where(int(self.split.indices[position]))
            raise DataError(f"{where}: cannot be decoded any more ({error}).") from error


def targets_of(split: Split) -> torch.Tensor:
    """Targets of a split: (n,) int64 of classes, or (n, numbers) float32."""
    targets = torch.from_numpy(split.targets)
    return targets.float() if targets.ndim == 2 or targets.is_floating_point() else targets


def as_it_is(batch: Any) -> Any:
    """For a loader, in the place of stacking single examples."""
    return batch
