"""Intervals of scores, and of places in a ranking, over examples drawn anew. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import Array, Examples, Places, Score, Scored

LARGEST = 1000
"""Most examples that a draw holds where a score is computed anew."""
LEVEL = 0.95
NEAR = 1e-10
"""Values that differ by less than this share of the largest are a tie."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Draws:
    """Examples drawn with replacement, the same ones for every candidate."""

    n: int
    """Examples that there are."""
    count: int
    """Draws."""
    seed: int
    largest: int = LARGEST

    @property
    def m(self) -> int:
        """Examples in a draw: m out of n, so that thousands of images cost no more than a thousand."""
        return min(self.n, self.largest)

    @cached_property
    def places(self) -> Places:
        """(count, m) of 0..n-1."""
        return np.random.default_rng([self.seed, self.n]).integers(self.n, size=(self.count, self.m))


def bootstrap(score: Score, examples: Examples, scored: Scored, draws: Draws) -> Array:
    """(count,) values that the score could have had with other examples; NaN where that cannot be known.

    A value that is a mean over examples is drawn without a refit; any other is computed anew on each draw. Draws of
    m out of n spread sqrt(n / m) times as much as draws of n, so how far they lie from their mean is scaled by
    sqrt(m / n) (Bickel, Goetze and van Zwet 1997) and put around the value: what a score gains or loses by fewer
    and repeated examples is no part of the interval. Unknown are values that follow from the shape of the features
    alone, in the draws or before.
    """
    unknown = np.full(draws.count, np.nan)
    if scored.value is None or scored.forced or not scored.spread:
        return unknown
    if scored.per_example is not None:
        found = scored.per_example[draws.places].mean(axis=1)
    else:
        every = [score.compute(examples.take(places)) for places in draws.places]
        if any(one.value is None or one.forced or not one.spread for one in every):
            return unknown
        found = np.array([one.value for one in every], dtype=np.float64)
    around: Array = scored.value + np.sqrt(draws.m / draws.n) * (found - found.mean())
    return around


def interval(values: Array, *, level: float = LEVEL) -> Interval | None:
    """The percentile interval of drawn values; None where they are not known."""
    if not len(values) or not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(values: Mapping[str, Array], *, level: float = LEVEL) -> dict[str, Interval]:
    """The percentile interval of each; those that are not known are left out."""
    found = {name: interval(drawn, level=level) for name, drawn in values.items()}
    return {name: pair for name, pair in found.items() if pair is not None}


def rank_intervals(values: Mapping[str, Array], *, level: float = LEVEL) -> dict[str, Interval]:
    """Percentile intervals of each candidate's place, 1 is best, over draws that all candidates share.

    Candidates with the same value in a draw share the mean of their places. Candidates whose draws are not known
    have none, and as they could take any place, the others' intervals reach as many places further down.
    """
    known = {name: drawn for name, drawn in values.items() if len(drawn) and np.isfinite(drawn).all()}
    if not known:
        return {}
    table: NDArray[Any] = np.stack(list(known.values()))
    near = np.abs(table).max() * NEAR
    places = {}
    for name, own in known.items():
        tied = (np.abs(table - own) <= near).sum(axis=0)
        places[name] = (table > own + near).sum(axis=0) + (tied + 1) / 2
    unknown = len(values) - len(known)
    return {name: (low, high + unknown) for name, (low, high) in intervals(places, level=level).items()}
