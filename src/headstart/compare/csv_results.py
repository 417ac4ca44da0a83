"""Results from somebody's table: a row each, with columns that tell arms, data sets, budgets and seeds apart."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.compare.results import Result, Setting
from headstart.config.checks import METRICS
from headstart.errors import RecordError

REPEATS = ("seed", "split_seed", "fold")
BUDGETS = ("steps", "epochs")
STATUSES = ("completed", "failed", "interrupted", "running", "pruned")
_NAMES = {name for names in METRICS.values() for name in names}


def read_csv_results(path: Path, *, metric: str | None = None) -> list[Result]:
    """Read a table of results.

    Columns: `arm`; `dataset`; `train_examples`, `steps`, `epochs` (budgets); `seed`, `split_seed`, `fold`;
    `status`; metrics (`test/accuracy_micro`, any other name with a slash, `metric` itself). All other columns tell
    arms apart as well. Raises RecordError that names file and row for what cannot be read.
    """
    rows = _rows(path)
    columns = list(rows[0])
    metrics = [name for name in columns if "/" in name or name in _NAMES or name == metric]
    if not metrics:
        raise RecordError(
            f"{path}: has no column of results; name one as in test/accuracy_micro, or say which it is by --metric."
        )
    known = {"arm", "dataset", "train_examples", *BUDGETS, *REPEATS, "status", *metrics}
    traits = [name for name in columns if name not in known]
    if "arm" not in columns and not traits:
        raise RecordError(f"{path}: has no column `arm`, and no other that tells arms apart.")
    results: list[Result] = []
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, start=2):
        result = _result(path, number, row, metrics=metrics, traits=traits)
        place = (result.arm, *result.pair)
        if place in seen:
            raise RecordError(
                f"{path}: rows {seen[place]} and {number} are the same arm, data set, budget and seed; "
                "a column `seed` tells repeats apart."
            )
        seen[place] = number
        results.append(result)
    return results


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [dict(row) for row in reader]
            columns = [name or "" for name in reader.fieldnames or ()]
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: cannot be read as CSV ({error}).") from error
    if not rows:
        raise RecordError(f"{path}: has no rows.")
    if len(set(columns)) < len(columns) or "" in columns:
        raise RecordError(f"{path}: its first row must name every column, each once.")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise RecordError(f"{path}: row {number} has not {len(columns)} cells as the first row has.")
    return rows


def _result(
    path: Path, number: int, row: Mapping[str, str], *, metrics: Sequence[str], traits: Sequence[str]
) -> Result:
    def whole(name: str) -> int | None:
        text = row.get(name, "").strip()
        if not text:
            return None
        try:
            return int(text)
        except ValueError as error:
            raise RecordError(f"{path}: row {number}: {name} is {text!r}, not a whole number.") from error

    status = row.get("status", "").strip() or "completed"
    if status not in STATUSES:
        raise RecordError(f"{path}: row {number}: status is {status!r}, not one of {', '.join(STATUSES)}.")
    own = {name: row[name].strip() for name in traits}
    words = [row["arm"].strip()] if "arm" in row else []
    words += [f"{name}={value}" for name, value in own.items() if value]
    setting = _setting(row, whole)
    name = " ".join(words) or "(unnamed)"
    return Result(
        id=f"{path.name}:{number}",
        arm=json.dumps([name, setting.key]),
        status=status,
        seed=whole("seed") or 0,
        split_seed=whole("split_seed") or 0,
        fold=whole("fold"),
        setting=setting,
        metrics={metric: _number(path, number, metric, row[metric]) for metric in metrics},
        config={"row": own | ({"arm": row["arm"].strip()} if "arm" in row else {})},
        name=name,
    )


def _setting(row: Mapping[str, str], whole: Any) -> Setting:
    dataset = row.get("dataset", "").strip()
    size = row.get("train_examples", "").strip()
    count = int(size) if size.isdecimal() else None
    budget: list[tuple[str, Any]] = [("train_examples", size)] if size and count is None else []  # such as "full"
    budget += [(name, value) for name in BUDGETS if (value := whole(name)) is not None]
    labels = " ".join([size or "all", *(f"{name}={value}" for name, value in budget if name in BUDGETS)])
    base = json.dumps([dataset, [one for one in budget if one[0] in BUDGETS]])
    return Setting(json.dumps([dataset, size, budget]), base, dataset or "data", count, labels, tuple(budget))


def _number(path: Path, number: int, name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise RecordError(f"{path}: row {number}: {name} is {text.strip()!r}, not a number.") from error
    return value if math.isfinite(value) else None
