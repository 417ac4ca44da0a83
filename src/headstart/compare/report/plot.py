"""Plots as inline SVG: scales, axes, and marks whose values are said under the pointer.

Drawn here rather than by a library: plotly's script alone has 4.8 MB, and text, colours and shapes follow the page,
dark or light, with no meaning by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH = 480
SERIES = 8
"""Colours and shapes that can be told apart; further series begin again."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "4 2", "1 2", "10 4", "6 2 1 2")


@dataclass(frozen=True)
class Scale:
    """Data -> pixels, linear or by logarithm."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels of a value."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, 1e-300))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the scale."""
        if self.log:
            return self._decades(count)
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        step = 10 ** math.floor(math.log10(span / count))
        for times in (1, 2, 2.5, 5, 10):
            if span / (step * times) <= count:
                step *= times
                break
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _decades(self, count: int) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for leads in ((1,), (1, 3), (1, 2, 5)):
            found = [
                lead * 10.0**power
                for power in range(low, high + 1)
                for lead in leads
                if self.low * 0.999 <= lead * 10.0**power <= self.high * 1.001
            ]
            if len(found) >= 3:
                break
        if len(found) < 2:  # less than a decade, and no round number of one in it
            return Scale(self.low, self.high, self.begin, self.end).ticks(count)
        return found[:: max(1, math.ceil(len(found) / (count + 2)))]


