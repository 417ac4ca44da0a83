"""The trials of a study: which values are next, and what became of those before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from headstart.config.checks import lower_is_better
from headstart.records.studies import Chosen
from headstart.sweep.space import Space, applied, at_edge, combinations


@dataclass(frozen=True)
class Trial:
    """One set of values."""

    number: int
    drawn: Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """What became of a trial: `completed` with its value, `failed` or `pruned`."""

    drawn: Mapping[str, Any]
    status: str
    value: float | None = None


class Trials(Protocol):
    """The trials of one study, as many as were asked for."""

    def told(self) -> Mapping[int, Told]:
        """What is known already, by number."""

    def open(self) -> list[Trial]:
        """Trials that an earlier launch asked for and did not finish, or that failed and are tried once more."""

    def ask(self) -> Trial | None:
        """The next one; None when all have been asked for."""

    def ahead(self) -> bool:
        """Whether the next one is the same, whatever becomes of those that were asked for and are not over."""

    def report(self, number: int, curve: Mapping[int, float]) -> bool:
        """Take down the metric by epoch, as far as it goes; whether the trial should stop."""

    def tell(self, number: int, told: Told) -> None:
        """Take down what became of a trial."""


def best_of(told: Mapping[int, Told], *, space: Space, metric: str) -> Chosen:
    """What a study has found, all its trials being over; of equally good ones the first."""
    values = {number: result.value for number, result in sorted(told.items()) if result.value is not None}
    statuses = [result.status for result in told.values()]
    failed, pruned = statuses.count("failed"), statuses.count("pruned")
    if not values:  # every trial came to nothing
        return Chosen(None, {}, None, metric, len(told), failed, pruned)
    pick: Callable[..., int] = min if lower_is_better(metric) else max
    best = pick(values, key=lambda number: values[number])
    drawn = told[best].drawn
    return Chosen(
        best, applied(space, drawn), values[best], metric, len(told), failed, pruned, at_edge(space, drawn)
    )


class GridTrials:
    """Every combination of values, in order. Nothing is stored: what was done is known by the jobs."""

    def __init__(self, space: Space) -> None:
        self._values = list(combinations(space))
        self._asked = 0
        self._told: dict[int, Told] = {}

    def told(self) -> Mapping[int, Told]:
        """What is known already, by number."""
        return self._told

    def open(self) -> list[Trial]:
        """None: all are asked for anew."""
        return []

    def ask(self) -> Trial | None:
        """The next one; None when all have been asked for."""
        if self._asked == len(self._values):
            return None
        self._asked += 1
        return Trial(self._asked - 1, self._values[self._asked - 1])

    def ahead(self) -> bool:
        """Always: values are gone through in their order."""
        return True

    def report(self, number: int, curve: Mapping[int, float]) -> bool:
        """A grid is run whole."""
        return False

    def tell(self, number: int, told: Told) -> None:
        """Take down what became of a trial."""
        self._told[number] = told
