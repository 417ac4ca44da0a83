"""A sweep's curve: the paired gain over an axis that its jobs count along, a line per name of its jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.compare.comparison import Comparison
from headstart.compare.statistics.intervals import Estimate
from headstart.errors import RecordError
from headstart.records.pictures import check_picture, write_picture
from headstart.records.sweeps import read_sweep, states_of

_COLOURS = ("#2a6f97", "#c2410c", "#2f855a", "#7b5ea7", "#8a6d3b", "#9b2c5e", "#4a5568")


@dataclass(frozen=True)
class Point:
    """One arm: where it lies on the axis, and its gain over the baseline."""

    x: float
    gain: Estimate


def curve_keys(sweep: Path) -> tuple[str, ...]:
    """Keys of the axis that a sweep was given; none where it has no curve."""
    try:
        return read_sweep(sweep).curve
    except RecordError:
        return ()


def lines_of(sweep: Path, comparison: Comparison) -> dict[str, list[Point]]:
    """Points by the name of their jobs, from left to right; arms without a value or a gain are left out.

    Raises RecordError where the sweep has no curve, or none of its arms has a baseline.
    """
    keys = curve_keys(sweep)
    if not keys:
        raise RecordError(f"{sweep}: this sweep has no curve (sweep.curve in its experiment file).")
    jobs = read_sweep(sweep).jobs
    states = states_of(sweep, jobs)
    names = {states[job.id].run: job.name or "runs" for job in jobs}
    lines: dict[str, list[Point]] = {}
    for row in comparison.rows:
        example = comparison.arms_by_key[row.key].example
        x = _value(example.config, keys)
        if x is not None and row.gain is not None:
            lines.setdefault(names.get(example.id, "runs"), []).append(Point(x, row.gain))
    if not lines:
        raise RecordError(
            f"{sweep}: no arm has both a value of {' or '.join(keys)} and a baseline to be paired with."
        )
    return {name: sorted(points, key=lambda point: point.x) for name, points in lines.items()}


def _value(config: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    for key in keys:
        group, _, name = key.partition(".")
        value = (config.get(group) or {}).get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def draw_curve(lines: dict[str, list[Point]], path: Path, *, axis: str, metric: str) -> None:
    """Write a picture of the lines with their 95 % intervals; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#9aa5b1", linewidth=1, zorder=0)
    count = len(lines)
    for i, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        # side by side, so that intervals at the same place can be told apart
        places = [point.x + 0.08 * (i - (count - 1) / 2) for point in points]
        means = [point.gain.mean for point in points]
        axes.plot(places, means, "o-", color=colour, label=name, markersize=4.5, linewidth=1.6)
        for place, point in zip(places, points, strict=True):
            if point.gain.low is not None and point.gain.high is not None:
                axes.plot([place, place], [point.gain.low, point.gain.high], color=colour, linewidth=1, alpha=0.55)
    axes.set_xlabel(axis)
    axes.set_ylabel(f"{metric} minus the baseline's")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("paired by seed and split; bars: 95 % intervals", fontsize=9)
    write_picture(figure, path)
