"""The Lightning data module: batches whose bits depend on (seed, epoch, example) and on nothing else."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from headstart.data.catalog import Catalog
from headstart.data.fingerprint import order_fingerprint
from headstart.data.pictures import BAD_IMAGE, as_channels, thumbnail
from headstart.data.source import Examples, Picture
from headstart.data.transforms import Geometry, Normalize
from headstart.data.workers import FORK, one_thread
from headstart.errors import DataError
from headstart.facts import DataFacts
from headstart.records.examples import ExampleTable
from headstart.seeds import derive

Batch = dict[str, torch.Tensor]
"""`image`: (n, channels, height, width); `target`: (n,) int64 or (n, classes or numbers) float32; `index`: (n,)."""

_KEEP_BYTES = 2**30
"""Images that always come out the same are kept in memory up to this size, where no worker process loads."""


@dataclass(frozen=True)
class Split:
    """Some examples of a source."""

    examples: Examples
    indices: npt.NDArray[np.int64]

    @property
    def ids(self) -> list[str]:
        """Stable ids, in order."""
        return [self.examples.ids[i] for i in self.indices]

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Their targets, in order."""
        return self.examples.targets[self.indices]

    def places(self) -> Iterator[tuple[Examples, int]]:
        """The source's own examples, and the index there of each of these."""
        for index in self.indices:
            examples, place = self.examples, int(index)
            yield examples.at(place) if isinstance(examples, _Joined) else (examples, place)


class _Joined:
    """The examples of two sources, one after the other."""

    def __init__(self, first: Examples, second: Examples) -> None:
        self._parts = (first, second)
        self._length = len(first.ids)
        self.ids = [*first.ids, *second.ids]
        self.targets = np.concatenate([first.targets, second.targets])

    def at(self, index: int) -> tuple[Examples, int]:
        """The part that an example comes from, and its index there."""
        first, second = self._parts
        return (first, index) if index < self._length else (second, index - self._length)

    def image(self, index: int) -> Picture:
        part, place = self.at(index)
        return part.image(place)

    def where(self, index: int) -> str:
        part, place = self.at(index)
        return part.where(place)


def joined(first: Split, second: Split) -> Split:
    """The examples of both."""
    if first.examples is second.examples:
        return Split(first.examples, np.sort(np.concatenate([first.indices, second.indices])))
    examples = _Joined(first.examples, second.examples)
    return Split(examples, np.concatenate([first.indices, second.indices + len(first.examples.ids)]))  # type: ignore[arg-type]


