"""Features of one frozen backbone, per image: computed once wherever they are asked for."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.caches import FEATURES
from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import ImageDataset
from headstart.data.draws import Keys
from headstart.errors import ConfigError
from headstart.features.extract import Images, Indices, evaluating, extract
from headstart.features.keys import backbone_facts, image_facts, key_of, row_keys
from headstart.features.store import Rows, RowStore, to_stderr

CONTIGUOUS = 2 * 2**30
"""Bytes of a bank's rows that may lie on the device; what is beyond them is gathered from memory maps."""
_READERS = 4
"""Threads that feed a GPU where images only have to be read."""


class Shelf:
    """The rows of one store, and those of them that were asked for on the device."""

    def __init__(self, store: RowStore, device: torch.device, *, claim: Callable[[int], bool]) -> None:
        """`claim` says whether so many more bytes may lie on the device."""
        self.store = store
        self.device = device
        self._claim = claim
        self._pool: torch.Tensor | None = None
        self._pooled: dict[int, int] = {}

    def on_device(self, keys: Keys) -> torch.Tensor | None:
        """(n,) where each row lies in `pool`, which is filled with what it lacks; None where that is too large."""
        fresh = [key for key in dict.fromkeys(keys.tolist()) if key not in self._pooled]
        width, before = self.store.width, len(self._pooled)
        if fresh and not self._claim(len(fresh) * width * 4):
            return None
        if fresh:
            rows = self.read(np.array(fresh, dtype=np.uint64))
            self._pool = rows if self._pool is None else torch.cat([self._pool, rows])
            self._pooled.update(zip(fresh, range(before, before + len(fresh)), strict=True))
        return torch.tensor([self._pooled[key] for key in keys.tolist()], device=self.device)

    @property
    def pool(self) -> torch.Tensor:
        """(rows, width) float32."""
        assert self._pool is not None
        return self._pool

    def read(self, keys: Keys) -> torch.Tensor:
        """(n, width) float32 on the device."""
        return torch.from_numpy(self.store.read(keys)).to(self.device).float()


class FeatureTable:
    """Features of one split of one data module, rows in the split's order."""

    def __init__(self, views: Sequence[tuple[Shelf, Keys]]) -> None:
        self._views = views
        self._places: dict[int, torch.Tensor | None] = {}

    def __len__(self) -> int:
        return len(self._views[0][1])

    @property
    def width(self) -> int:
        """Numbers per image."""
        return self._views[0][0].store.width

    @property
    def views(self) -> int:
        """How many versions of each image there are."""
        return len(self._views)

    def rows(self, positions: torch.Tensor, *, view: int = 0) -> torch.Tensor:
        """(n, width) float32 on the bank's device: features of the images at `positions` (n,) in the split."""
        shelf, keys = self._views[view]
        if view not in self._places:
            self._places[view] = shelf.on_device(keys)
        places = self._places[view]
        if places is None:
            return shelf.read(keys[positions.cpu().numpy()])
        return shelf.pool[places[positions.to(places.device)]]


