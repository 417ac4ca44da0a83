"""Further test sets in tables and sentences: who wins there, and whether it is who wins at home."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.compare.abroad import Abroad, summed_up
from headstart.compare.comparison import Comparison
from headstart.compare.rows import Row
from headstart.compare.sheets import Sheet
from headstart.compare.statistics.intervals import Estimate
from headstart.compare.statistics.paired import Paired
from headstart.compare.verdicts import signed, unsigned, verdict_words
from headstart.records.evaluations import CORRUPTIONS, SEVERITIES, spoilt_name

_MOST_SAID = 6


def elsewhere_sheet(comparison: Comparison) -> Sheet:
    """A row per evaluation and arm: its value, how far from home that is, its gain there."""
    rows = [
        _cells(comparison, column, row)
        for column in summed_up(comparison.abroad)
        for row in comparison.rows
        if row.key in column.values
    ]
    against = "scratch" if comparison.baseline == "training from scratch" else "baseline"
    metric = comparison.metric.partition("/")[2]
    return Sheet(
        "On further test sets",
        ("evaluation", "arm", "n", metric, "to home", f"gain over {against}", "verdict"),
        tuple(rows),
        "To home: mean over runs of the difference to the run's own test. Verdicts after Holm's correction over "
        "the arms of each evaluation. Corrupted: the mean over all corruptions and strengths.",
    )


def _cells(comparison: Comparison, column: Abroad, row: Row) -> tuple[str, ...]:
    value, paired = column.values[row.key], column.paired.get(row.key)
    fall = _fall(comparison, column, row.key)
    return (
        column.name,
        row.arm,
        str(value.n),
        unsigned(value),
        "-" if fall is None else f"{fall:+.3f}",
        signed(paired.difference) if paired else "-",
        verdict_words(paired) if paired else "baseline" if row.is_baseline else "-",
    )


def _fall(comparison: Comparison, column: Abroad, arm: str) -> float | None:
    gaps = [
        away - home
        for run in comparison.arms_by_key[arm].runs
        if (away := run.metrics.get(column.metric)) is not None
        and (home := run.metrics.get(comparison.metric)) is not None
    ]
    return sum(gaps) / len(gaps) if gaps else None


def corruptions_sheet(comparison: Comparison) -> Sheet:
    """A row per corruption and arm: its mean, and each strength."""
    by_name = {column.name: column for column in comparison.abroad}
    rows = []
    for corruption in CORRUPTIONS:
        columns = [by_name.get(name) for name in (corruption, *(spoilt_name(corruption, s) for s in SEVERITIES))]
        for row in comparison.rows:
            means = [column.values.get(row.key) if column else None for column in columns]
            if any(means):
                rows.append((corruption, row.arm, *("-" if one is None else f"{one.mean:.3f}" for one in means)))
    return Sheet(
        "By corruption",
        ("corruption", "arm", "mean", *(f"at {severity}" for severity in SEVERITIES)),
        tuple(rows),
        "Means over runs. Strengths as in ImageNet-C and CIFAR-10-C (Hendrycks and Dietterich 2019).",
    )


def winners(comparison: Comparison) -> list[str]:
    """A line for each evaluation that another arm wins than the one that wins at home, on the same data."""
    by_setting: dict[str, list[Row]] = {}
    for row in comparison.rows:
        by_setting.setdefault(comparison.arms_by_key[row.key].setting.key, []).append(row)
    lines = []
    for rows in by_setting.values():
        for column in summed_up(comparison.abroad):
            there = [row for row in rows if row.value is not None and row.key in column.values]
            if len(there) < 2:
                continue
            home = _best(comparison, [(row, row.value) for row in there if row.value])
            away = _best(comparison, [(row, column.values[row.key]) for row in there])
            if home.key != away.key and column.values[home.key].mean != column.values[away.key].mean:
                on = f"{home.dataset}: " if len(by_setting) > 1 else ""
                lines.append(f"{on}{_line(comparison, column, home, away)}")
    more = len(lines) - _MOST_SAID
    return lines[:_MOST_SAID] + ([f"{more} further evaluations have another winner too."] if more > 0 else [])


def _best(comparison: Comparison, found: Sequence[tuple[Row, Estimate]]) -> Row:
    sign = -1 if comparison.lower_is_better else 1
    return max(found, key=lambda one: sign * one[1].mean)[0]


def _line(comparison: Comparison, column: Abroad, home: Row, away: Row) -> str:
    paired: Paired | None = comparison.paired_with(away.key, home.key, column.metric)
    tail = "."
    if paired is not None:
        gap, pairs = paired.difference, f"{paired.difference.n} pair{'s' * (paired.difference.n != 1)}"
        sure = "" if gap.excludes_zero else "; not decided"
        tail = f": {signed(gap)} there, {pairs}{sure}."
    return f"{home.arm} wins at home, {away.arm} {column.words}{tail}"
