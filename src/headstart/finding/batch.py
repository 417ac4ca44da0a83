"""The batch-size test: images per second and memory of each size, and the largest that there is room for."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from headstart.errors import ConfigError
from headstart.finding.memory import StepMemory, estimate, room_of
from headstart.finding.steps import Steps
from headstart.preparation import Prepared
from headstart.trouble import ran_out_of_memory

SMALLEST = 8
NEAR_BEST = 0.95
"""Share of the best throughput that the suggested size must reach."""
SECONDS = 2.0
"""How long the steps of one size are timed, as far as three of them take less."""
_CPU_SHARE = 0.8
"""Of a machine's free memory, what a size tried on its CPU may take by the estimate."""
_FINE = 16
"""The largest size on a GPU is found to one part in so many."""
_NO_GAIN = 2
"""Doublings on a CPU without more images per second, after which larger sizes are not tried."""


@dataclass(frozen=True)
class Tried:
    """One batch size."""

    size: int
    rate: float
    """Images per second of whole training steps on random images; the median of the steps."""
    memory: int
    """Bytes at the peak of a step: on a GPU measured, on a CPU estimated."""


@dataclass(frozen=True)
class BatchTest:
    """What was tried, in the order of the sizes."""

    tried: tuple[Tried, ...]
    largest: int
    """The largest size with room enough, or as large as the training split."""
    limited_by: str
    """`memory`, or `images`: the training split has no more."""
    measured: bool
    """Whether memory was measured; else it is estimated."""
    room: int
    """Bytes that there are."""

    @property
    def best(self) -> float:
        """Most images per second."""
        return max(one.rate for one in self.tried)

    @property
    def suggestion(self) -> int:
        """The smallest size that is within 5 % of the best throughput."""
        return next(one.size for one in self.tried if one.rate >= NEAR_BEST * self.best)


def find_batch(
    prepared: Prepared, *, seconds: float = SECONDS, progress: Callable[[str], None] = lambda words: None
) -> BatchTest:
    """Time training steps of a prepared run at growing batch sizes, its model used up.

    The steps are those of the phase that holds most memory. On a GPU sizes double until memory runs out, and what
    lies between is halved until the largest is known; on a CPU they double as long as the estimate stays within
    what is free and a larger size still gains. No size is larger than the training split. Raises ConfigError
    where not even the smallest has room, or where the run computes features once, so that its batches cost nothing.
    """
    if prepared.together:
        raise ConfigError(
            "--find batch: this run fits its head on features that are computed once, features.batch_size images "
            "at a time; data.batch_size changes neither its speed nor its memory."
        )
    trainer = prepared.config.trainer
    if trainer.compile != "none" or trainer.devices > 1:
        raise ConfigError(
            "--find batch: times plain steps of one process; ask without trainer.compile and trainer.devices."
        )
    gpu = trainer.accelerator == "gpu"
    most = prepared.facts.sizes["train"]
    weighed = estimate(prepared)
    steps = Steps(prepared)
    steps.enter(weighed.phase or prepared.plan.phases[0])
    smallest = min(SMALLEST, most)
    search = _on_gpu if gpu else _on_cpu
    tried, limited = search(steps, weighed, smallest, most, seconds, progress)
    if not tried:
        raise ConfigError(
            f"--find batch: not even {smallest} images at once have room; a smaller data.image_size or a strategy "
            "that trains fewer layers takes less."
        )
    room = room_of("gpu" if gpu else "cpu")
    largest = max(one.size for one in tried)
    if not gpu:
        fitting = weighed.largest(int(_CPU_SHARE * room))
        largest, limited = min(fitting, most), "memory" if fitting < most else "images"
    return BatchTest(tuple(sorted(tried, key=lambda one: one.size)), largest, limited, measured=gpu, room=room)


def _on_cpu(
    steps: Steps,
    weighed: StepMemory,
    smallest: int,
    most: int,
    seconds: float,
    progress: Callable[[str], None],
) -> tuple[list[Tried], str]:
    tried: list[Tried] = []
    size, idle = smallest, 0
    while weighed.peak(size) <= _CPU_SHARE * room_of("cpu"):
        progress(f"{size} images at once")
        one = Tried(size, _rate(steps, size, seconds), weighed.peak(size))
        idle = 0 if not tried or one.rate > max(other.rate for other in tried) else idle + 1
        tried.append(one)
        if size == most or idle == _NO_GAIN:
            return tried, "images"
        size = min(2 * size, most)
    return tried, "memory"


def _on_gpu(
    steps: Steps,
    weighed: StepMemory,
    smallest: int,
    most: int,
    seconds: float,
    progress: Callable[[str], None],
) -> tuple[list[Tried], str]:
    tried: list[Tried] = []

    def fits(size: int) -> bool:
        progress(f"{size} images at once")
        one = _try(steps, size, seconds)
        tried.extend([one] if one else [])
        return one is not None

    fit, size = 0, smallest
    while fits(size):
        if size == most:
            return tried, "images"
        fit, size = size, min(2 * size, most)
    too_large = size
    while fit and too_large - fit > max(1, fit // _FINE):
        middle = (fit + too_large) // 2
        fit, too_large = (middle, too_large) if fits(middle) else (fit, middle)
    return tried, "memory"


def _try(steps: Steps, size: int, seconds: float) -> Tried | None:
    """Steps of one size on a GPU, with the memory that they took; None where it ran out."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        rate = _rate(steps, size, seconds)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        rate = 0.0
    if rate:
        return Tried(size, rate, torch.cuda.max_memory_allocated())
    steps.optimizer.zero_grad()  # out here the error and what its frames hold are gone
    gc.collect()
    torch.cuda.empty_cache()
    return None


def _rate(steps: Steps, size: int, seconds: float) -> float:
    """Images per second: the median of as many steps as `seconds` have room for, at least three."""
    batch = steps.batch(size)
    steps(batch)  # the first one makes room for what the later ones use
    steps.wait()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        steps(batch)
        steps.wait()
        times.append(time.perf_counter() - began)
    return size / statistics.median(times)
