"""Pictures of what was found: the loss over the learning rate, speed and memory over the batch size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.records.pictures import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from headstart.finding.batch import BatchTest
    from headstart.finding.rate import RangeTest

_PALE, _DARK, _MARK, _OTHER = "#9aa5b1", "#1f4e79", "#c2410c", "#4d7c0f"


def draw_rate(found: RangeTest, path: Path, *, title: str) -> None:
    """Write a picture of the losses over the rate, with what is suggested."""
    figure, axes = _empty(title)
    axes.plot(found.rates, found.losses, color=_PALE, linewidth=0.8, label="loss of each batch")
    axes.plot(found.rates, found.smoothed, color=_DARK, linewidth=2, label="smoothed")
    if found.suggestion is not None and found.steepest is not None and found.lowest is not None:
        marks = (
            (found.suggestion, _MARK, f"suggested: optimizer.lr={found.suggestion:g}"),
            (found.steepest, _OTHER, f"falls fastest: {found.steepest:.2g}"),
            (found.lowest, _PALE, f"lowest: {found.lowest:.2g}"),
        )
        for rate, colour, words in marks:
            axes.axvline(rate, color=colour, linestyle="--", linewidth=1.2, label=words)
    axes.set_xscale("log")
    low = min(found.smoothed)
    axes.set_ylim(max(0.0, low - 0.2 * abs(low)), 1.6 * max(found.smoothed[0], low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    write_picture(figure, path)


def draw_batch(found: BatchTest, path: Path, *, title: str) -> None:
    """Write a picture of images per second and memory over the batch size."""
    figure, axes = _empty(title)
    sizes = [one.size for one in found.tried]
    axes.plot(sizes, [one.rate for one in found.tried], color=_DARK, marker="o", label="images per second")
    axes.axvline(
        found.suggestion,
        color=_MARK,
        linestyle="--",
        linewidth=1.2,
        label=f"suggested: data.batch_size={found.suggestion}",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes], rotation=45 if len(sizes) > 9 else 0)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images per batch")
    axes.set_ylabel("images per second")
    beside = axes.twinx()
    words = "peak memory, measured" if found.measured else "peak memory, estimated"
    beside.plot(sizes, [one.memory / 1e9 for one in found.tried], color=_OTHER, marker=".", label=words)
    beside.set_ylim(bottom=0)
    beside.set_ylabel("GB")
    beside.spines[["top"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    write_picture(figure, path)


def _empty(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    return figure, axes
