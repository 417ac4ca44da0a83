"""How a score agrees with what training measured, beside the baseline that ignores the data, with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.transferability.correlation import (
    Floats,
    pearsons,
    regrets,
    scaled,
    spearmans,
    weighted_tau,
    weighted_taus,
)
from headstart.transferability.ranking import STATIC

RESAMPLES = 2_000
SEED = 2_015
LEVEL = 0.95
FEWEST = 5
"""Candidates from which on there are intervals: of four, one resample in 64 holds one of them alone."""
MOST_UNDEFINED = 0.05
"""Share of the resamples that may have no value (one candidate alone, one value of the score) and be left out."""


@dataclass(frozen=True)
class Measured:
    """What training one candidate came to."""

    name: str
    repeats: Mapping[Hashable, float]
    """The metric by repeat: a seed, or a split. Repeats of one key share their draw."""
    shown: str = ""
    """Its name for people, where that is another."""

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.shown or self.name

    @property
    def mean(self) -> float:
        """Over the repeats; not finite where one of them is not."""
        values, exponent = scaled(np.array(list(self.repeats.values()), dtype=np.float64))
        return float(np.ldexp(np.mean(values), exponent[0]))


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; None where it has no value, or no interval."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Agreement:
    """One score against what was measured."""

    score: str
    n: int
    """Candidates that have both."""
    tau: Figure
    """Weighted Kendall tau (Vigna 2015)."""
    spearman: Figure
    pearson: Figure
    regret: Figure
    """Best measured minus measured of the candidate that the score puts first, in the metric's unit; the mean over
    those that share the first place."""
    chosen: tuple[str, ...]
    """The candidates that the score puts first."""
    over_static: Figure | None
    """Its tau minus that of the static baseline, on the candidates that have both scores and in the same resamples;
    None for the baseline itself, or without one."""
    note: str = ""

    @property
    def is_static(self) -> bool:
        """Whether it is the baseline that ignores the data."""
        return self.score == STATIC


def best_first(measured: Sequence[Measured], *, lower_is_better: bool) -> list[Measured]:
    """In the order of what they measured; last those that have no number."""
    sign = 1.0 if lower_is_better else -1.0
    return sorted(measured, key=lambda one: (bool(np.isnan(one.mean)), sign * one.mean))


@np.errstate(over="ignore", invalid="ignore")
def agreements(
    measured: Sequence[Measured], scores: Mapping[str, Sequence[float | None]], *, lower_is_better: bool = False
) -> list[Agreement]:
    """How each score agrees with `measured`: the static baseline last, where there is one.

    A score has a value per candidate, in the same order, higher is better; None or nan leaves the candidate out of
    that score; one whose measured mean is not finite is left out of all, and the notes say so. Intervals are
    percentiles of a bootstrap over candidates and, where a candidate has several repeats, over these within it;
    fewer than five candidates have none. Seeded: the same numbers give the same intervals.
    """
    means = np.array([one.mean for one in measured], dtype=np.float64) * (-1.0 if lower_is_better else 1.0)
    table = {
        name: np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        for name, values in scores.items()
    }
    static = table.get(STATIC)
    if static is not None and not (np.isfinite(static) & np.isfinite(means)).any():
        static = None
    names = [*(name for name in table if name != STATIC), *([STATIC] if STATIC in table else [])]
    return [
        _agreement(name, measured, means, table[name], None if name == STATIC else static, lower_is_better)
        for name in names
    ]


def _agreement(
    name: str,
    measured: Sequence[Measured],
    means: Floats,
    score: Floats,
    static: Floats | None,
    lower_is_better: bool,
) -> Agreement:
    used = [int(i) for i in np.flatnonzero(np.isfinite(score) & np.isfinite(means))]
    unmeasured = [one.label for one, mean in zip(measured, means, strict=True) if not np.isfinite(mean)]
    notes = [f"without a finite measured value, left out: {', '.join(unmeasured)}"] if unmeasured else []
    if not used:
        nothing = Figure(None)
        notes.insert(0, "no candidate has this score" if not np.isfinite(score).any() else "nobody has both")
        return Agreement(name, 0, nothing, nothing, nothing, nothing, (), None, "; ".join(notes))
    drawn = _Draws([measured[i] for i in used], lower_is_better)
    y, x = means[used][None], score[used][None]
    values = (weighted_tau(y[0], x[0]), float(spearmans(y, x)[0]), float(pearsons(y, x)[0]))
    if len(used) < 2:
        notes.append("one candidate alone has no order")
    elif np.ptp(x) == 0 or np.ptp(y) == 0:
        notes.append("all candidates have the same score" if np.ptp(x) == 0 else "all were measured alike")
    elif len(used) < FEWEST:
        notes.append(f"no intervals: fewer than {FEWEST} candidates")
    resampled: list[Floats] = []
    if len(used) >= FEWEST:
        many_y, many_x = drawn.measured, drawn.of(x[0])
        resampled = [f(many_y, many_x) for f in (weighted_taus, spearmans, pearsons, regrets)]
        undefined = float(np.mean(~np.isfinite(resampled[0])))
        if undefined > MOST_UNDEFINED and np.ptp(x) > 0 and np.ptp(y) > 0:
            notes.append(f"no intervals of correlations: {undefined:.0%} of the resamples have none (ties)")
    all_values = (*values, float(regrets(y, x)[0]))
    figures = [_figure(value, resampled[i] if resampled else None) for i, value in enumerate(all_values)]
    first = np.flatnonzero(x[0] == x[0].max())
    return Agreement(
        score=name,
        n=len(used),
        tau=figures[0],
        spearman=figures[1],
        pearson=figures[2],
        regret=figures[3],
        chosen=tuple(measured[used[i]].name for i in first),
        over_static=None if static is None else _over_static(measured, means, score, static, lower_is_better),
        note="; ".join(notes),
    )


def _over_static(
    measured: Sequence[Measured], means: Floats, score: Floats, static: Floats, lower_is_better: bool
) -> Figure:
    """The tau of a score minus that of the static baseline, where both are defined."""
    both = [int(i) for i in np.flatnonzero(np.isfinite(score) & np.isfinite(static) & np.isfinite(means))]
    y = means[both]
    value = weighted_tau(y, score[both]) - weighted_tau(y, static[both])
    if len(both) < FEWEST:
        return _figure(value, None)
    drawn = _Draws([measured[i] for i in both], lower_is_better)
    taus = [weighted_taus(drawn.measured, drawn.of(one[both])) for one in (score, static)]
    return _figure(value, taus[0] - taus[1])


class _Draws:
    """Resamples of candidates, (RESAMPLES, n), and what these measured with their repeats drawn anew."""

    def __init__(self, measured: Sequence[Measured], lower_is_better: bool) -> None:
        generator = np.random.default_rng(SEED)
        self.places = generator.integers(0, len(measured), (RESAMPLES, len(measured)))
        each = np.stack(_redrawn(measured, generator), axis=1) * (-1.0 if lower_is_better else 1.0)
        self.measured: Floats = np.take_along_axis(each, self.places, axis=1)

    def of(self, values: Floats) -> Floats:
        """(RESAMPLES, n) of (n,)."""
        drawn: Floats = values[self.places]
        return drawn


def _redrawn(measured: Sequence[Measured], generator: np.random.Generator) -> list[Floats]:
    """Per candidate (RESAMPLES,) means of redrawn repeats, spread by sqrt(r / (r - 1)): r repeats drawn from r have
    too little variance by (r - 1) / r. Candidates with the same repeats (seeds) draw the same of them."""
    draws: dict[frozenset[Hashable], npt.NDArray[np.int64]] = {}
    found: list[Floats] = []
    for one in measured:
        ordered = sorted(one.repeats, key=repr)
        key = frozenset(ordered)
        if key not in draws:
            draws[key] = generator.integers(0, len(ordered), (RESAMPLES, len(ordered)))
        values, exponent = scaled(np.array([one.repeats[repeat] for repeat in ordered], dtype=np.float64))
        r, mean = len(values), values.mean()
        means = values[draws[key]].mean(axis=1)
        found.append(np.ldexp(mean + (means - mean) * np.sqrt(r / (r - 1)) if r > 1 else means, exponent[0]))
    return found


def _figure(value: float, resampled: Floats | None) -> Figure:
    if not np.isfinite(value):
        return Figure(None)
    if resampled is None or np.mean(~np.isfinite(resampled)) > MOST_UNDEFINED:
        return Figure(float(value))
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(float(value), float(low), float(high))
