"""The page: what is shown of a comparison, in which order, and how much of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from headstart.compare.abroad_sheets import winners
from headstart.compare.comparison import Comparison
from headstart.compare.detail_sheets import detail_sheets
from headstart.compare.details import Details
from headstart.compare.differences import Differences, differences
from headstart.compare.formats import interval_words, references_words, selection_words
from headstart.compare.report.examples import ClassExamples, class_examples
from headstart.compare.report.figures import (
    MOST_CLASSES,
    Figure,
    confusion_figure,
    cost_figure,
    curves_figure,
    gains_figure,
    labels_figure,
)
from headstart.compare.report.plot import SERIES, legend_marker
from headstart.compare.rows import Row
from headstart.compare.sheets import arms_sheet
from headstart.compare.verdicts import headline
from headstart.errors import ConfigError
from headstart.records.atomic import write_text
from headstart.records.confusion import counts_of
from headstart.records.evaluations import evaluated_in

MOST_GAINS = 24
MOST_SETTINGS = 6
MOST_MATRICES = 3
MOST_PICTURED = 3


@dataclass(frozen=True)
class RunLine:
    """A run in the list of all runs."""

    id: str
    arm: str
    status: str
    seed: int
    split_seed: int
    value: str
    seconds: str
    error: str


def check_report(path: Path) -> None:
    """Raise ConfigError for another kind of file, or a folder that is not there."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--report {path}: must end in .html.")
    if not path.parent.is_dir():
        raise ConfigError(f"--report {path}: there is no folder {path.parent}.")


def write_report(comparison: Comparison, details: Details, path: Path) -> None:
    """Write the page, whole or not at all; the same runs give the same bytes. Raises ConfigError as above."""
    check_report(path)
    write_text(path, render_page(comparison, details))


def render_page(comparison: Comparison, details: Details) -> str:
    """The page as HTML; whatever stands in class names, paths or configs is text in it and nothing else."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_own("page.html"))
    script = _own("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    runs = list(_run_lines(comparison))
    page: str = template.render(
        style=Markup(_own("page.css")),
        script=Markup(script),
        script_digest=digest,
        comparison=comparison,
        headline=[*headline(comparison, details.summaries), *winners(comparison)],
        references=references_words(comparison),
        intervals=interval_words(comparison),
        arms=arms_sheet(comparison),
        sheets=detail_sheets(comparison, details),
        figures=list(_figures(comparison, details)),
        matrices=list(_matrices(comparison)),
        pictured=_pictured(comparison, details),
        differences=[found for row in comparison.rows if (found := _differences(comparison, row))],
        runs=runs,
        failures=[run for run in runs if run.status not in ("completed", "running")],
        selection=selection_words(comparison),
        key=legend_marker,
    )
    return page


def _own(name: str) -> str:
    return resources.files("headstart.compare.report").joinpath(name).read_text(encoding="utf-8")


def _settings(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """(words, rows) of each data set and number of labels, the first few."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.value is not None:
            found.setdefault(comparison.arms_by_key[row.key].setting.key, []).append(row)
    named = []
    for rows in list(found.values())[:MOST_SETTINGS]:
        setting = comparison.arms_by_key[rows[0].key].setting
        labels = "" if setting.labels == "all" else f", {setting.labels} labels"
        named.append((f"{setting.dataset}{labels}", rows))
    return named


def _shown(comparison: Comparison, rows: Sequence[Row], most: int = SERIES) -> list[Row]:
    """The baselines, and the best of the others, in the table's order."""
    sign = 1 if comparison.lower_is_better else -1
    ranked = sorted(rows, key=lambda row: (not row.is_baseline, sign * (row.value.mean if row.value else 0)))
    kept = {row.key for row in ranked[:most]}
    return [row for row in rows if row.key in kept]


def _figures(comparison: Comparison, details: Details) -> Iterator[Figure]:
    ranked = [row for row in comparison.rows if row.gain is not None]
    gains = gains_figure(comparison, ranked[:MOST_GAINS])
    if gains:
        yield gains
    settings = _settings(comparison)
    several = len(settings) > 1
    for words, rows in settings:
        shown = _shown(comparison, rows)
        on = f" on {words}" if several else ""
        figure = curves_figure(comparison, shown, details.curves, title=f"Learning curves{on}")
        if figure:
            yield figure
    by_dataset: dict[str, list[Any]] = {}
    for line in details.labels:
        by_dataset.setdefault(line.dataset, []).append(line)
    for dataset, lines in list(by_dataset.items())[:MOST_SETTINGS]:
        yield labels_figure(lines[:SERIES], metric=comparison.metric, title=f"By number of labels on {dataset}")
    for words, rows in settings:
        on = f" on {words}" if several else ""
        figure = cost_figure(comparison, _shown(comparison, rows), title=f"Result against cost{on}")
        if figure:
            yield figure


def _matrices(comparison: Comparison) -> Iterator[Figure]:
    if comparison.task == "multilabel" or evaluated_in(comparison.metric):  # they are of the own test
        return
    for words, rows in _settings(comparison)[:2]:
        for row in _shown(comparison, rows, MOST_MATRICES):
            records = [run.record for run in comparison.arms_by_key[row.key].runs if run.record]
            tables = [table for record in records if (table := counts_of(record.confusion)) is not None]
            names = [str(name) for name in records[0].data.get("class_names") or []] if records else []
            if not tables or not 2 <= len(names) <= MOST_CLASSES or len({table.shape for table in tables}) > 1:
                continue
            counts = np.sum(tables, axis=0)
            if counts.shape == (len(names), len(names)):
                yield confusion_figure(f"{row.arm} on {words}", counts, names)


def _pictured(comparison: Comparison, details: Details) -> list[tuple[str, list[ClassExamples]]]:
    ranked = sorted(
        (row for row in comparison.rows if row.arm in details.classes),
        key=lambda row: -abs(row.gain.mean if row.gain else 0),
    )
    found = []
    for row in ranked[:MOST_PICTURED]:
        examples = class_examples(comparison, row, details.classes[row.arm])
        if any(one.only_arm or one.only_baseline for one in examples):
            found.append((row.arm, examples))
    return found


def _differences(comparison: Comparison, row: Row) -> Differences | None:
    if row.baseline_key is None:
        return None
    arms = comparison.arms_by_key
    return differences(arms[row.key], arms[row.baseline_key])


def _run_lines(comparison: Comparison) -> Iterator[RunLine]:
    for arm in comparison.arms_by_key.values():
        for run in (*arm.runs, *arm.others):
            value = run.metrics.get(comparison.metric)
            seconds = run.record.seconds.get("total") if run.record else None
            error = (run.record.error or "").strip().splitlines() if run.record else []
            yield RunLine(
                id=run.id,
                arm=arm.label,
                status=run.status,
                seed=run.seed,
                split_seed=run.split_seed,
                value="-" if value is None else f"{value:.4f}",
                seconds="-" if seconds is None else f"{seconds:.1f}",
                error=error[-1][:300] if error else "",
            )
