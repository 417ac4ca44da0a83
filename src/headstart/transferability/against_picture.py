"""How scores agree with training, drawn: predicted against measured, or tau by data set beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.records.pictures import check_picture, write_picture
from headstart.transferability.against import Against, OfDataset
from headstart.transferability.agreement import Agreement, Figure, Measured, best_first
from headstart.transferability.place_labels import short
from headstart.transferability.ranking import STATIC

_INK, _SCORE, _STATIC, _GRID, _ZERO = "#1f2933", "#2a6f97", "#c0562f", "#e4e7eb", "#9aa5b1"
COLUMNS = 4
MOST_NAMED = 14
"""Candidates up to which each point bears its number."""
MANY = 10_000
"""A static baseline beyond this is no z-score: it counts parameters."""


@np.errstate(over="ignore", invalid="ignore")  # of axes up to the largest numbers
def draw(against: Against, path: Path) -> None:
    """Write the picture; raises ConfigError for another kind of file, or a folder that is not there."""
    check_picture(path)
    figure = _by_candidate(against) if len(against.datasets) == 1 else _by_dataset(against)
    write_picture(figure, path)


def _by_candidate(against: Against) -> Any:
    """A panel per score: what it predicts against what was measured; and one that names the points."""
    from matplotlib.figure import Figure as Canvas

    of = against.datasets[0]
    order = best_first(of.measured, lower_is_better=against.lower_is_better)
    numbers = {one.name: i for i, one in enumerate(order, start=1)}
    shown = [one for one in of.agreements if one.n]
    columns = 3 if len(shown) in (4, 5) else min(COLUMNS, len(shown) + 1)
    rows = -(-(len(shown) + 1) // columns)
    figure = Canvas(figsize=(3.5 * columns + 0.6, 3.2 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i < len(shown):
            _points(panel, of, shown[i], numbers)
        else:
            panel.axis("off")
        if i % columns == 0:
            panel.set_ylabel(_plain(against.metric), color=_INK)
    _key(list(panels.flat)[len(shown)], order)
    if against.lower_is_better:
        panels[0][0].invert_yaxis()  # shared: better is up in all of them
    better = " (lower is better: turned)" if against.lower_is_better else ""
    figure.suptitle(
        f"{_plain(of.dataset)}: predicted against measured{better}; the static baseline (orange) ignores the data",
        fontsize=10,
        color=_INK,
    )
    return figure


def _points(panel: Any, of: OfDataset, one: Agreement, numbers: Mapping[str, int]) -> None:
    color = _STATIC if one.is_static else _SCORE
    pairs = zip(of.scores[one.score], of.measured, strict=True)
    known = [(x, m) for x, m in pairs if x is not None and np.isfinite((x, m.mean)).all()]
    few = len(of.measured) <= MOST_NAMED
    for x, m in sorted(known, key=lambda pair: -numbers[pair[1].name]):  # the best lies on top
        values = list(m.repeats.values())
        if len(values) > 1:
            panel.plot([x, x], [min(values), max(values)], color=color, linewidth=1.4, alpha=0.6, zorder=2)
        panel.plot(
            [x],
            [m.mean],
            "D" if one.is_static else "o",
            color=color,
            markersize=(9 if one.is_static else 11) if few else 5,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=3 + 1 / numbers[m.name],
        )
        if few:
            panel.text(
                x,
                m.mean,
                str(numbers[m.name]),
                color="white",
                fontsize=6.5,
                ha="center",
                va="center_baseline",
                zorder=3 + 1 / numbers[m.name],
                clip_on=True,
            )
    panel.set_title(f"{_plain(one.score)}   tau {_figure(one.tau)}", fontsize=9.5, color=color)
    panel.set_xlabel("static baseline" if one.is_static else "score", fontsize=8.5, color=_INK)
    if one.is_static and min(x for x, _ in known) > 0 and max(x for x, _ in known) > MANY:
        _by_logarithm(panel)
    _plain_axes(panel)
    panel.margins(x=0.12, y=0.12)


def _by_logarithm(panel: Any) -> None:
    """Parameters, in millions."""
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g}M")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("parameters (static baseline)", fontsize=8.5, color=_INK)


def _key(panel: Any, order: Sequence[Measured]) -> None:
    """Which number is which candidate, the best measured first."""
    shown = order[:MOST_NAMED]
    lines = [f"{i:>2}  {short(one.label, longest=48)}  {one.mean:.4g}" for i, one in enumerate(shown, start=1)]
    if len(order) > len(shown):
        lines = [*lines[:3], f"and {len(order) - 3} more"]
    lines = ["measured, best first", *lines]
    panel.text(
        0.02, 0.98, "\n".join(lines), transform=panel.transAxes, va="top", fontsize=8, color=_INK, linespacing=1.5
    )


def _by_dataset(against: Against) -> Any:
    """A panel per score: its tau on each data set with its interval, beside that of the static baseline."""
    from matplotlib.figure import Figure as Canvas

    names = list(
        dict.fromkeys(one.score for of in against.datasets for one in of.agreements if one.score != STATIC)
    )
    places = [len(against.datasets) - i for i in range(len(against.datasets))]
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Canvas(
        figsize=(3.0 * columns + 1.2, rows * (0.36 * (len(places) + 1) + 1.0) + 0.6), layout="constrained"
    )
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for i, panel in enumerate(panels.flat):
        if i >= len(names):
            panel.set_visible(False)
            continue
        for place, of in zip(places, against.datasets, strict=True):
            by_name = {one.score: one for one in of.agreements}
            _tau(panel, place + 0.13, by_name.get(names[i]), _SCORE, "o")
            _tau(panel, place - 0.17, by_name.get(STATIC), _STATIC, "D")
        means = {one.score: one for one in against.means}
        _dot(panel, 0.13, means[names[i]].tau, _SCORE, "o")
        _dot(panel, -0.17, means[STATIC].tau, _STATIC, "D")
        panel.axhline(0.5, color=_ZERO, linewidth=0.8)
        panel.axvline(0, color=_ZERO, linewidth=0.8, zorder=0)
        panel.set_title(_plain(names[i]), fontsize=10, color=_SCORE)
        panel.set_xlim(-1.05, 1.05)
        panel.set_ylim(-0.6, len(places) + 0.6)
        if i >= len(names) - columns:
            panel.set_xlabel("weighted tau", fontsize=9, color=_INK)
            panel.tick_params(axis="x", labelbottom=True)
        _plain_axes(panel)
    panels[0][0].set_yticks([*places, 0], [*(_plain(of.dataset) for of in against.datasets), "mean"])
    figure.suptitle(
        f"Agreement with {_plain(against.metric)}: score (circle) and static baseline (orange diamond), "
        "95 % intervals",
        fontsize=10,
        color=_INK,
    )
    return figure


def _tau(panel: Any, place: float, one: Agreement | None, color: str, marker: str) -> None:
    if one is not None:
        _dot(panel, place, one.tau, color, marker)


def _dot(panel: Any, place: float, figure: Figure, color: str, marker: str) -> None:
    if figure.value is None:
        return
    if figure.low is not None and figure.high is not None:
        panel.plot([figure.low, figure.high], [place, place], color=color, linewidth=1.4, alpha=0.55)
    panel.plot([figure.value], [place], marker, color=color, markersize=5)


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.2f}"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formulas."""
    return text.replace("$", r"\$")


def _plain_axes(panel: Any) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.grid(color=_GRID, linewidth=0.7)
    panel.set_axisbelow(True)
