"""The Lightning data module: batches whose bits depend on (seed, epoch, example) and on nothing else."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from headstart.data.augmentation import Augmentation
from headstart.data.catalog import Catalog
from headstart.data.dataset import Batch, ImageDataset, as_it_is, targets_of
from headstart.data.decoded import ShortDigests
from headstart.data.fingerprint import order_fingerprint
from headstart.data.forms import Finished, Form
from headstart.data.image_cache import ImageCache
from headstart.data.pictures import thumbnail
from headstart.data.sampler import EpochSampler, InOrder
from headstart.data.split import strata
from headstart.data.subset import Split
from headstart.data.transforms import Normalize
from headstart.data.workers import FORK, one_thread
from headstart.facts import DataFacts
from headstart.records.examples import ExampleTable
from headstart.seeds import derive

T = TypeVar("T")
_MOST_KEPT = 5_000
"""Small pictures of a few thousand bytes each: the mistakes of many heads are much the same."""


class ImageDataModule(pl.LightningDataModule):
    """Training, validation and test batches of one experiment, and the facts about them."""

    def __init__(
        self,
        *,
        splits: dict[str, Split],
        facts: DataFacts,
        evaluation: Finished,
        augmentation: Augmentation | None,
        normalize: Normalize,
        batch_size: int,
        num_workers: int,
        seed: int,
        sampling: str = "natural",
        catalog: Catalog | None = None,
        cache: ImageCache | None = None,
        digests: Mapping[str, ShortDigests] | None = None,
    ) -> None:
        super().__init__()
        self.catalog = catalog
        self.splits = splits
        self.facts = facts
        self.evaluation = evaluation
        self.augmentation = augmentation
        self.normalize = normalize
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.sampling = sampling
        self._cache, self._digests = cache, digests or {}
        self._kept: dict[tuple[Any, ...], Any] = {}
        """What was worked out before; with those that differ in the seed alone it is shared."""
        self.rank, self.world = 0, 1
        """This process among those that train together, and how many there are; each has its share of a batch."""
        self.epoch: Callable[[], int] = lambda: 0
        """The epoch that is about to begin, counted from 0; whoever trains sets it."""
        self.ended: Callable[[], int] = lambda: 0
        """The epoch of the last step, likewise."""
        self.imageless: set[int] = set()
        """Epochs that are trained and validated without images: their batches have none."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the training split."""
        whole, rest = divmod(len(self._order()), self.batch_size // self.world)
        return whole + (rest > 0 and not self._leaves_out_the_last())

    def for_seed(self, seed: int) -> ImageDataModule:
        """The same images in the same splits, in the order and with the augmentation of another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def training_batches(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """Positions in the training split of the examples of each batch of an epoch, as training meets them."""
        batches: tuple[torch.Tensor, ...] = self._order().order(epoch).split(self.batch_size)
        return batches[:-1] if self._leaves_out_the_last() else batches

    def targets(self, name: str) -> torch.Tensor:
        """Targets of a split as a loss takes them: (n,) int64, or (n, numbers) float32."""
        return targets_of(self.splits[name])

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
        dataset = self.images(name, augmented=False)
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
        images: torch.Tensor = dataset.__getitems__([(0, int(position)) for position in places])["image"]
        return self.normalize(images)

    def excerpt(self, name: str, places: Sequence[int]) -> ImageDataModule:
        """The same with some examples of one split alone, all in one batch; for people to look at."""
        some, split = copy.copy(self), self.splits[name]
        some.splits = {
            **self.splits,
            name: Split(split.examples, split.indices[np.asarray(places, dtype=np.int64)]),
        }
        some._digests = {key: own for key, own in self._digests.items() if key != name}
        some._kept = {}
        some.batch_size, some.num_workers, some.sampling, some._cache = len(places), 0, "natural", None
        return some

    def examples(self) -> ExampleTable | None:
        """What the source has, and where each example is used; None for data that was not loaded from one."""
        catalog = self.catalog
        return self._once(("examples",), lambda: catalog.table(self.splits)) if catalog else None

    def _once(self, key: tuple[Any, ...], work_out: Callable[[], T]) -> T:
        """What `work_out` gives, the first time and every other."""
        if key not in self._kept:
            self._kept[key] = work_out()
        found: T = self._kept[key]
        return found

    def order_fingerprint(self) -> str:
        """SHA-256 hex digest over the ids of the training examples in the order of the first epoch."""
        return self._once(
            ("order", self.seed),
            lambda: order_fingerprint(self.splits["train"].ids, (place for _, place in self._first_epoch())),
        )

    def first_images_sha256(self, count: int = 8) -> str:
        """SHA-256 hex digest of the first images that training sees, decoded and augmented, with their targets."""
        return self._once(("images", self.seed, count), lambda: self._first_images_sha256(count))

    def _first_images_sha256(self, count: int) -> str:
        batch = self.images("train", augmented=True).__getitems__(
            list(itertools.islice(self._first_epoch(), count))
        )
        images: torch.Tensor = self.augmented(batch)["image"]
        digest = hashlib.sha256(repr(tuple(images.shape)).encode())
        digest.update(images.numpy().tobytes() + batch["target"].numpy().tobytes())
        return digest.hexdigest()

    def _first_epoch(self) -> Iterator[tuple[int, int]]:
        """(epoch, position) of the training examples in the order of the first epoch."""
        length = len(self.splits["train"].indices)
        return iter(EpochSampler(length, seed=self.seed, epoch=lambda: 0, weights=self._weights()))

    def thumbnail(self, name: str, position: int, *, side: int) -> tuple[str, bytes]:
        """Id and small picture of an example of a split; raises what decoding does, or DataError."""
        split = self.splits[name]
        index = int(split.indices[position])
        key = ("thumbnail", name, position, side)
        picture = self._kept.get(key) or thumbnail(split.examples.image(index), side=side)
        if len(self._kept) < _MOST_KEPT:
            self._kept[key] = picture
        return split.examples.ids[index], picture

    def warm(self, *, threads: int, test: bool, val: bool = True) -> None:
        """Decode what training and evaluation will need and no run has decoded yet, as far as there is room.

        Without `test` the test images are left alone, without `val` those of validation.
        """
        if self._cache is None:
            return
        train = self.augmentation.form if self.augmentation else self.evaluation
        needed: dict[Form, list[str]] = {train: ["train"]}
        needed.setdefault(self.evaluation, []).extend([*(["val"] if val else []), *(["test"] if test else [])])
        for form, names in needed.items():
            self._cache.fill(form, [(self.splits[name], self._digests[name]) for name in names], threads=threads)

    def augmented(self, batch: Batch) -> Batch:
        """Resize, flip and change the training images of a batch, on the device that they are on."""
        if self.augmentation is None or "draws" not in batch:
            return batch
        images = self.augmentation.finish(batch["image"], batch["draws"])
        return {"image": images, "target": batch["target"], "index": batch["index"]}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment and normalise on the device: batches travel as bytes."""
        if "image" not in batch:
            return batch
        batch = self.augmented(batch)
        return {**batch, "image": self.normalize(batch["image"])}

    def on_exception(self, exception: BaseException) -> None:
        """What comes after a training that has failed needs images."""
        self.imageless.clear()

    def images(self, name: str, *, augmented: bool) -> ImageDataset:
        """A split as the model is evaluated, or `augmented` as it is trained on."""
        augmentation = self.augmentation if augmented else None
        form = augmentation.form if augmentation else self.evaluation
        split = self.splits[name]
        return ImageDataset(
            split,
            form=form,
            augmentation=augmentation,
            seed=self.seed,
            travels=self.num_workers > 0 or torch.cuda.is_available(),
            places=self._cache.places(form, self._digests[name]) if self._cache else [None] * len(split.indices),
            digests=self._digests.get(name),
        )

    def _order(self) -> EpochSampler:
        """The order of the training examples, epoch by epoch."""
        return EpochSampler(
            len(self.splits["train"].indices),
            seed=self.seed,
            epoch=self.epoch,
            batch_size=self.batch_size,
            rank=self.rank,
            world=self.world,
            weights=self._weights(),
        )

    def _leaves_out_the_last(self) -> bool:
        """Whether the last training batch would be a single example, and is not the only one."""
        count = len(self.splits["train"].indices)
        return count % self.batch_size // self.world == 1 and len(self._order()) > 1

    def _weights(self) -> npt.NDArray[np.float64] | None:
        """How likely each training example is drawn, where the classes are balanced."""
        if self.sampling != "balanced":
            return None
        groups = strata(self.splits["train"].targets)
        return 1 / np.bincount(groups)[groups]

    def _loader(self, name: str, *, shuffle: bool) -> DataLoader[Batch]:
        dataset = self.images(name, augmented=shuffle)
        if shuffle or name == "val":
            dataset.imageless = self.imageless
        return DataLoader(
            dataset,
            batch_size=self.batch_size // self.world if shuffle else self.batch_size,
            sampler=self._order() if shuffle else InOrder(len(dataset), epoch=self.ended),
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            multiprocessing_context=FORK if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            drop_last=shuffle and self._leaves_out_the_last(),
            # without one of its own the loader draws a seed from the global generator, at moments that differ
            generator=torch.Generator().manual_seed(derive(self.seed, "loader", name)),
            worker_init_fn=one_thread,
        )
