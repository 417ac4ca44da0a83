"""What a run's training step will hold: weights, gradients, the optimiser's state, activations, temporaries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headstart.finding.live import LiveBytes, bytes_of
from headstart.finding.steps import Steps
from headstart.preparation import Prepared
from headstart.strategies.plan import Phase

SMALL = (2, 4)
"""Batch sizes of the two steps that are looked at; what a step holds grows in proportion to the images."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step, as a function of the images that go through the model at once."""

    weights: int
    """Parameters and buffers, those of penalties included."""
    state: int
    """The optimiser's."""
    gradients: int
    kept: tuple[int, int]
    """What the backward pass waits for when the forward pass ends, at the two batch sizes of `SMALL`."""
    timelines: tuple[tuple[int, ...], tuple[int, ...]]
    """What there is beyond weights and state after each operation, at the two batch sizes of `SMALL`."""
    batch_size: int
    """Images that go through the model at once in this run."""
    phase: Phase | None = None
    """The phase of the plan that it is of."""
    in_pieces: bool = False
    """Whether a batch is made of several such, which keep their gradients while the next goes through."""
    table: int = 0
    """Features of all images that are kept, where only the head trains on them."""

    def activations(self, batch: int) -> int:
        """What the forward pass of `batch` images leaves for the backward pass."""
        return _at(batch, *self.kept)

    def peak(self, batch: int | None = None) -> int:
        """The most that there is at once, of the run's own batch size or another; the moment depends on that."""
        count = batch or self.batch_size
        one, other = self.timelines
        if len(one) == len(other):
            most = max(_at(count, a, b) for a, b in zip(one, other, strict=True))
        else:  # a step that does other things with other sizes
            most = _at(count, max(one), max(other))
        return self.weights + self.state + self.table + most + (self.gradients if self.in_pieces else 0)

    def largest(self, room: int) -> int:
        """The largest batch whose step stays within `room` bytes; 0 where none does."""
        low, high = 0, 1
        while self.peak(high) <= room and high < 2**24:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.peak(middle) <= room else (low, middle)
        return low


def _at(batch: int, one: int, other: int) -> int:
    small, large = SMALL
    return round(one + (other - one) * (batch - small) / (large - small))


def estimate(prepared: Prepared) -> StepMemory:
    """Weigh two small steps in each phase of a prepared run's plan; that of the phase that holds most.

    Nothing of the run changes but the device that the model is on. A step's own workspaces (a convolution's) and
    what PyTorch holds in reserve are not in it. Of a run that fits its head on features, it is what computing and
    keeping those takes.
    """
    steps = Steps(prepared, plain=True)
    config = prepared.config
    if prepared.together:
        with steps.unchanged():
            return _weigh_features(steps, sum(prepared.facts.sizes.values()))
    share = config.data.batch_size // config.trainer.devices
    at_once = min(share, config.trainer.micro_batch_size or share)
    with steps.unchanged():
        found = [
            _weigh(steps, phase, at_once, in_pieces=at_once < share) for phase in _heaviest(prepared.plan.phases)
        ]
    return max(found, key=lambda memory: memory.peak())


def _heaviest(phases: Sequence[Phase]) -> list[Phase]:
    """Phases that may hold most: those of whose layer groups all train in another one as well hold less."""

    def within(one: Phase, other: Phase) -> bool:
        alike = (one.kinds, one.normalization) == (other.kinds, other.normalization)
        return alike and set(one.rates) <= set(other.rates)

    kept: list[Phase] = []
    for phase in phases:
        if not any(within(phase, other) for other in kept):
            kept = [*(other for other in kept if not within(other, phase)), phase]
    return kept


def _weigh(steps: Steps, phase: Phase, at_once: int, *, in_pieces: bool) -> StepMemory:
    steps.enter(phase)
    kept, timelines = _twice(steps, steps)
    return StepMemory(
        weights=bytes_of(steps.weights()),
        state=bytes_of(steps.state()),
        gradients=bytes_of(steps.trained),
        kept=kept,
        timelines=timelines,
        batch_size=at_once,
        phase=phase,
        in_pieces=in_pieces,
    )


def _weigh_features(steps: Steps, images: int) -> StepMemory:
    """The backbone in evaluation mode over `features.batch_size` images, and the table of all features."""
    features, backbone = steps.config.features, steps.module.model.backbone.eval()
    width = 0

    def forward(batch: dict[str, Any], *, forward: Callable[[], None]) -> None:
        nonlocal width
        with torch.no_grad(), steps.precision():
            width = backbone(batch["image"]).shape[1]
        forward()

    _, timelines = _twice(steps, forward)
    size = 2 if features.dtype == "float16" else 4
    return StepMemory(
        weights=bytes_of(steps.weights()),
        state=0,
        gradients=0,
        kept=(0, 0),
        timelines=timelines,
        batch_size=features.batch_size,
        table=images * width * size,
    )


Look = Callable[..., None]
"""Does a step on a batch, and calls its `forward` when the forward pass ends."""


def _twice(steps: Steps, step: Look) -> tuple[tuple[int, int], tuple[tuple[int, ...], tuple[int, ...]]]:
    """What `_look` says of both sizes of `SMALL`."""
    (left, line), (other_left, other_line) = (_look(steps, count, step) for count in SMALL)
    if len(line) != len(other_line):  # the first step of all makes what the later ones use
        left, line = _look(steps, SMALL[0], step)
    return (left, other_left), (line, other_line)


def _look(steps: Steps, count: int, step: Look) -> tuple[int, tuple[int, ...]]:
    """What there is beyond weights and state when the forward pass ends, and after each operation of the step."""
    live, left = LiveBytes(steps.held()), 0

    def ended() -> None:
        nonlocal left
        left = live.timeline[-1]

    with live:
        step(steps.batch(count), forward=ended)
    return left, tuple(live.timeline)


def room_of(accelerator: str) -> int:
    """Bytes that a run may take: all of the GPU's, or what this machine's main memory has left."""
    if accelerator == "gpu":
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return _available()


def _available() -> int:
    """Bytes of main memory that are free or can be freed at once; half of all where that is not said."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 2


def in_words(memory: StepMemory, *, precision: str) -> str:
    """A line for people."""
    peak = memory.peak()
    if memory.table:
        rest = peak - memory.weights - memory.table
        return (
            f"about {size(peak)} while features are computed, {memory.batch_size} images at once ({precision}): "
            f"weights {size(memory.weights)}, features {size(memory.table)}, what comes and goes {size(rest)}"
        )
    activations = memory.activations(memory.batch_size)
    rest = max(0, peak - memory.weights - memory.state - activations)
    return (
        f"about {size(peak)} at the peak of a step of {memory.batch_size} images ({precision}): weights "
        f"{size(memory.weights)}, optimiser {size(memory.state)}, activations {size(activations)}, gradients and "
        f"what comes and goes {size(rest)}"
    )


def size(count: int) -> str:
    """Bytes in words: `12 MB`, `3.4 GB`."""
    if count >= 10**9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 10**7 else f"{count / 1e6:.1f} MB"