def scale_over(
    values: Sequence[float], *, begin: float, end: float, log: bool = False, margin: float = 0.06
) -> Scale:
    """A scale that holds all values, with some room at both ends."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if log:
        factor = (high / low) ** margin if high > low else 2.0
        return Scale(low / factor, high * factor, begin, end, log=True)
    room = (high - low) * margin or abs(high) * 0.1 or 0.1
    return Scale(low - room, high + room, begin, end)


@dataclass
class Plot:
    """An SVG that grows mark by mark; `x` and `y` map data to pixels."""

    x: Scale
    y: Scale
    height: int
    label: str
    """What it shows, for those who hear it."""
    parts: list[str] = field(default_factory=list)

    def axes(self, x_name: str, y_name: str, *, y_ticks: bool = True) -> None:
        """Grid lines with their values, and the names of both axes."""
        for value in self.x.ticks():
            at = self.x(value)
            self.parts.append(
                f'<path class="grid" d="M{at} {self.y.end}V{self.y.begin}"/>'
                f'<text class="tick" x="{at}" y="{self.y.begin + 16}" text-anchor="middle">{number(value)}</text>'
            )
        for value in self.y.ticks() if y_ticks else ():
            at = self.y(value)
            self.parts.append(
                f'<path class="grid" d="M{self.x.begin} {at}H{self.x.end}"/>'
                f'<text class="tick" x="{self.x.begin - 6}" y="{at + 4}" text-anchor="end">{number(value)}</text>'
            )
        middle = (self.x.begin + self.x.end) / 2
        self.parts.append(
            f'<text class="name" x="{middle}" y="{self.y.begin + 34}" text-anchor="middle">{escape(x_name)}</text>'
        )
        if y_name:
            self.parts.append(f'<text class="name" x="4" y="{self.y.end - 8}">{escape(y_name)}</text>')

    def text(self, x: float, y: float, said: str, *, kind: str = "said", anchor: str = "start") -> None:
        """Words at pixels."""
        self.parts.append(f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>')

    def upright(self, value: float, *, kind: str) -> None:
        """A line at a value of x, over the whole height."""
        self.parts.append(f'<path class="{kind}" d="M{self.x(value)} {self.y.end}V{self.y.begin}"/>')

    def level(self, value: float, *, kind: str) -> None:
        """A line at a value of y, over the whole width."""
        self.parts.append(f'<path class="{kind}" d="M{self.x.begin} {self.y(value)}H{self.x.end}"/>')

    def line(self, points: Sequence[tuple[float, float]], *, series: int, kind: str = "line") -> None:
        """A line through points in data."""
        path = "L".join(f"{self.x(x)} {self.y(y)}" for x, y in points)
        dash = _DASHES[series % SERIES]
        style = f' stroke-dasharray="{dash}"' if dash and kind == "line" else ""
        self.parts.append(f'<path class="{kind} s{series % SERIES}" d="M{path}"{style}/>')

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], *, series: int) -> None:
        """The area between two lines."""
        there = [f"{self.x(x)} {self.y(y)}" for x, y in zip(xs, high, strict=True)]
        back = [f"{self.x(x)} {self.y(y)}" for x, y in zip(reversed(xs), reversed(low), strict=True)]
        self.parts.append(f'<path class="band s{series % SERIES}" d="M{"L".join([*there, *back])}Z"/>')

    def bar(self, begin: tuple[float, float], end: tuple[float, float], *, series: int) -> None:
        """A straight interval between two points in data."""
        path = f"M{self.x(begin[0])} {self.y(begin[1])}L{self.x(end[0])} {self.y(end[1])}"
        self.parts.append(f'<path class="bar s{series % SERIES}" d="{path}"/>')

    def mark(self, x: float, y: float, *, series: int, tip: str, small: bool = False) -> None:
        """A point in data, in the shape of its series; `tip` is shown under the pointer, and heard."""
        self.parts.append(marker(self.x(x), self.y(y), series, tip=tip, size=3.0 if small else 5.0))

    def svg(self) -> Markup:
        """The whole picture."""
        return Markup(
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(self.label)}">'
            + "".join(self.parts)
            + "</svg>"
        )


def marker(x: float, y: float, series: int, *, tip: str = "", size: float = 5.0) -> str:
    """The shape of a series around a place in pixels."""
    s = size
    shapes = (
        f"M{x - s} {y}a{s} {s} 0 1 0 {2 * s} 0a{s} {s} 0 1 0 {-2 * s} 0Z",
        f"M{x - s} {y - s}h{2 * s}v{2 * s}h{-2 * s}Z",
        f"M{x} {y - s * 1.2}L{x + s * 1.1} {y + s * 0.9}H{x - s * 1.1}Z",
        f"M{x} {y - s * 1.3}L{x + s * 1.3} {y}L{x} {y + s * 1.3}L{x - s * 1.3} {y}Z",
        f"M{x} {y + s * 1.2}L{x + s * 1.1} {y - s * 0.9}H{x - s * 1.1}Z",
        f"M{x - s} {y - s / 3}h{s * 2 / 3}v{-s * 2 / 3}h{s * 2 / 3}v{s * 2 / 3}h{s * 2 / 3}v{s * 2 / 3}"
        f"h{-s * 2 / 3}v{s * 2 / 3}h{-s * 2 / 3}v{-s * 2 / 3}h{-s * 2 / 3}Z",
        f"M{x - s} {y + s}L{x - s} {y - s}L{x + s} {y}Z",
        f"M{x + s} {y + s}L{x + s} {y - s}L{x - s} {y}Z",
    )
    said = f' data-tip="{escape(tip)}" tabindex="0"' if tip else ""
    return f'<path class="mark s{series % SERIES}" d="{_rounded(shapes[series % SERIES])}"{said}/>'


def _rounded(path: str) -> str:
    """Coordinates to a tenth of a pixel: a report holds thousands."""
    out, digits = [], ""
    for sign in path + " ":
        if sign.isdigit() or sign in ".-e":
            digits += sign
            continue
        if digits:
            out.append(f"{float(digits):.1f}".removesuffix(".0"))
            digits = ""
        out.append(sign)
    return "".join(out).rstrip()


def legend_marker(series: int) -> Markup:
    """The shape of a series with a piece of its line, for a legend."""
    dash = _DASHES[series % SERIES]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return Markup(
        f'<svg class="key" viewBox="0 0 28 14" aria-hidden="true"><path class="line s{series % SERIES}" d="M0 7H28"'
        f"{style}/>{marker(14, 7, series, size=4.5)}</svg>"
    )


def number(value: float) -> str:
    """A value on an axis."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:g}" if abs(value) < 1000 else f"{value:,.0f}"
