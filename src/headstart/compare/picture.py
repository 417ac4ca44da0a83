"""The comparison as a picture: every run a dot, every interval a bar, and the gains beside them."""

from __future__ import annotations

from pathlib import Path

from headstart.compare.comparison import Comparison
from headstart.compare.statistics.intervals import Estimate
from headstart.records.pictures import check_picture, write_picture

MOST_ROWS = 200
_INK, _BAR, _ZERO = "#1f2933", "#2a6f97", "#9aa5b1"


def draw(comparison: Comparison, path: Path) -> None:
    """Write a picture of each arm's metric and gain; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    rows = [row for row in comparison.rows if row.value is not None]
    count, rows = len(rows), rows[:MOST_ROWS]
    figure = Figure(figsize=(9.5, 1.5 + 0.55 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.1, 1))
    places = list(range(len(rows)))[::-1]
    for place, row in zip(places, rows, strict=True):
        _interval(left, place, row.value, signed=False)
        _interval(right, place, row.gain, signed=True)
        if row.gain is None:
            right.annotate(
                "baseline" if row.is_baseline else "no baseline",
                (0, place),
                color=_INK,
                ha="center",
                va="center",
                bbox={"fc": "white", "ec": "none"},
                fontsize=9,
            )
    left.set_yticks(places, [row.arm.replace("$", r"\$") for row in rows])
    left.set_ylim(-0.7, len(rows) - 0.3)
    for name, value in _one_setting(comparison).items():
        if name == "chance":
            left.axvline(value, color=_ZERO, linestyle=":", linewidth=1)
            left.annotate(
                name,
                (value, len(rows) - 0.35),
                color=_INK,
                fontsize=8,
                ha="left",
                va="top",
                xytext=(3, 0),
                textcoords="offset points",
            )
    right.axvline(0, color=_ZERO, linewidth=1, zorder=0)
    left.set_xlabel(comparison.metric)
    against = "scratch" if comparison.baseline == "training from scratch" else "the baseline"
    right.set_xlabel(f"paired gain over {against}{' (lower is better)' if comparison.lower_is_better else ''}")
    for axes in (left, right):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.16)
    title = f"95 % intervals of Student's t over {comparison.varies}"
    if count > len(rows):
        title += f"; the first {len(rows)} of {count} arms"
    figure.suptitle(title if comparison.varies != "nothing" else "one run per arm", fontsize=9, color=_INK)
    write_picture(figure, path)


def _one_setting(comparison: Comparison) -> dict[str, float]:
    """What needs no transfer, where all arms are on one data set."""
    return (
        next(iter(comparison.references.values()))
        if len(comparison.settings) == len(comparison.references) == 1
        else {}
    )


def _interval(axes: object, place: int, value: Estimate | None, *, signed: bool) -> None:
    if value is None:
        return
    if value.low is not None and value.high is not None:
        axes.plot([value.low, value.high], [place, place], color=_BAR, linewidth=2.5)  # type: ignore[attr-defined]
    axes.plot([value.mean], [place], "o", color=_BAR, markersize=7)  # type: ignore[attr-defined]
    text = f"{value.mean:+.3f}" if signed else f"{value.mean:.3f}"
    axes.annotate(  # type: ignore[attr-defined]
        text,
        (value.mean, place),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=_INK,
    )
