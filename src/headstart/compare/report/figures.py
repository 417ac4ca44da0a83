"""The figures of a report: gains, learning curves, labels, cost, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from headstart.compare.comparison import Comparison
from headstart.compare.curves import Curve, mean_curve
from headstart.compare.labels import LabelEfficiency
from headstart.compare.report.plot import WIDTH, Plot, Scale, scale_over
from headstart.compare.rows import Row
from headstart.compare.statistics.scores import Floats
from headstart.compare.verdicts import signed, unsigned, verdict_of

MOST_POINTS = 60
"""Points of a curve that can be pointed at."""
MOST_CLASSES = 40
"""Classes of a confusion matrix that can still be read."""
NUMBERED_CLASSES = 12


@dataclass(frozen=True)
class Figure:
    """A picture with its title, what its marks mean, and a line below it."""

    title: str
    picture: Markup
    legend: tuple[tuple[int, str], ...] = ()
    note: str = ""


def gains_figure(comparison: Comparison, rows: Sequence[Row]) -> Figure | None:
    """Each arm's paired gain with its interval, a row each."""
    shown = [row for row in rows if row.gain is not None]
    if not shown:
        return None
    line = 44
    height = 20 + line * len(shown) + 50
    bounds = [0.0]
    for row in shown:
        assert row.gain is not None
        bounds += [row.gain.mean, *(value for value in (row.gain.low, row.gain.high) if value is not None)]
    plot = Plot(
        scale_over(bounds, begin=14, end=WIDTH - 14),
        Scale(0, len(shown), 20, 20 + line * len(shown)),
        height,
        "Paired gain of each arm over its baseline, with 95 % intervals",
    )
    plot.y = Scale(0, len(shown), 20 + line * len(shown), 20)
    plot.axes(f"gain in {comparison.metric}", "", y_ticks=False)
    plot.upright(0, kind="zero")
    for i, row in enumerate(shown):
        gain = row.gain
        assert gain is not None
        place = len(shown) - i - 0.68
        series = {"better": 0, "worse": 1}.get(row.paired.verdict if row.paired else "", 2)
        if gain.low is not None and gain.high is not None:
            plot.bar((gain.low, place), (gain.high, place), series=series)
        tip = f"{row.arm}: {signed(gain)}, {gain.n} pairs, {verdict_of(row)}"
        plot.mark(gain.mean, place, series=series, tip=tip)
        plot.text(14, plot.y(len(shown) - i) + 12, f"{gain.mean:+.3f}  {_short(row.arm, 52)}")
    better = "Left of zero is better. " if comparison.lower_is_better else ""
    return Figure(
        f"Gain over {comparison.baseline}",
        plot.svg(),
        ((0, "better"), (1, "worse"), (2, "not decided")),
        f"{better}Bars are 95 % intervals of Student's t; the verdict is after Holm's correction.",
    )


def curves_figure(
    comparison: Comparison, rows: Sequence[Row], curves: Mapping[str, Curve | None], *, title: str
) -> Figure | None:
    """The validation metric over steps: the mean of each arm's runs, and a band from the lowest to the highest."""
    drawn: list[tuple[int, Row, Floats, Floats]] = []
    for series, row in enumerate(rows):
        own = [curves.get(run.id) for run in comparison.arms_by_key[row.key].runs]
        found = mean_curve([curve for curve in own if curve is not None])
        if found is not None:
            drawn.append((series, row, *found))
    if not drawn:
        return None
    height = 300
    steps = np.concatenate([xs for _, _, xs, _ in drawn])
    values = np.concatenate([table.ravel() for *_, table in drawn])
    plot = Plot(
        scale_over(steps.tolist(), begin=46, end=WIDTH - 10, log=True, margin=0.03),
        scale_over(values.tolist(), begin=height - 44, end=24),
        height,
        f"{title}: validation metric over training steps",
    )
    plot.axes("training step", f"val/{comparison.metric.partition('/')[2]}")
    for series, _, xs, table in drawn:
        if len(table) > 1 and len(xs) > 1:
            plot.band(xs.tolist(), table.min(axis=0).tolist(), table.max(axis=0).tolist(), series=series)
    for series, row, xs, table in drawn:
        means = table.mean(axis=0)
        plot.line(list(zip(xs.tolist(), means.tolist(), strict=True)), series=series)
        for place in _thinned(len(xs)):
            spread = f" ({table[:, place].min():.3f} to {table[:, place].max():.3f})" if len(table) > 1 else ""
            tip = f"{row.arm}, step {xs[place]:,.0f}: {means[place]:.3f}{spread}"
            plot.mark(float(xs[place]), float(means[place]), series=series, tip=tip, small=True)
    return Figure(
        title,
        plot.svg(),
        tuple((series, row.arm) for series, row, _, _ in drawn),
        "Mean over runs; the band is from the lowest to the highest run.",
    )


def _thinned(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_POINTS))})


