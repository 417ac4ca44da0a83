"""A comparison as a table for people, or as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from headstart.compare.comparison import Comparison, Row
from headstart.compare.intervals import Estimate

FORMATS = ("table", "json", "csv", "md")


def render(comparison: Comparison, how: str, *, width: int | None = None) -> str:
    """The comparison as text in one of `FORMATS`."""
    if how == "json":
        return json.dumps(comparison.to_dict(), indent=1)
    if how == "csv":
        text = io.StringIO()
        rows = comparison.flat_rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    if how == "md":
        return _markdown(comparison)
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(_grid(comparison))
    return "\n".join([console.export_text().rstrip(), "", *footer(comparison)])


def table(comparison: Comparison) -> Group:
    """The comparison for a terminal."""
    return Group(_grid(comparison), *(Text(line) for line in footer(comparison)))


def _grid(comparison: Comparison) -> Table:
    header, cells = _cells(comparison)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(header):
        grid.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def footer(comparison: Comparison) -> list[str]:
    """What stands below the table: references, what the intervals are, notes."""
    lines = []
    if comparison.references:
        said = ", ".join(f"{name} {value:.3f}" for name, value in comparison.references.items())
        lines.append(f"For comparison: {said}.")
    better = " Lower is better." if comparison.lower_is_better else ""
    lines.append(
        f"[low, high]: 95 % interval of Student's t over {comparison.varies}; "
        f"gains are paired by seed and split.{better}"
    )
    return [*lines, *comparison.notes]


def _markdown(comparison: Comparison) -> str:
    header, cells = _cells(comparison)
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([*lines, "", *footer(comparison)])


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    header = ["arm", "n", comparison.metric, "gain over scratch", "trainable", "seconds"]
    return header, [
        [
            row.arm,
            str(row.n) + (f" (+{row.failed} failed)" if row.failed else ""),
            _value(row.value),
            _gain(row),
            _count(row.trainable),
            f"{row.seconds:.1f}" if row.seconds is not None else "-",
        ]
        for row in comparison.rows
    ]


def _value(value: Estimate | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.3f}" + (f" [{value.low:.3f}, {value.high:.3f}]" if value.low is not None else "")


def _gain(row: Row) -> str:
    if row.gain is None:
        return "baseline" if row.is_baseline else "-"
    gain = row.gain
    return f"{gain.mean:+.3f}" + (f" [{gain.low:+.3f}, {gain.high:+.3f}]" if gain.low is not None else "")


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    for size, unit in ((1_000_000, " M"), (1_000, " k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