class FeatureBank:
    """Features of one frozen backbone, kept per image: subsets, folds and split seeds of one source share them."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        facts: Mapping[str, str],
        device: torch.device,
        precision: str,
        batch_size: int,
        dtype: str,
        folder: Path | None,
        limit: int,
        in_memory: int | None = None,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        """`open_bank` makes one; `folder` None keeps nothing on disk."""
        self.backbone = backbone
        self.facts = dict(facts)
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.dtype = dtype
        self.folder = folder
        self.limit = limit
        self.in_memory = in_memory
        self.say = say
        self.found = self.computed = 0
        self.seconds = 0.0
        self._pooled = 0
        """Bytes of all rows that lie on the device."""
        self._shelves: dict[str, Shelf] = {}
        self._sources: list[object] = []

    def tables(
        self, data: ImageDataModule, names: Sequence[str], *, views: int | None = None
    ) -> dict[str, FeatureTable]:
        """A table for each split of `data` that is named, computed as far as nobody has done so.

        With `views`, `train` has that many augmented versions: view v is what epoch v would draw. Raises DataError
        for an image that cannot be decoded any more, ConfigError where float16 cannot hold the features, TooLarge
        where neither disk nor memory may hold them.
        """
        began = time.monotonic()
        found: dict[str, FeatureTable] = {}
        plain = [name for name in names if name != "train" or views is None or data.augmentation is None]
        if plain:
            shelf, keys = self._filled(data, plain, view=None)
            found = {name: FeatureTable([(shelf, own)]) for name, own in zip(plain, keys, strict=True)}
        if len(plain) < len(names):
            shelves = [self._filled(data, ["train"], view=view) for view in range(views or 1)]
            found["train"] = FeatureTable([(shelf, keys[0]) for shelf, keys in shelves])
        self.seconds += time.monotonic() - began
        return {name: found[name] for name in names}

    def missing(self, data: ImageDataModule, names: Sequence[str], *, views: int | None = None) -> int:
        """How many rows `tables` would have to compute: where none, no image is read."""
        count = 0
        for name in names:
            augmented = name == "train" and views is not None and data.augmentation is not None
            for view in range(views or 1) if augmented else [None]:
                dataset = data.images(name, augmented=augmented)
                shelf, keys = self._shelf(data, dataset, view=view), self._keys(dataset, view=view)
                count += int(shelf.store.missing(keys).sum())
        return count

    def about(self) -> dict[str, Any]:
        """For the record: what names the features, how they are kept, and what they cost."""
        about: dict[str, Any] = {
            "key": key_of(self.facts),
            "dtype": self.dtype,
            "batch_size": self.batch_size,
            "rows": {"found": self.found, "computed": self.computed},
            "seconds": round(self.seconds, 3),
            "kept": bool(self._shelves) and all(shelf.store.is_kept for shelf in self._shelves.values()),
        }
        return about | ({"tolerance": "within tolerance"} if self.dtype == "float16" else {})

    def _filled(self, data: ImageDataModule, names: Sequence[str], *, view: int | None) -> tuple[Shelf, list[Keys]]:
        """The shelf of some splits with all their rows, and the keys of these."""
        datasets = [data.images(name, augmented=view is not None) for name in names]
        keys = [self._keys(dataset, view=view) for dataset in datasets]
        shelf = self._shelf(data, datasets[0], view=view)
        images = Images(
            data,
            datasets,
            which=np.repeat(np.arange(len(names)), [len(dataset) for dataset in datasets]),
            positions=np.concatenate([np.arange(len(dataset)) for dataset in datasets]),
            slots=np.concatenate([self._slots(dataset) for dataset in datasets]),
            epoch=view or 0,
        )
        together = np.concatenate(keys)
        computed = shelf.store.fill(together, lambda wanted: self._computed(images, wanted))
        self.computed += computed
        self.found += len(together) - computed
        return shelf, keys

    def _computed(self, images: Images, wanted: Indices) -> Any:
        readers = 1 if self.device.type == "cpu" else _READERS
        threads = readers if images.are_decoded else max(readers, torch.get_num_threads())
        model = self.backbone
        here = next(iter(model.state_dict().values()), torch.empty(0)).device
        if here.type != self.device.type:
            model = copy.deepcopy(model).to(self.device)
        with evaluating(model):
            for places, rows in extract(
                model,
                images,
                wanted,
                batch_size=self.batch_size,
                device=self.device,
                precision=self.precision,
                threads=threads,
                what="Computing features",
            ):
                yield places, self._cast(rows)

    def _claim(self, size: int) -> bool:
        if self._pooled + size > CONTIGUOUS:
            return False
        self._pooled += size
        return True

    def _cast(self, rows: Rows) -> Rows:
        """As rows are kept."""
        with np.errstate(over="ignore"):
            kept = rows.astype(self.dtype, copy=False)
        if kept.dtype != rows.dtype and (np.isinf(kept) & np.isfinite(rows)).any():
            raise ConfigError(
                f"features.dtype=float16: features of this backbone reach {np.abs(rows).max():.3g}, which float16 "
                "cannot hold; use float32."
            )
        return kept

    def _slots(self, dataset: ImageDataset) -> Indices:
        return dataset.split.source_indices % self.batch_size

    def _keys(self, dataset: ImageDataset, *, view: int | None) -> Keys:
        digests = dataset.digests
        if digests is None:  # nothing says what the images are, but for this process
            places = list(dataset.split.places())
            digests = np.array([self._number(one) << 40 | index for one, index in places], dtype=np.uint64)
        ids = dataset.split.ids if view is not None else None
        return row_keys(digests, self._slots(dataset), ids=ids)

    def _number(self, source: object) -> int:
        """Which of the sources seen so far it is; it is kept, so that no other takes its place in memory."""
        for number, known in enumerate(self._sources):
            if known is source:
                return number
        self._sources.append(source)
        return len(self._sources) - 1

    def _shelf(self, data: ImageDataModule, dataset: ImageDataset, *, view: int | None) -> Shelf:
        augmentation = dataset.augmentation if view is not None else None
        own = image_facts(dataset.form, data.normalize, augmentation=augmentation, seed=data.seed, view=view or 0)
        key = key_of(self.facts | own | ({"digests": "none"} if dataset.digests is None else {}))
        if key not in self._shelves:
            form = f"view {view} of seed {data.seed}, {dataset.form}" if view is not None else str(dataset.form)
            store = RowStore(
                self.folder / key[:32] if self.folder is not None and dataset.digests is not None else None,
                dtype=self.dtype,
                about={
                    "source": self.facts["backbone"].partition(":")[2],
                    "form": f"{form}, {self.dtype}" + (f", at {self.facts['cut']}" if self.facts["cut"] else ""),
                    "key": key,
                },
                limit=self.limit,
                in_memory=self.in_memory,
                say=self.say,
            )
            self._shelves[key] = Shelf(store, self.device, claim=self._claim)
        return self._shelves[key]


def open_bank(
    backbone: nn.Module,
    *,
    name: str,
    library: str,
    pool: str,
    precision: str,
    device: torch.device,
    batch_size: int,
    dtype: str,
    cache: Path | None,
    cache_gb: float,
    cut: str | None = None,
    in_memory: int | None = None,
    say: Callable[[str], None] = to_stderr,
) -> FeatureBank:
    """A bank of the features of `backbone`, a model without its head, as it is now.

    `cut` names the place where the activations are kept, where `backbone` is the part of it that lies below.

    `name`, `library` and `pool` (head.pool) say what was built; PyTorch's number of threads must be that of the
    run already. `cache`: the cache folder, None where features last as long as the bank. `in_memory`: bytes that
    memory may hold where the disk takes no more, None for any number. `dtype`: `float32` or `float16`. The backbone
    may be on any device and in any mode, and is left so.
    """
    facts = backbone_facts(
        backbone,
        name=name,
        library=library,
        pool=pool,
        precision=precision,
        device=device,
        batch_size=batch_size,
        dtype=dtype,
        cut=cut,
    )
    return FeatureBank(
        backbone,
        facts=facts,
        device=device,
        precision=precision,
        batch_size=batch_size,
        dtype=dtype,
        folder=cache / FEATURES if cache is not None else None,
        limit=int(cache_gb * 1e9),
        in_memory=in_memory,
        say=say,
    )
