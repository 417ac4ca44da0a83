"""Names beside markers in a picture, none over another, over a marker or out of the picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_GAPS = (2.0, 7.0, 18.0, 32.0)
"""How far from its marker a name may stand, in points; beyond the second it gets a line."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Wanted:
    """A name and its marker."""

    text: str
    x: float
    y: float
    radius: float
    """Of the marker, in points."""
    colour: str
    size: float
    """Of the letters, in points."""
    short: str = ""
    """What to write where there is no room for the text."""


def place_labels(axes: Axes, wanted: Sequence[Wanted], lines: Sequence[Box] = ()) -> int:
    """Write names in the order given, each at the nearest free place; returns how many found none.

    `lines` are upright or level ones (x0, y0, x1, y1) of the data that names keep off. The figure must have been
    laid out and have a canvas that measures texts.
    """
    figure: Any = axes.get_figure()
    point = figure.dpi / 72
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    places = [tuple(axes.transData.transform((one.x, one.y))) for one in wanted]
    taken: list[Box] = []
    for (x, y), one in zip(places, wanted, strict=True):
        r = one.radius * point
        taken.append((x - r, y - r, x + r, y + r))
    for x0, y0, x1, y1 in lines:
        (left_x, low), (right_x, high) = axes.transData.transform([(x0, y0), (x1, y1)])
        taken.append((min(left_x, right_x), min(low, high), max(left_x, right_x), max(low, high)))
    left = 0
    for one, (x, y) in zip(wanted, places, strict=True):
        for text in dict.fromkeys((one.text, one.short)) if one.short else (one.text,):
            size = _size(axes, text, one.size)
            found = _free(x, y, one.radius, size, point, taken, inside)
            if found is not None:
                break
        if found is None:
            left += 1
            continue
        box, gap, (across, up) = found
        taken.append(box)
        at = [
            ({-1: high, 0: (low + high) / 2, 1: low}[side] - centre) / point
            for side, low, high, centre in ((across, box[0], box[2], x), (up, box[1], box[3], y))
        ]
        line = {"arrowstyle": "-", "color": "#9aa5b1", "linewidth": 0.6, "shrinkA": 0, "shrinkB": one.radius}
        axes.annotate(
            text,
            (one.x, one.y),
            xytext=(at[0], at[1]),
            textcoords="offset points",
            fontsize=one.size,
            color=one.colour,
            ha={1: "left", 0: "center", -1: "right"}[across],
            va={1: "bottom", 0: "center", -1: "top"}[up],
            zorder=4,
            arrowprops=line if gap > _GAPS[1] else None,
        )
    return left


def _size(axes: Axes, text: str, letters: float) -> tuple[float, float]:
    """Width and height of a text in pixels."""
    figure: Any = axes.get_figure()
    drawn = axes.annotate(text, (0, 0), xycoords="axes fraction", fontsize=letters)
    extent = drawn.get_window_extent(figure.canvas.get_renderer())
    drawn.remove()
    return extent.width, extent.height


def _free(
    x: float, y: float, radius: float, size: tuple[float, float], point: float, taken: Sequence[Box], inside: Box
) -> tuple[Box, float, tuple[int, int]] | None:
    """The nearest place around (x, y) where a text of this size in pixels covers nothing, its gap and its side."""
    others: npt.NDArray[np.float64] = np.asarray(taken, dtype=np.float64).reshape(-1, 4)
    width, height = size
    for gap, (across, up) in itertools.product(_GAPS, _SIDES):
        far = (radius * (0.72 if across and up else 1) + gap) * point
        x0 = x + across * far + (across - 1) / 2 * width
        y0 = y + up * far + (up - 1) / 2 * height
        box = (x0, y0, x0 + width, y0 + height)
        if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
            continue
        apart = (
            (others[:, 0] >= box[2])
            | (others[:, 2] <= box[0])
            | (others[:, 1] >= box[3])
            | (others[:, 3] <= box[1])
        )
        if apart.all():
            return box, gap, (across, up)
    return None


def short(name: str, *, longest: int) -> str:
    """A name without formulas for matplotlib; a long one loses its middle, as both ends tell candidates apart."""
    half = longest // 2
    text = name if len(name) <= longest else f"{name[:half]}...{name[-(half - 2) :]}"
    return text.replace("$", r"\$")
