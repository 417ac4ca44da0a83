"""A comparison as tables for people, or as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from headstart.compare.abroad_sheets import elsewhere_sheet, winners
from headstart.compare.comparison import Comparison
from headstart.compare.detail_sheets import datasets_sheet, detail_sheets
from headstart.compare.details import Details
from headstart.compare.references import RANDOM_FEATURES
from headstart.compare.sheets import Sheet, arms_sheet, without_empty
from headstart.compare.summary import MethodSummary, incomplete, summarise
from headstart.compare.verdicts import headline
from headstart.records.evaluations import evaluated_in

_NO_CONTROL = "; random features not run (weights=scratch strategy=linear_probe)"
FORMATS = ("table", "json", "csv", "md")


def render(comparison: Comparison, how: str, *, width: int | None = None, details: Details | None = None) -> str:
    """The comparison as text in one of `FORMATS`; with `details`, all that they say (in CSV, the arms alone)."""
    if how == "json":
        value = comparison.to_dict() | ({"details": details.to_dict()} if details else {})
        return json.dumps(value, indent=1)
    if how == "csv":
        text = io.StringIO()
        rows = comparison.flat_rows(every=details is not None)
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    if how == "md":
        summaries = _summaries(comparison, details)
        parts = [markdown(arms_sheet(comparison)), "\n".join(footer(comparison, summaries))]
        parts += [f"### {s.title}\n\n{markdown(s)}\n\n{s.note}" for s in _further(comparison, details, summaries)]
        return "\n\n".join(parts)
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table(comparison, details=details))
    return "\n".join(line.rstrip() for line in console.export_text().rstrip().splitlines())


def table(comparison: Comparison, *, details: Details | None = None) -> Group:
    """The comparison for a terminal."""
    summaries = _summaries(comparison, details)
    lines = footer(comparison, summaries)
    parts: list[Table | Text] = [grid(arms_sheet(comparison)), *(Text(line) for line in lines)]
    for sheet in _further(comparison, details, summaries):
        parts += [Text(), Text(sheet.title, style="bold"), grid(sheet), Text(sheet.note, style="dim")]
    return Group(*parts)


def grid(sheet: Sheet) -> Table:
    """A sheet for a terminal."""
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(sheet.header):
        found.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    for row in sheet.rows:
        found.add_row(*(Text(cell) for cell in row))
    return found


def _further(comparison: Comparison, details: Details | None, summaries: Sequence[MethodSummary]) -> list[Sheet]:
    """Tables below the first: all of them with details, else what there is over several data sets."""
    if details:
        return detail_sheets(comparison, details)
    return [without_empty(one) for one in (elsewhere_sheet(comparison), datasets_sheet(summaries)) if one.rows]


def _summaries(comparison: Comparison, details: Details | None) -> list[MethodSummary]:
    return details.summaries if details else summarise(comparison)


def footer(comparison: Comparison, summaries: Sequence[MethodSummary]) -> list[str]:
    """What stands below the table: the answer, references, what the intervals are, notes."""
    lines = [*headline(comparison, summaries), *winners(comparison), ""]
    lines += references_words(comparison)
    lines.append(interval_words(comparison))
    if selection := selection_words(comparison):
        lines.append(selection)
    if comparison.unequal:
        keys = dict.fromkeys(one.key for one in comparison.unequal)
        lines.append(
            f"Not held equal with the baseline: {', '.join(keys)} (--strict refuses; --details shows them)."
        )
    if alone := incomplete(comparison, summaries):
        lines.append(f"not over data sets, for want of some: {'; '.join(alone)}.")
    return [*lines, *comparison.notes]


def references_words(comparison: Comparison) -> list[str]:
    """What needs no transfer, for each data set and number of labels."""
    control = "" if any(RANDOM_FEATURES in one for one in comparison.references.values()) else _NO_CONTROL
    references = list(comparison.references.values())
    if not references:
        return []
    if all(one == references[0] for one in references):
        return [f"For comparison: {_values(references[0])}{control}."]
    names = {arm.setting.key: arm.setting for arm in comparison.arms_by_key.values()}
    return [
        f"For comparison, {names[key].dataset} with {names[key].labels} labels: {_values(found)}."
        for key, found in comparison.references.items()
    ]


def _values(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


def selection_words(comparison: Comparison) -> str:
    """Which weights were tested, and what chose them; empty for rows of a table, and for validation metrics."""
    found = {
        f"the best epoch by {run.record.best['monitor']}"
        if run.config["trainer"].get("checkpoint") == "best" and run.record.best.get("monitor")
        else "the last step"
        for arm in comparison.arms_by_key.values()
        for run in arm.runs
        if run.record
    }
    if not found or not comparison.metric.startswith("test"):
        return ""
    if name := evaluated_in(comparison.metric):
        return f"Evaluated on {name} with the weights of {' or '.join(sorted(found))}."
    return f"Tested once per run, with the weights of {' or '.join(sorted(found))}."


def interval_words(comparison: Comparison) -> str:
    """What the intervals of the first table are."""
    better = " Lower is better." if comparison.lower_is_better else ""
    corrected = ""
    if comparison.comparisons > 1:
        corrected = f"; verdicts at 5 % after Holm's correction over {comparison.comparisons} comparisons"
    if comparison.varies == "nothing":
        return f"No intervals: one run per arm.{better}"
    return (
        f"[low, high]: 95 % interval of Student's t over {comparison.varies}; "
        f"gains are paired by seed and split{corrected}.{better}"
    )


def markdown(sheet: Sheet) -> str:
    """A sheet as a Markdown table."""
    lines = ["| " + " | ".join(sheet.header) + " |", "| --- |" + " ---: |" * (len(sheet.header) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in sheet.rows]
    return "\n".join(lines)
