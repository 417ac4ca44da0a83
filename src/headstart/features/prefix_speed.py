"""Whether activations come faster from where they are kept than from the layers below: a short measurement."""

from __future__ import annotations

import copy
import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.caches import MEASUREMENTS
from headstart.features.cut import Cut
from headstart.features.extract import autocast, evaluating
from headstart.records.measurements import keep, kept

GAIN = 1.05
"""How many times as fast a run's frozen part must be with activations that are kept, for them to be."""
_ROUNDS, _ENOUGH = 3, 3.0
_SAMPLE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Speed:
    """Seconds per image."""

    compute: float
    read: float

    def pays(self, epochs: float) -> bool:
        """Whether computing once and reading in so many epochs takes less than computing in each."""
        return self.compute + epochs * self.read < epochs * self.compute / GAIN


def speed_of(
    cut: Cut,
    *,
    name: str,
    shape: tuple[int, int, int],
    batch_size: int,
    precision: str,
    device: torch.device,
    dtype: str,
    on_disk: bool,
    cache: Path,
) -> Speed:
    """How fast activations at a cut of the backbone called `name` are computed and read on this machine.

    `shape`: (channels, height, width) of the images; `on_disk` says that they are too many for memory. What was
    measured is kept under `cache`, for runs of the same backbone, cut, batch, precision, device and threads.
    """
    key = {
        "what": "prefix",
        "backbone": name,
        "cut": [cut.name, *cut.shape],
        "batch": [batch_size, *shape],
        "precision": precision,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": dtype,
        "on_disk": on_disk,
    }
    seconds = kept(cache, key, ("compute", "read"))
    if seconds is None:
        compute = _compute(cut, (batch_size, *shape), device=device, precision=precision) / batch_size
        read = _from_disk(cut, dtype, cache) if on_disk else _from_memory(cut, batch_size, device) / batch_size
        seconds = {"compute": compute, "read": read}
        keep(cache, key, seconds, of=key)
    return Speed(**seconds)


def _compute(cut: Cut, batch: tuple[int, int, int, int], *, device: torch.device, precision: str) -> float:
    below = copy.deepcopy(cut.below).to(device)
    images = torch.randn(batch, generator=torch.Generator().manual_seed(0)).to(device)

    def once() -> None:
        with autocast(device, precision):
            below(images)

    with evaluating(below), torch.no_grad():
        return _fewest(once, device)


def _from_memory(cut: Cut, batch_size: int, device: torch.device) -> float:
    count = max(batch_size, min(1024, _SAMPLE_BYTES // (cut.width * 4)))
    rows = torch.zeros(count, cut.width, device=device)
    places = torch.randint(count, (batch_size,), generator=torch.Generator().manual_seed(0)).to(device)
    return _fewest(lambda: rows[places].sum(), device)


def _from_disk(cut: Cut, dtype: str, cache: Path) -> float:
    """Per row, from a file that the system has been told to forget; infinite where none can be written."""
    size = cut.width * np.dtype(dtype).itemsize
    count = max(4, _SAMPLE_BYTES // size)
    path = cache / MEASUREMENTS / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(np.random.default_rng(0).bytes(count * size))
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        held = np.memmap(path, dtype=np.uint8, mode="r").reshape(count, size)
        order = np.random.default_rng(1).permutation(count)
        began = time.perf_counter()
        for place in order.tolist():
            held[place].copy()
        return (time.perf_counter() - began) / count
    except OSError:
        return float("inf")
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _fewest(work: Callable[[], Any], device: torch.device) -> float:
    """The fewest seconds that `work` took of a few times, the first one left out."""
    found = []
    began = time.monotonic()
    for count in range(_ROUNDS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
        if count and time.monotonic() - began > _ENOUGH:
            break
    return min(found[1:])
