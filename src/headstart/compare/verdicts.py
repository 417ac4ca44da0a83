"""A comparison in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.compare.comparison import Comparison
from headstart.compare.rows import Row
from headstart.compare.statistics.intervals import Estimate
from headstart.compare.statistics.paired import Paired
from headstart.compare.summary import MethodSummary
from headstart.errors import listed

_MOST_NAMED = 6


def verdict_of(row: Row) -> str:
    """What a row's comparison with its baseline decides, in a few words."""
    paired = row.paired
    if paired is None:
        if row.is_baseline:
            return "baseline"
        return "no baseline" if row.baseline is None else "no pairs"
    return "worse: negative transfer" if row.is_negative_transfer else verdict_words(paired)


def verdict_words(paired: Paired) -> str:
    """What a comparison decides, in a few words."""
    if paired.verdict == "control":
        return "control: random features"
    if paired.verdict == "worse":
        return "worse"
    if paired.verdict == "better":
        return "better"
    if paired.difference.n == 1:
        return "not decided: one pair"
    if paired.more is not None:
        return f"not decided (~{paired.more:,} more)"
    if paired.effect_size is None and paired.difference.mean == 0:
        return "not decided: equal"
    return "not decided"


def headline(comparison: Comparison, summaries: Sequence[MethodSummary] = ()) -> list[str]:
    """The answer in sentences, the most important first."""
    judged = [row for row in comparison.rows if row.paired is not None]
    better = [row for row in judged if row.paired and row.paired.verdict == "better"]
    worse = [row for row in judged if row.paired and row.paired.verdict == "worse"]
    open_ = [row for row in judged if row.paired and row.paired.verdict == "not decided"]
    against = comparison.baseline
    lines = []
    if not judged:
        lines.append(f"Nothing can be said of a gain over {against}: no arm has a partner to be measured against.")
    for row in _first(better, comparison):
        lines.append(f"{row.arm} is better than {against}: {_gain(row)}.")
    if len(better) > _MOST_NAMED:
        lines.append(f"{len(better) - _MOST_NAMED} further arms are better too.")
    for row in _first(worse, comparison):
        words = "Negative transfer: " if row.is_negative_transfer else ""
        lines.append(f"{words}{row.arm} is worse than {against}: {_gain(row)}.")
    if len(worse) > _MOST_NAMED:
        lines.append(f"{len(worse) - _MOST_NAMED} further arms are worse.")
    if open_ and not summaries:
        for row in open_[:_MOST_NAMED]:
            lines.append(f"Not decided: {row.arm}, {_gain(row)}{_more(row)}.")
        if len(open_) > _MOST_NAMED:
            lines.append(f"{len(open_) - _MOST_NAMED} further arms are not decided.")
    for one in summaries:
        if one.gain is not None:
            lines.append(_of_summary(one, against))
    return lines


def _more(row: Row) -> str:
    more = row.paired.more if row.paired else None
    if more is None:
        said = verdict_of(row).removeprefix("not decided").lstrip(": ")
        return f"; {said}" if said else ""
    return f"; about {more:,} more pair{'s' * (more != 1)} would"


def _first(rows: Sequence[Row], comparison: Comparison) -> list[Row]:
    sign = -1 if comparison.lower_is_better else 1
    return sorted(rows, key=lambda row: -sign * (row.gain.mean if row.gain else 0))[:_MOST_NAMED]


def _gain(row: Row) -> str:
    gain = row.gain
    if gain is None:
        return "no gain"
    pairs = f"{gain.n} pair{'s' * (gain.n != 1)}"
    return f"{signed(gain)}, {pairs}" + (f", over {row.pairs_vary}" if gain.low is not None else "")


def _of_summary(one: MethodSummary, against: str) -> str:
    gain = one.gain
    assert gain is not None
    interval = ""
    if gain.over_datasets:
        low, high = gain.over_datasets
        interval = f" [{low:+.3f}, {high:+.3f}] over data sets"
    lower = f"; lower than {against} on {listed(one.lower, most=_MOST_NAMED)}" if one.lower else ""
    decided = f"{one.better} better, {one.worse} worse, {one.undecided} not decided"
    return (
        f"{one.method} with {one.labels} labels: mean {one.mean.value:.3f}, gain {gain.value:+.3f}{interval}, "
        f"{len(one.datasets)} data sets ({decided}){lower}."
    )


def signed(gain: Estimate) -> str:
    """`+0.258 [+0.111, +0.405]`; equal repeats have no interval worth the name."""
    return f"{gain.mean:+.3f}" + _interval(gain, "+.3f")


def unsigned(value: Estimate) -> str:
    """`0.958 [0.934, 0.982]`."""
    return f"{value.mean:.3f}" + _interval(value, ".3f")


def _interval(value: Estimate, how: str) -> str:
    if value.low is None or value.high is None:
        return ""
    if value.is_equal:
        return f" (all {value.units} equal)"
    return f" [{value.low:{how}}, {value.high:{how}}]"