def labels_figure(lines: Sequence[LabelEfficiency], *, metric: str, title: str) -> Figure:
    """The metric over the number of labels, a line per method."""
    height = 300
    sizes = [float(size) for line in lines for size in line.labels]
    values = [
        value
        for line in lines
        for each in line.values
        for value in (each.mean, each.low, each.high)
        if value is not None
    ]
    plot = Plot(
        scale_over(sizes, begin=46, end=WIDTH - 10, log=True),
        scale_over(values, begin=height - 44, end=24),
        height,
        f"{title}: {metric} over the number of labels",
    )
    plot.axes("labelled training images", metric)
    for series, line in enumerate(lines):
        points = [(float(size), each.mean) for size, each in zip(line.labels, line.values, strict=True)]
        plot.line(points, series=series)
        for (x, y), each in zip(points, line.values, strict=True):
            if each.low is not None and each.high is not None:
                plot.bar((x, each.low), (x, each.high), series=series)
            plot.mark(x, y, series=series, tip=f"{line.method}, {x:,.0f} labels: {unsigned(each)}")
    return Figure(
        title,
        plot.svg(),
        tuple((series, line.method) for series, line in enumerate(lines)),
        "Bars are 95 % intervals over runs.",
    )


def cost_figure(comparison: Comparison, rows: Sequence[Row], *, title: str) -> Figure | None:
    """The metric against seconds per run, and the arms that no other beats in both."""
    shown = [(series, row) for series, row in enumerate(rows) if row.value and row.seconds]
    if len(shown) < 2:
        return None
    height = 300
    values = [
        value
        for _, row in shown
        if row.value
        for value in (row.value.mean, row.value.low, row.value.high)
        if value is not None
    ]
    plot = Plot(
        scale_over([row.seconds or 1 for _, row in shown], begin=46, end=WIDTH - 10, log=True),
        scale_over(values, begin=height - 44, end=24),
        height,
        f"{title}: {comparison.metric} against seconds per run",
    )
    plot.axes("seconds per run", comparison.metric)
    front = pareto([row for _, row in shown], lower_is_better=comparison.lower_is_better)
    if len(front) > 1:
        plot.line([(row.seconds or 1, row.value.mean) for row in front if row.value], series=0, kind="front")
    for series, row in shown:
        value, seconds = row.value, row.seconds
        assert value is not None
        assert seconds is not None
        if value.low is not None and value.high is not None:
            plot.bar((seconds, value.low), (seconds, value.high), series=series)
        best = "; nothing is both cheaper and better" if row in front else ""
        plot.mark(seconds, value.mean, series=series, tip=f"{row.arm}: {unsigned(value)}, {seconds:.1f} s{best}")
    return Figure(
        title,
        plot.svg(),
        tuple((series, row.arm) for series, row in shown),
        "The dotted line joins arms that no other arm beats in both. Pretraining is not counted.",
    )


def pareto(rows: Sequence[Row], *, lower_is_better: bool) -> list[Row]:
    """Rows that none is both at most as dear and better than, from the cheapest to the dearest."""
    sign = -1 if lower_is_better else 1
    ordered = sorted(rows, key=lambda row: (row.seconds or 0, -sign * (row.value.mean if row.value else 0)))
    front: list[Row] = []
    for row in ordered:
        assert row.value is not None
        if not front or sign * row.value.mean > sign * (front[-1].value.mean if front[-1].value else 0):
            front.append(row)
    return front


def confusion_figure(name: str, counts: Floats, class_names: Sequence[str]) -> Figure:
    """Rows are classes, columns what was predicted; each row is shaded by its shares."""
    n = len(class_names)
    left, top = 70, 20
    side = (WIDTH - left - 10) / n
    height = round(top + side * n + 30)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [f'<text class="name" x="{left}" y="12">predicted</text>']
    step = max(1, round(n / 20))
    for i, label in enumerate(class_names):
        if i % step == 0:
            y = top + side * (i + 0.5) + 4
            parts.append(
                f'<text class="tick" x="{left - 5}" y="{y:.1f}" text-anchor="end">{escape(_short(label))}</text>'
            )
        for j, other in enumerate(class_names):
            share = float(shares[i, j])
            if not share and n > NUMBERED_CLASSES:
                continue
            tip = f"{label} taken for {other}: {counts[i, j]:.0f} of {counts[i].sum():.0f}"
            x, y = left + side * j, top + side * i
            kind = "right" if i == j else "wrong"
            parts.append(
                f'<rect class="cell {kind}" x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
                f'fill-opacity="{share:.2f}" data-tip="{escape(tip)}"/>'
            )
            if n <= NUMBERED_CLASSES and counts[i, j]:
                dark = " on" if share > 0.55 else ""
                parts.append(
                    f'<text class="count{dark}" x="{x + side / 2:.1f}" y="{y + side / 2 + 4:.1f}" '
                    f'text-anchor="middle">{counts[i, j]:.0f}</text>'
                )
    picture = Markup(
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape("Confusion matrix of " + name)}">'
        + "".join(parts)
        + "</svg>"
    )
    return Figure(name, picture, note="Test images of all runs; a row per class, its diagonal is what was right.")


def _short(label: str, most: int = 10) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
