"""Pictures of what a run says: sheets of images with words, and how well calibrated it is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.inspection.mistakes import Calibration
from headstart.records.pictures import check_picture, write_picture

_INK, _BAR, _GAP = "#1f2933", "#2a6f97", "#c2410c"
COLUMNS = 6
MOST = 60
MOST_PIXELS = 4_000_000


@dataclass(frozen=True)
class Tile:
    """An image of a sheet, PNG or JPEG, with lines of words below it and perhaps a map over it."""

    image: bytes
    lines: tuple[str, ...]
    heat: npt.NDArray[np.float64] | None = None
    """(height, width), from 0 to 1, laid over the image."""


def draw_sheet(tiles: Sequence[Tile], path: Path, *, title: str) -> None:
    """Write the first 60 tiles as one picture; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    shown = tiles[:MOST]
    columns = min(COLUMNS, max(1, len(shown)))
    rows = -(-max(1, len(shown)) // columns)
    figure = Figure(figsize=(1.75 * columns, 0.5 + 2.15 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.ravel()):
        axes.set_axis_off()
        if place < len(shown):
            _draw_tile(axes, shown[place])
    more = f" (the first {MOST} of {len(tiles)})" if len(tiles) > MOST else ""
    figure.suptitle(title + more, fontsize=9, color=_INK)
    write_picture(figure, path)


def _draw_tile(axes: Any, tile: Tile) -> None:
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(tile.image), formats=("PNG", "JPEG"))
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError("too large")
        picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        axes.set_title("(no picture)", fontsize=7, color=_INK)
        return
    axes.imshow(picture, interpolation="nearest" if max(picture.size) <= 40 else "antialiased")
    if tile.heat is not None:
        axes.imshow(
            tile.heat, cmap="inferno", alpha=0.55, extent=(-0.5, picture.width - 0.5, picture.height - 0.5, -0.5)
        )
    axes.set_title("\n".join(_short(line) for line in tile.lines), fontsize=7, color=_INK, parse_math=False)


def _short(line: str) -> str:
    return line if len(line) <= 26 else line[:25] + "…"


def draw_calibration(found: Calibration, path: Path, *, title: str) -> None:
    """Write how often the model is right against how sure it is; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    upper.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1, linestyle=":")
    for sure, right in zip(found.confidence, found.accuracy, strict=True):
        upper.plot([sure, sure], [sure, right], color=_GAP, linewidth=3, alpha=0.5, solid_capstyle="butt")
    upper.plot(found.confidence, found.accuracy, "o-", color=_BAR, markersize=4.5, linewidth=1.4)
    upper.set_ylabel("share that is right")
    upper.set_ylim(-0.02, 1.02)
    lower.bar(found.confidence, found.counts, width=0.05, color=_BAR)
    lower.set_ylabel("images")
    lower.set_xlabel("how sure the model is")
    lower.set_xlim(0, 1.02)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.suptitle(
        f"{title}\nexpected calibration error {found.ece:.3f}", fontsize=8, color=_INK, parse_math=False
    )
    write_picture(figure, path)
