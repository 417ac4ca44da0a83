"""What transfer is worth along the way: from the start, sooner, over all of training (Taylor and Stone 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.comparison import Comparison
from headstart.compare.curves import Curve, curve_of
from headstart.compare.rows import Row
from headstart.compare.statistics.intervals import Estimate, estimate
from headstart.compare.statistics.scores import Floats

ODDS = 0.9
"""The share of the best odds that a run must reach (Kornblith et al. 2019)."""
LEVELS = 8
COSTS = ("steps", "epochs", "seconds", "images")


@dataclass(frozen=True)
class Reach:
    """What it took to reach a value: means over the runs that did, at the first evaluation at or beyond it."""

    threshold: float
    reached: int
    of: int
    steps: float | None
    epochs: float | None
    seconds: float | None
    images: float | None


@dataclass(frozen=True)
class Level:
    """A value that an arm and its baseline may reach, and how much sooner the arm does."""

    arm: Reach
    baseline: Reach
    speedup: float | None
    """Steps of the baseline over steps of the arm, where every run of both gets there."""


@dataclass(frozen=True)
class Along:
    """Measures of an arm against its baseline along training, on the validation split."""

    arm: str
    area: Estimate | None
    """Mean gain over log10(steps) between the first and the last evaluation that both have."""
    area_from: float | None
    area_to: float | None
    jumpstart: Estimate | None
    """Gain at the first evaluation that both have."""
    jumpstart_step: float | None
    own: Reach | None
    """To 90 % of the odds at its own best: each run measured by itself."""
    baseline_own: Reach | None
    levels: tuple[Level, ...]
    """The same for values from low to high: an arbitrary threshold decides nothing, so several are swept."""


def along_training(comparison: Comparison, curves: Mapping[str, Curve | None]) -> list[Along]:
    """Measures of each arm that has a baseline and curves; `curves` are by run id."""
    return [one for row in comparison.rows if (one := _along(comparison, row, curves)) is not None]


def read_curves(comparison: Comparison) -> dict[str, Curve | None]:
    """The curve of each run of a comparison, by run id."""
    runs = [run for arm in comparison.arms_by_key.values() for run in arm.runs]
    return {run.id: curve_of(run, comparison.metric) for run in runs}


def _along(comparison: Comparison, row: Row, curves: Mapping[str, Curve | None]) -> Along | None:
    pairs = []
    clusters = []
    for run, partner in comparison.pairs_of(row):
        a, b = curves.get(run.id), curves.get(partner.id)
        if a is not None and b is not None:
            pairs.append((a, b))
            clusters.append((run.split_seed, run.fold))
    if not pairs:
        return None
    sign = -1.0 if comparison.lower_is_better else 1.0
    areas = [area for a, b in pairs if (area := gain_area(a.steps, a.values, b.steps, b.values)) is not None]
    first = [max(a.steps[0], b.steps[0]) for a, b in pairs]
    last = [min(a.steps[-1], b.steps[-1]) for a, b in pairs]
    starts = [float(_at(a, step) - _at(b, step)) for (a, b), step in zip(pairs, first, strict=True)]
    mine, other = [a for a, _ in pairs], [b for _, b in pairs]
    odds = comparison.metric.rpartition("/")[2] in ("accuracy_micro", "accuracy_macro")
    return Along(
        arm=row.arm,
        area=estimate(areas, clusters) if len(areas) == len(pairs) else None,
        area_from=max(first) if areas else None,
        area_to=min(last) if areas else None,
        jumpstart=estimate(starts, clusters),
        jumpstart_step=max(first),
        own=_own(mine) if odds else None,
        baseline_own=_own(other) if odds else None,
        levels=tuple(_levels(mine, other, sign)),
    )


def gain_area(steps_a: Floats, a: Floats, steps_b: Floats, b: Floats) -> float | None:
    """1/(v - u) times the integral of (a - b) over log10(steps) from u to v, where both curves are known.

    Curves are linear in log10(steps) between evaluations. None where they share less than two places.
    """
    begin, end = max(steps_a[0], steps_b[0]), min(steps_a[-1], steps_b[-1])
    if begin >= end or begin <= 0:
        return None
    places = np.unique(np.concatenate([steps_a, steps_b, [begin, end]]))
    u = np.log10(places[(places >= begin) & (places <= end)])
    gap = np.interp(u, np.log10(steps_a), a) - np.interp(u, np.log10(steps_b), b)
    return float(np.trapezoid(gap, u) / (u[-1] - u[0]))


def _at(curve: Curve, step: float) -> float:
    return float(np.interp(np.log10(step), np.log10(curve.steps), curve.values))


def _own(curves: Sequence[Curve]) -> Reach:
    """Each run to 90 % of the odds at its own best; `threshold` is the mean of theirs."""
    bounds = [odds_threshold(float(curve.values.max())) for curve in curves]
    costs = [_cost(curve, bound, 1.0) for curve, bound in zip(curves, bounds, strict=True)]
    return _reach(float(np.mean(bounds)), costs)


def odds_threshold(best: float) -> float:
    """The accuracy whose odds are 90 % of those of `best`: o / (1 + o), o = 0.9 best / (1 - best); 1 for 1."""
    if best >= 1:
        return 1.0
    odds = ODDS * best / (1 - best)
    return odds / (1 + odds)


def _levels(mine: Sequence[Curve], other: Sequence[Curve], sign: float) -> list[Level]:
    worst = min(float((sign * curve.values).min()) for curve in (*mine, *other))
    best = max(float((sign * curve.values).max()) for curve in (*mine, *other))
    if not best > worst:
        return []
    found = []
    for bound in np.linspace(worst, best, LEVELS + 1)[1:]:
        a, b = ([_cost(curve, float(bound), sign) for curve in curves] for curves in (mine, other))
        reach_a, reach_b = _reach(sign * float(bound), a), _reach(sign * float(bound), b)
        all_there = reach_a.reached == reach_a.of and reach_b.reached == reach_b.of
        speedup = reach_b.steps / reach_a.steps if all_there and reach_a.steps and reach_b.steps else None
        found.append(Level(reach_a, reach_b, speedup))
    return found


def _cost(curve: Curve, bound: float, sign: float) -> tuple[float, ...] | None:
    there = np.flatnonzero(sign * curve.values >= bound - 1e-12)
    if not len(there):
        return None
    place = int(there[0])
    return tuple(float(getattr(curve, name)[place]) for name in COSTS)


def _reach(threshold: float, costs: Sequence[tuple[float, ...] | None]) -> Reach:
    there = [cost for cost in costs if cost is not None]
    means = np.mean(there, axis=0) if there else [None] * len(COSTS)
    values = {
        name: None if value is None or not np.isfinite(value) else float(value)
        for name, value in zip(COSTS, means, strict=True)
    }
    return Reach(threshold, len(there), len(costs), **values)
