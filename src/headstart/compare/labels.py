"""What transfer saves in labels: the gain over the number of labels, and how many labels scratch would need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.comparison import Comparison
from headstart.compare.results import PairKey
from headstart.compare.rows import Row
from headstart.compare.statistics.intervals import Estimate, estimate
from headstart.compare.statistics.scores import Floats
from headstart.compare.transfer import gain_area


@dataclass(frozen=True)
class Equivalence:
    """How many times the labels the baseline would need for what an arm gets with so many."""

    labels: int
    times: float
    bound: str
    """`=`; `>` where it never gets there, so that `times` is what was tried; `<` where it starts above."""


@dataclass(frozen=True)
class LabelEfficiency:
    """A method on a data set at several numbers of labels."""

    method: str
    dataset: str
    labels: tuple[int, ...]
    values: tuple[Estimate, ...]
    gains: tuple[Estimate | None, ...]
    area: Estimate | None
    """Mean gain over log10(labels), for seeds that have all numbers of labels."""
    equivalence: tuple[Equivalence, ...]
    is_baseline: bool


def label_efficiency(comparison: Comparison) -> list[LabelEfficiency]:
    """A line per data set and method that was run with two numbers of labels or more."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in comparison.rows:
        setting = comparison.arms_by_key[row.key].setting
        if setting.train_examples and row.value is not None:
            rows.setdefault((setting.base, row.method), []).append(row)
    found = []
    for (base, _), several in rows.items():
        by_size = {int(row.train_examples or 0): row for row in several}
        if len(by_size) < 2:
            continue
        found.append(_line(comparison, [by_size[size] for size in sorted(by_size)], rows, base))
    return found


def _line(
    comparison: Comparison, line: Sequence[Row], rows: Mapping[tuple[str, str], list[Row]], base: str
) -> LabelEfficiency:
    sizes = [int(row.train_examples or 0) for row in line]
    first = line[0]
    baseline = comparison.arms_by_key[first.baseline_key] if first.baseline_key else None
    against = rows.get((base, baseline.method), []) if baseline else []
    return LabelEfficiency(
        method=first.method,
        dataset=first.dataset,
        labels=tuple(sizes),
        values=tuple(row.value for row in line if row.value),
        gains=tuple(row.gain for row in line),
        area=_area(comparison, line) if len(sizes) > 1 else None,
        equivalence=tuple(_equivalences(line, against, lower=comparison.lower_is_better)),
        is_baseline=first.is_baseline,
    )


def _area(comparison: Comparison, line: Sequence[Row]) -> Estimate | None:
    """Paired: the area of each seed that has a run and a partner at every number of labels."""
    gaps: dict[PairKey, dict[int, tuple[float, float]]] = {}
    for row in line:
        for mine, other in comparison.pairs_of(row):
            values = float(mine.metrics[comparison.metric] or 0), float(other.metrics[comparison.metric] or 0)
            gaps.setdefault(mine.pair, {})[int(row.train_examples or 0)] = values
    areas, clusters = [], []
    for pair, by_size in gaps.items():
        if len(by_size) == len(line):
            sizes = np.array(sorted(by_size), dtype=np.float64)
            a, b = (np.array([by_size[int(size)][side] for size in sizes]) for side in (0, 1))
            area = gain_area(sizes, a, sizes, b)
            if area is not None:
                areas.append(area)
                clusters.append(pair[1:])
    return estimate(areas, clusters) if areas else None


def _equivalences(line: Sequence[Row], against: Sequence[Row], *, lower: bool) -> list[Equivalence]:
    known = {int(row.train_examples or 0): row.value.mean for row in against if row.value}
    if len(known) < 2 or line[0].is_baseline:
        return []
    sizes = np.array(sorted(known), dtype=np.float64)
    sign = -1.0 if lower else 1.0
    values = np.array([sign * known[int(size)] for size in sizes])
    return [
        data_equivalence(int(row.train_examples or 0), sign * row.value.mean, sizes, values)
        for row in line
        if row.value
    ]


def data_equivalence(labels: int, value: float, sizes: Floats, values: Floats) -> Equivalence:
    """Where the baseline's curve first reaches `value`, over `labels`.

    The curve is linear in log10(labels) between the numbers that were run, and never falls: its running maximum
    is taken, as more labels can be left unused.
    """
    rising = np.maximum.accumulate(values)
    if value > rising[-1]:
        return Equivalence(labels, float(sizes[-1] / labels), ">")
    if value < rising[0]:
        return Equivalence(labels, float(sizes[0] / labels), "<")
    place = int(np.argmax(rising >= value))
    if place == 0:
        return Equivalence(labels, float(sizes[0] / labels), "=")
    share = (value - rising[place - 1]) / (rising[place] - rising[place - 1])
    low, high = np.log10(sizes[place - 1]), np.log10(sizes[place])
    return Equivalence(labels, float(10 ** (low + share * (high - low)) / labels), "=")