class ImageDataset(Dataset[Batch]):
    """Examples as the model takes them; asked for by (epoch, position), so that augmentation can follow both."""

    def __init__(
        self, split: Split, *, geometry: Geometry, channels: int, seed: int, random: bool, keep: bool
    ) -> None:
        self.split = split
        self.geometry = geometry
        self.channels = channels
        self.seed = seed
        self.random = random
        self._targets = torch.from_numpy(split.targets)
        if self._targets.ndim == 2 or self._targets.is_floating_point():
            self._targets = self._targets.float()
        self._kept: dict[int, torch.Tensor] | None = {} if keep and not random else None

    def __len__(self) -> int:
        return len(self.split.indices)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, position = key
        return {
            "image": self._image(epoch, position),
            "target": self._targets[position],
            "index": torch.tensor(position),
        }

    def _image(self, epoch: int, position: int) -> torch.Tensor:
        if self._kept is not None and position in self._kept:
            return self._kept[position]
        index = int(self.split.indices[position])
        try:
            picture = as_channels(self.split.examples.image(index), self.channels)
        except BAD_IMAGE as error:
            raise DataError(f"{self.split.examples.where(index)}: cannot be decoded any more ({error}).") from error
        if not self.random:
            pixels = self.geometry(picture)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(self.seed, "augment", epoch, self.split.examples.ids[index]))
                pixels = self.geometry(picture)
        if self._kept is not None and len(self._kept) * pixels.numel() < _KEEP_BYTES:
            self._kept[position] = pixels
        return pixels


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, position) of every example, in an order drawn from (seed, epoch), or in their own order.

    Where several processes train together, each has its share of every batch, all of the same size: the last
    batch leaves out what cannot be divided.

    The epoch is asked for, not told: Lightning tells samplers the wrong one after a resume (its count of
    processed epochs runs ahead by one), and asks for the first batches before it tells.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        epoch: Callable[[], int] | None,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length = length
        self.seed = seed
        self.epoch = epoch
        self.batch_size = batch_size
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        if self.world == 1:
            return self.length
        whole, rest = divmod(self.length, self.batch_size)
        return whole * (self.batch_size // self.world) + rest // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.epoch is None:
            return iter([(0, position) for position in range(self.length)])
        epoch = self.epoch()
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        if self.world > 1:
            order = [
                position
                for start in range(0, self.length, self.batch_size)
                for position in self._share(order, start)
            ]
        return iter([(epoch, position) for position in order])

    def _share(self, order: list[int], start: int) -> list[int]:
        """This process's share of the batch that begins at `start`."""
        batch = order[start : start + self.batch_size]
        size = len(batch) // self.world
        return batch[self.rank * size : (self.rank + 1) * size]


class ImageDataModule(pl.LightningDataModule):
    """Training, validation and test batches of one experiment, and the facts about them."""

    def __init__(
        self,
        *,
        splits: dict[str, Split],
        facts: DataFacts,
        train_geometry: Geometry,
        eval_geometry: Geometry,
        normalize: Normalize,
        augment: str,
        batch_size: int,
        num_workers: int,
        seed: int,
        catalog: Catalog | None = None,
    ) -> None:
        super().__init__()
        self.catalog = catalog
        self.splits = splits
        self.facts = facts
        self.train_geometry = train_geometry
        self.eval_geometry = eval_geometry
        self.normalize = normalize
        self.augment = augment
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.rank, self.world = 0, 1
        """This process among those that train together, and how many there are; each has its share of a batch."""
        self.epoch: Callable[[], int] = lambda: 0
        """The epoch that is about to begin, counted from 0; whoever trains sets it."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the training split."""
        return len(self.train_dataloader())

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled; a last batch of a single example is left out, as batch normalisation cannot take it."""
        return self._loader("train", shuffle=True)

    def plain_train_dataloader(self) -> DataLoader[Batch]:
        """The training split in order, as the model is evaluated: without augmentation."""
        return self._loader("train", shuffle=False)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """In order."""
        return self._loader("test", shuffle=False)

    def sample(self, name: str, count: int) -> torch.Tensor:
        """At most `count` images from all over a split, as the model is evaluated: (n, channels, height, width)."""
        dataset = self._dataset(name, shuffle=False)
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
        images = [dataset[0, int(position)]["image"] for position in places]
        return self.normalize(torch.stack(images))

    def examples(self) -> ExampleTable | None:
        """What the source has, and where each example is used; None for data that was not loaded from one."""
        return self.catalog.table(self.splits) if self.catalog else None

    def order_fingerprint(self) -> str:
        """SHA-256 hex digest over the ids of the training examples in the order of the first epoch."""
        return order_fingerprint(self.splits["train"].ids, (place for _, place in self._first_epoch()))

    def first_images_sha256(self, count: int = 8) -> str:
        """SHA-256 hex digest of the first images that training sees, decoded and augmented, with their targets."""
        dataset = self._dataset("train", shuffle=True)
        digest = hashlib.sha256()
        for key in itertools.islice(self._first_epoch(), count):
            example = dataset[key]
            digest.update(repr(tuple(example["image"].shape)).encode())
            digest.update(example["image"].numpy().tobytes() + example["target"].numpy().tobytes())
        return digest.hexdigest()

    def _first_epoch(self) -> Iterator[tuple[int, int]]:
        """(epoch, position) of the training examples in the order of the first epoch."""
        return iter(EpochSampler(len(self.splits["train"].indices), seed=self.seed, epoch=lambda: 0))

    def thumbnail(self, name: str, position: int, *, side: int) -> tuple[str, bytes]:
        """Id and small picture of an example of a split; raises what decoding does, or DataError."""
        split = self.splits[name]
        index = int(split.indices[position])
        return split.examples.ids[index], thumbnail(split.examples.image(index), side=side)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise on the device: batches travel as bytes."""
        return {**batch, "image": self.normalize(batch["image"])}

    def _dataset(self, name: str, *, shuffle: bool) -> ImageDataset:
        return ImageDataset(
            self.splits[name],
            geometry=self.train_geometry if shuffle else self.eval_geometry,
            channels=self.facts.channels,
            seed=self.seed,
            random=shuffle and self.augment != "none",
            keep=self.num_workers == 0,
        )

    def _loader(self, name: str, *, shuffle: bool) -> DataLoader[Batch]:
        split = self.splits[name]
        dataset = self._dataset(name, shuffle=shuffle)
        rest = len(split.indices) % self.batch_size // (self.world if shuffle else 1)
        sampler = EpochSampler(len(dataset), seed=self.seed, epoch=None)
        if shuffle:
            share = {"batch_size": self.batch_size, "rank": self.rank, "world": self.world}
            sampler = EpochSampler(len(dataset), seed=self.seed, epoch=self.epoch, **share)
        return DataLoader(
            dataset,
            batch_size=self.batch_size // self.world if shuffle else self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            multiprocessing_context=FORK if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=shuffle and rest == 1 and len(sampler) > 1,
            # without one of its own the loader draws a seed from the global generator, at moments that differ
            generator=torch.Generator().manual_seed(derive(self.seed, "loader", name)),
            worker_init_fn=one_thread,
        )
