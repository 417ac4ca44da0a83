"""The training plan: what trains, and how fast, as a pure function of the global step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from headstart.facts import LayerMap, ParameterKind

HEAD = "head"


@dataclass(frozen=True)
class Timing:
    """How long a run is, in optimiser steps."""

    total_steps: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Phase:
    """From global step `start` on, the groups in `rates` train at that multiple of the base learning rate.

    A layer group that is not in `rates` is frozen: no update, no optimiser state, evaluation mode. `kinds`
    narrows what trains in the backbone's groups; None is everything. The head trains whole or not at all.
    `normalization` is how the normalisations of the groups that train behave (training/normalization.py).
    """

    start: int
    rates: Mapping[str, float]
    kinds: frozenset[ParameterKind] | None = None
    normalization: str = "train"

    def trains(self, group: str, kind: ParameterKind) -> bool:
        """Whether parameters of one kind train in a layer group."""
        return group in self.rates and (group == HEAD or self.kinds is None or kind in self.kinds)

    def runs_in_training_mode(self, group: str) -> bool:
        """Whether a layer group's own layers are in training mode.

        Those of a group in which only additions train are not: what the additions stand in stays frozen.
        """
        return group in self.rates and (group == HEAD or self.kinds is None or self.kinds != {"added"})


@dataclass(frozen=True)
class TrainingPlan:
    """Phases in the order of their starts; the first one starts at step 0.

    `adapts_rates`: whether the rate of each tensor is further multiplied by its relative gradient norm, which
    is learned along the way (Auto-RGN).
    """

    phases: tuple[Phase, ...]
    adapts_rates: bool = False
    stochnorm_p: float = 0.5
    """How often the normalisation policy `stochnorm` takes a channel's statistics from the batch."""

    def __post_init__(self) -> None:
        starts = [phase.start for phase in self.phases]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise ValueError(f"phases must start at 0 and then later and later, not at {starts}")

    def at(self, step: int) -> Phase:
        """The phase of a global step: all there is to know of it."""
        return self.phases[bisect_right([phase.start for phase in self.phases], step) - 1]

    @property
    def ever_trained(self) -> tuple[str, ...]:
        """Layer groups in which something trains in some phase."""
        return tuple(dict.fromkeys(group for phase in self.phases for group in phase.rates))

    def ever_trains(self, group: str, kind: ParameterKind) -> bool:
        """Whether parameters of one kind in a layer group train in some phase."""
        return any(phase.trains(group, kind) for phase in self.phases)

    @property
    def trains_the_backbone(self) -> bool:
        """Whether anything of the backbone itself, additions left out, trains in some phase."""
        return any(
            phase.runs_in_training_mode(name) for phase in self.phases for name in phase.rates if name != HEAD
        )

    @property
    def moves_the_features(self) -> bool:
        """Whether the features that reach the head change while training."""
        return any(group != HEAD for group in self.ever_trained)

    def lengths(self, total_steps: int) -> tuple[int, ...]:
        """Steps of each phase in a run of `total_steps`."""
        ends = [*(phase.start for phase in self.phases[1:]), total_steps]
        return tuple(end - phase.start for phase, end in zip(self.phases, ends, strict=True))

    def count_trainable(self, layers: LayerMap) -> int:
        """How many numbers are trained in some phase."""
        return sum(p.size for g in layers.groups for p in g.parameters if self.ever_trains(g.name, p.kind))

    def to_plain(self) -> list[dict[str, object]]:
        """Plain data, for the record: a row per phase."""
        return [
            {
                "start": phase.start,
                "rates": dict(phase.rates),
                "kinds": sorted(phase.kinds) if phase.kinds is not None else None,
                "normalization": phase.normalization,
            }
            for phase in self.phases
        ]
