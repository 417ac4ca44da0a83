"""What may stand in for the frozen layers of some phases: what they give, computed before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from headstart.data.datamodule import ImageDataModule
from headstart.strategies.plan import Phase, TrainingPlan

Rest = Callable[[torch.Tensor], torch.Tensor]
"""What the frozen layers give -> features (n, width): the layers above, the model's own modules."""


class Shortcut(Protocol):
    """Stands in for the frozen layers of some phases of a plan."""

    def begin(self, model: nn.Module, data: ImageDataModule, *, step: int) -> None:
        """Compute what is missing for the phases from global step `step` on; `model` lies where it trains."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases that it can stand in for, after `begin`."""

    def kept(self, phase: Phase, split: str, places: torch.Tensor) -> torch.Tensor:
        """What the frozen layers of a phase give for the images at `places` (n,) of `train` or `val`: (n, ...)."""

    def rest(self, phase: Phase) -> Rest:
        """What is to be computed from it."""

    def about(self) -> dict[str, Any]:
        """For the record: what was kept where."""


def epochs_without_images(
    plan: TrainingPlan, phases: Sequence[Phase], *, total_steps: int, steps_per_epoch: int
) -> set[int]:
    """The epochs that lie in `phases` of a plan from their first step to their last: they load no images."""
    covered = [phase in phases for phase in plan.phases]
    starts = [phase.start for phase in plan.phases]
    ends = [*starts[1:], total_steps]
    found = set()
    for epoch in range(-(-total_steps // steps_per_epoch)):
        first, last = epoch * steps_per_epoch, min(total_steps, (epoch + 1) * steps_per_epoch)
        if all(ok for ok, start, end in zip(covered, starts, ends, strict=True) if start < last and first < end):
            found.add(epoch)
    return found
