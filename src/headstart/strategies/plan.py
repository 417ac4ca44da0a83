"""The training plan: what trains, and how fast, as a pure function of the global step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.facts import LayerMap


@dataclass(frozen=True)
class Phase:
    """From global step `start` on, the groups in `rates` train at that multiple of the base learning rate.

    A layer group that is not in `rates` is frozen: no update, no optimiser state, evaluation mode.
    """

    start: int
    rates: Mapping[str, float]

    def trains(self, group: str) -> bool:
        """Whether a layer group trains in this phase."""
        return group in self.rates


@dataclass(frozen=True)
class TrainingPlan:
    """Phases in the order of their starts; the first one starts at step 0."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        starts = [phase.start for phase in self.phases]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(f"phases must start at 0 and then later and later, not at {starts}")

    def at(self, step: int) -> Phase:
        """The phase of a global step: all there is to know of it."""
        return self.phases[bisect_right([phase.start for phase in self.phases], step) - 1]

    @property
    def ever_trained(self) -> tuple[str, ...]:
        """Layer groups that train in some phase."""
        return tuple(dict.fromkeys(group for phase in self.phases for group in phase.rates))

    def count_trainable(self, layers: LayerMap) -> int:
        """How many numbers are trained in some phase."""
        return sum(group.size for group in layers.groups if group.name in self.ever_trained)
