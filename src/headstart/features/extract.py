"""From images to rows of numbers: batches of one size, in which an image always has the same slot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.datamodule import ImageDataModule
from headstart.data.dataset import Batch, ImageDataset
from headstart.progress import counted

Indices = npt.NDArray[np.int64]
_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_FLUSH_BYTES = 64 * 2**20
"""Rows that wait on a GPU before they are fetched together: fetching waits for it."""


@dataclass(frozen=True)
class Images:
    """Where the images of some rows come from; `epoch` decides the draws of those that are augmented."""

    data: ImageDataModule
    datasets: Sequence[ImageDataset]
    which: Indices
    """(n,) the dataset of each."""
    positions: Indices
    """(n,) its place there."""
    slots: Indices
    """(n,) its place in every batch that it is in."""
    epoch: int = 0

    def read(self, places: Indices) -> list[tuple[Indices, Batch]]:
        """Bytes of some of them: for each dataset, which of `places`, and a batch."""
        found = []
        for number in np.unique(self.which[places]).tolist():
            here = np.flatnonzero(self.which[places] == number)
            keys = [(self.epoch, position) for position in self.positions[places[here]].tolist()]
            found.append((here, self.datasets[number].__getitems__(keys)))
        return found

    @property
    def are_decoded(self) -> bool:
        """Whether all of them only have to be read."""
        return all(place is not None for dataset in self.datasets for place in dataset.places)


def composed(slots: Indices) -> list[Indices]:
    """Which of some images go together: each batch has at most one for each slot, in the order of the slots."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) > 0)) if len(slots) else np.empty(0, dtype=np.int64)
    batch = np.empty(len(slots), dtype=np.int64)
    batch[order] = np.arange(len(slots)) - np.repeat(starts, np.diff(np.append(starts, len(slots))))
    together = np.lexsort((slots, batch))
    ends = np.cumsum(np.bincount(batch)) if len(slots) else np.empty(0, dtype=np.int64)
    return np.split(together, ends[:-1]) if len(slots) else []


def extract(
    model: Callable[[torch.Tensor], torch.Tensor],
    images: Images,
    wanted: Indices,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    threads: int,
    what: str,
) -> Iterator[tuple[Indices, npt.NDArray[np.float32]]]:
    """Yield some of `wanted` and what `model` gives for them, flattened, (n, width), until all are done.

    The model sees `batch_size` images at once, zeros where there are none. `threads` read images ahead.
    """
    groups = [wanted[group] for group in composed(images.slots[wanted])]
    waiting: list[tuple[Indices, torch.Tensor]] = []
    size = 0
    with counted(len(wanted), what=what) as tell:
        done = 0
        for group, parts in zip(groups, _ahead(images.read, groups, threads=threads), strict=True):
            with torch.inference_mode():
                batch = _placed(images, group, parts, batch_size=batch_size, device=device)
                with autocast(device, precision):
                    rows = model(batch)
                slots = images.slots[group]
                chosen = rows if len(group) == batch_size else rows[torch.from_numpy(slots).to(device)]
                waiting.append((group, chosen.float().flatten(1)))
            size += waiting[-1][1].nbytes
            if device.type == "cpu" or size >= _FLUSH_BYTES:
                yield _fetched(waiting)
                waiting, size = [], 0
            done += len(group)
            tell(done)
        if waiting:
            yield _fetched(waiting)


def _fetched(waiting: Sequence[tuple[Indices, torch.Tensor]]) -> tuple[Indices, npt.NDArray[np.float32]]:
    groups, rows = zip(*waiting, strict=True)
    return np.concatenate(groups), torch.cat(rows).cpu().numpy()


def _placed(
    images: Images,
    group: Indices,
    parts: list[tuple[Indices, Batch]],
    *,
    batch_size: int,
    device: torch.device,
) -> torch.Tensor:
    """A batch as the model takes it, each image in its slot."""
    whole: torch.Tensor | None = None
    for here, batch in parts:
        sent = {key: _sent(value, device) for key, value in batch.items()}
        ready: torch.Tensor = images.data.normalize(images.data.augmented(sent)["image"])
        if len(here) == batch_size:
            return ready
        if whole is None:
            whole = ready.new_zeros(batch_size, *ready.shape[1:])
        whole[torch.from_numpy(images.slots[group[here]]).to(device)] = ready
    assert whole is not None
    return whole


def _sent(value: Any, device: torch.device) -> Any:
    if device.type == "cpu" or not hasattr(value, "pin_memory"):
        return value
    pinned = value.pin_memory()
    return pinned.to(device, non_blocking=True) if isinstance(pinned, torch.Tensor) else pinned.to(device)


def _ahead(
    read: Callable[[Indices], list[tuple[Indices, Batch]]], groups: Sequence[Indices], *, threads: int
) -> Iterator[list[tuple[Indices, Batch]]]:
    """What is read of each group, in order; `threads` of them work on the next ones meanwhile."""
    waiting: deque[Future[list[tuple[Indices, Batch]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="images")
    try:
        for group in groups:
            waiting.append(pool.submit(read, group))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision as training has it."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype is not None else nullcontext()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards in the modes that it had."""
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode
