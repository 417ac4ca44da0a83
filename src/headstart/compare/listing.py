"""Runs as a list: a table for people, a data frame for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from headstart.compare.comparison import DEFAULT_METRIC
from headstart.records.evaluations import further_metrics
from headstart.records.schema import RunRecord

if TYPE_CHECKING:
    import pandas as pd

Runs = Sequence[tuple[Path, RunRecord]]


def frame_of(runs: Runs) -> pd.DataFrame:
    """A row per run: its folder, and every scalar of its record under dotted names."""
    import pandas as pd

    return pd.DataFrame([{"folder": str(folder), **flat_record(record)} for folder, record in runs])


def rows_of(runs: Runs, *, metric: str | None = None) -> list[dict[str, Any]]:
    """The few columns that a person looks at, with another metric than the task's main one if it is named."""
    rows = []
    for folder, record in runs:
        shown = metric or DEFAULT_METRIC.get(str(record.data.get("task")), "")
        rows.append(
            {
                "run": folder.name,
                "status": record.status,
                "backbone": record.config["backbone"]["name"],
                "weights": record.config["weights"]["source"],
                "strategy": record.config["strategy"]["name"],
                "data": record.config["data"]["source"],
                "seed": record.seed,
                "metric": shown,
                "value": (record.metrics | further_metrics(record.evaluations)).get(shown),
                "seconds": record.seconds.get("total"),
                "sweep": record.launched_by,
            }
        )
    return rows


def table(runs: Runs, *, metric: str | None = None) -> Table:
    """The list for a terminal; a run's name says its backbone, weights, strategy, data and seed."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("run", "status", "value", "seconds")
    for name in names:
        grid.add_column(
            (metric or "test metric") if name == "value" else name,
            justify="right" if name in ("value", "seconds") else "left",
            no_wrap=True,
        )
    for row in rows_of(runs, metric=metric):
        shown = {**row, "value": _number(row["value"], 4), "seconds": _number(row["seconds"], 1)}
        grid.add_row(*(Text(str(shown[name])) for name in names))
    return grid


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def flat_record(record: RunRecord) -> dict[str, Any]:
    """Every scalar of a record under its dotted name; metrics of its evaluations beside its own."""
    further = further_metrics(record.evaluations)
    plain = {key: value for key, value in record.to_dict().items() if key != "evaluations"}
    return _flat({**plain, "metrics": record.metrics | further})


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[f"{prefix}{key}"] = value
    return flat
