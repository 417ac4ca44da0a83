"""The ranking as a picture: predicted merit against cost, and what the static baseline says of the candidates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.records.pictures import check_picture, write_picture
from headstart.transferability.place_labels import Box, Wanted, place_labels, short
from headstart.transferability.ranking import STATIC, Interval, Ranked, Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.lines import Line2D

_INK, _PALE, _DOT, _FRONT, _WARN = "#1f2933", "#9aa5b1", "#2a6f97", "#1f4e79", "#c2410c"
_AREAS = (24.0, 300.0)
"""Areas of the smallest and the largest marker, in square points."""
_CROSS = 30.0
"""What is added to a cross, which has less ink."""
_LONGEST = 34
_NAMED = 20
"""With more candidates, the best, those ahead and those with a warning bear names; the others, their places."""
_BEST = 8


@dataclass(frozen=True)
class _Point:
    """A candidate in one panel."""

    one: Ranked
    place: int
    """In the ranking, 1 is best."""
    cost: float
    """Milliseconds an image."""
    merit: float
    interval: Interval | None
    area: float


def draw_ranking(ranking: Ranking, path: Path) -> None:
    """Write a picture: the score that the ranking goes by over the time of an image, and the static baseline below.

    A marker's area grows with the candidate's parameters. The line joins those that no other beats in both merit
    and cost. A candidate with a warning is a cross; one without a score is left out, and counted. Raises
    ConfigError for another kind of file than .png, .svg and .pdf.
    """
    check_picture(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [name for name in dict.fromkeys((ranking.by, STATIC)) if name == ranking.by or name in ranking.scores]
    many = len(ranking.candidates) > _NAMED
    heights = (1.9, 1.0)[: len(shown)]
    figure = Figure(figsize=(10.5 if many else 8.5, (2.7 if many else 2.1) * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)  # measures texts before they are placed
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    drawn = [_panel(axes, ranking, name) for axes, name in zip(panels, shown, strict=True)]
    panels[-1].set_xlabel("time of an image, forward pass (ms; left is cheaper)")
    panels[0].set_title(_title(ranking), fontsize=10, color=_INK)
    marks = _marks(ranking.candidates)
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=8)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed in what is now the picture
    for axes, (labels, lines) in zip(panels, drawn, strict=True):
        left = place_labels(axes, labels, lines)
        if left:
            axes.annotate(
                f"{left} of {len(labels)} names have no room", (1, 0), xycoords="axes fraction", xytext=(-3, 3),
                textcoords="offset points", ha="right", va="bottom", fontsize=7, color=_PALE,
            )  # fmt: skip
    write_picture(figure, path)


def _panel(axes: Axes, ranking: Ranking, score: str) -> tuple[list[Wanted], list[Box]]:
    """Draw one score; returns the names to be placed, the most wanted first, and the lines that they keep off."""
    points = _points(ranking.candidates, score)
    front = pareto_front([(point.cost, point.merit) for point in points])
    static = score == STATIC
    colour = _PALE if static else _DOT
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis, "{:g}".format)
    if static and "parameters" in ranking.static and all(point.merit > 0 for point in points):
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis, _count)
    lines: list[Box] = []
    ordered = [points[i] for i in front]
    for before, after in itertools.pairwise(ordered):
        lines.append((before.cost, before.merit, after.cost, before.merit))
        lines.append((after.cost, before.merit, after.cost, after.merit))
    if lines:
        axes.plot(
            [p.cost for p in ordered], [p.merit for p in ordered],
            color=_PALE if static else _FRONT, linewidth=1.2, drawstyle="steps-post", zorder=1,
        )  # fmt: skip
    for point in points:
        if point.interval is not None:
            low, high = point.interval
            axes.plot([point.cost] * 2, [low, high], color=colour, linewidth=1, alpha=0.5, zorder=2)
            lines.append((point.cost, low, point.cost, high))
        warned = point.one.warning is not None
        axes.scatter(
            [point.cost], [point.merit], s=point.area, marker="X" if warned else "o",
            color=_WARN if warned else colour, edgecolors="white", linewidths=0.7, zorder=3, alpha=0.9,
        )  # fmt: skip
    axes.set_ylabel("static baseline" if static else f"{score}\n(higher is better)", color=_INK)
    if static:
        axes.annotate(
            f"without looking at the data: {ranking.static}", (0, 1), xycoords="axes fraction", xytext=(2, 3),
            textcoords="offset points", ha="left", va="bottom", fontsize=8, color=_INK,
        )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.12, y=0.12)
    costs = [point.cost for point in points]
    if costs and max(costs) < 2 * min(costs):
        middle = math.sqrt(min(costs) * max(costs))
        axes.set_xlim(middle / 3, middle * 3)
    if not points:
        axes.annotate(
            "no candidate has this score",
            (0.5, 0.5),
            xycoords="axes fraction",
            ha="center",
            va="center",
            color=_INK,
        )
        axes.set_yticks([])
    ahead = set(front)
    by_want = sorted(range(len(points)), key=lambda i: (i not in ahead, points[i].one.warning is None, i))
    if len(ranking.candidates) <= _NAMED:
        named = set(by_want)
    elif static:  # the panel above names them
        named = set()
    else:
        named = ahead | {i for i, p in enumerate(points) if p.one.warning or p.place <= _BEST}
    by_want.sort(key=lambda i: i not in named)
    numbered = len(ranking.candidates) > _NAMED
    return [_wanted(points[i], named=i in named, numbered=numbered) for i in by_want], lines


def _wanted(point: _Point, *, named: bool, numbered: bool) -> Wanted:
    name = short(point.one.label, longest=_LONGEST)
    name = f"{point.place} {name}" if numbered else name
    return Wanted(
        text=name if named else str(point.place),
        x=point.cost,
        y=point.merit,
        radius=math.sqrt(point.area) / 2,
        colour=_WARN if point.one.warning else _INK,
        size=7.5 if named else 6.5,
        short=str(point.place),
    )


def _points(candidates: Sequence[Ranked], score: str) -> list[_Point]:
    """Candidates with a finite score and a cost, in the ranking's order."""
    largest = max((one.parameters for one in candidates), default=0)
    found = []
    for place, one in enumerate(candidates, start=1):
        merit = one.scores.get(score)
        if merit is None or not math.isfinite(merit) or not 0 < one.images_per_second < math.inf:
            continue
        interval = one.intervals.get(score)
        if interval is not None and not all(map(math.isfinite, interval)):
            interval = None
        share = one.parameters / largest if largest else 0.0
        area = _AREAS[0] + (_AREAS[1] - _AREAS[0]) * share + (_CROSS if one.warning else 0)
        found.append(_Point(one, place, 1000 / one.images_per_second, merit, interval, area))
    return found


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of (cost, merit) are not beaten: none costs no more and is worth as much or more. Cheapest first."""
    best = -math.inf
    front = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return front


def _marks(candidates: Sequence[Ranked]) -> list[Line2D]:
    """What the legend explains."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=_FRONT, linewidth=1.2, label="none is both cheaper and better")]
    if any(one.warning for one in candidates):
        words = "transfer likely to buy nothing or to hurt"
        marks.append(
            Line2D(
                [], [], color=_WARN, marker="X", linestyle="", markersize=8, markeredgecolor="white", label=words
            )
        )
    sizes = sorted({one.parameters for one in candidates if one.parameters > 0})
    for count in dict.fromkeys((sizes[0], sizes[-1])) if sizes else ():
        width = math.sqrt(_AREAS[0] + (_AREAS[1] - _AREAS[0]) * count / sizes[-1])
        words = f"{_count(count)} parameters"
        marks.append(
            Line2D(
                [], [], color=_DOT, marker="o", linestyle="", markersize=width, markeredgecolor="white", label=words
            )
        )
    if len(candidates) > _NAMED:
        marks.append(Line2D([], [], linestyle="", label="numbers: places in the ranking"))
    return marks


def _title(ranking: Ranking) -> str:
    points = _points(ranking.candidates, ranking.by)
    missing = len(ranking.candidates) - len(points)
    words = f"{ranking.by} on {ranking.images:,} image{'' if ranking.images == 1 else 's'} of {ranking.dataset}"
    if any(point.interval for point in points):
        words += ", 95 % intervals over images"
    if missing:
        words += f"; {missing} without a score not shown"
    return words.replace("$", r"\$")


def _plain_ticks(axis: Axis, words: Callable[[float], str]) -> None:
    """2, 5, 10, 20 in the place of powers of ten, as `words` writes them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_formatter(NullFormatter())


def _count(parameters: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return f"{parameters:g}"
