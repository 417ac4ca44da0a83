"""Several data sets: what a method comes to over all of them, for each number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.comparison import Comparison
from headstart.compare.rows import Row
from headstart.compare.statistics.across import (
    Aggregate,
    Scores,
    aggregate_improvement,
    aggregate_iqm,
    aggregate_mean,
    average_ranks,
)

_SCALED = ("accuracy_micro", "accuracy_macro", "accuracy_top5", "map_macro", "auroc", "average_precision")
"""Metrics whose best value is 1, so that chance and 1 give a scale on which data sets can be averaged."""


@dataclass(frozen=True)
class MethodSummary:
    """A method over the data sets that it and all others of the table have been run on."""

    method: str
    labels: str
    """How many labels were used, as asked for."""
    datasets: tuple[str, ...]
    mean: Aggregate
    """Plain mean over data sets."""
    iqm: Aggregate
    """Interquartile mean over all runs on all data sets, of scores on one scale where `scaled`."""
    scaled: bool
    """Whether scores are (value - chance) / (1 - chance), as averaging over data sets asks for."""
    rank: float
    """Average over data sets; 1 is the best."""
    gain: Aggregate | None
    """Mean over data sets of the gain over the baseline."""
    improvement: Aggregate | None
    """P(a run is better than one of the baseline's), unpaired, mean over data sets."""
    better: int
    worse: int
    undecided: int
    lower: tuple[str, ...]
    """Data sets on which its mean is below the baseline's, decided or not."""


def summarise(comparison: Comparison) -> list[MethodSummary]:
    """A summary per number of labels and method, where there are two data sets or more; else none."""
    groups: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.value is not None:
            groups.setdefault(_labels(comparison, row), []).append(row)
    return [
        one
        for labels, rows in groups.items()
        if len({_setting(comparison, row) for row in rows}) > 1
        for one in _group(comparison, labels, rows)
    ]


def incomplete(comparison: Comparison, summaries: Sequence[MethodSummary]) -> list[str]:
    """Methods that are in no summary, because others have been run on more data sets."""
    known = {one.method for one in summaries}
    if not known:
        return []
    return list(dict.fromkeys(row.method for row in comparison.rows if row.value and row.method not in known))


def _labels(comparison: Comparison, row: Row) -> str:
    return comparison.arms_by_key[row.key].setting.labels


def _setting(comparison: Comparison, row: Row) -> str:
    return comparison.arms_by_key[row.key].setting.key


def _group(comparison: Comparison, labels: str, rows: Sequence[Row]) -> list[MethodSummary]:
    by_method: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[_setting(comparison, row)] = row
    most = max(len(of) for of in by_method.values())
    by_method = {method: of for method, of in by_method.items() if len(of) == most}  # others: see `incomplete`
    shared = [
        key
        for key in dict.fromkeys(_setting(comparison, row) for row in rows)
        if all(key in of for of in by_method.values())
    ]
    if len(shared) < 2:
        return []
    chance = [comparison.references.get(key, {}).get("chance") for key in shared]
    scaled = all(value is not None for value in chance) and comparison.metric.rpartition("/")[2] in _SCALED
    sign = -1.0 if comparison.lower_is_better else 1.0
    means = np.array([[row.value.mean for key in shared if (row := of[key]).value] for of in by_method.values()])
    ranks = average_ranks(sign * means)
    values = {
        method: [_values(comparison, of[key]) for key in shared] for method, of in by_method.items()
    }  # lists of runs, data set by data set
    found = []
    for (method, of), rank in zip(by_method.items(), ranks, strict=True):
        mine = values[method]
        on_scale: Scores = mine
        if scaled:
            on_scale = [
                [(value - low) / (1 - low) for value in runs]
                for runs, low in zip(mine, [value or 0.0 for value in chance], strict=True)
            ]
        against = [of[key] for key in shared]
        other = _baseline_method(comparison, against)
        gains = [row.gain.mean for row in against if row.gain]
        better = None
        if other is not None and other in values:
            pair = (mine, values[other]) if sign > 0 else (values[other], mine)
            better = aggregate_improvement(*pair)
        verdicts = [row.paired.verdict for row in against if row.paired]
        found.append(
            MethodSummary(
                method=method,
                labels=labels,
                datasets=tuple(row.dataset for row in against),
                mean=aggregate_mean(mine),
                iqm=aggregate_iqm(on_scale),
                scaled=scaled,
                rank=float(rank),
                gain=aggregate_mean([[gain] for gain in gains]) if len(gains) == len(against) else None,
                improvement=better,
                better=verdicts.count("better"),
                worse=verdicts.count("worse"),
                undecided=verdicts.count("not decided"),
                lower=tuple(row.dataset for row in against if row.gain and sign * row.gain.mean < 0),
            )
        )
    return found


def _baseline_method(comparison: Comparison, rows: Sequence[Row]) -> str | None:
    methods = {comparison.arms_by_key[row.baseline_key].method for row in rows if row.baseline_key}
    return methods.pop() if len(methods) == 1 and all(row.baseline_key for row in rows) else None


def _values(comparison: Comparison, row: Row) -> list[float]:
    runs = comparison.arms_by_key[row.key].runs
    return [value for run in runs if (value := run.metrics.get(comparison.metric)) is not None]
