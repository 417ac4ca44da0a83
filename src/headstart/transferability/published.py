"""Tables of scores beside what training measured, as benchmarks publish them: a row per model and data set."""

from __future__ import annotations

import csv
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import RecordError, did_you_mean
from headstart.printable import one_line
from headstart.transferability.agreement import Measured
from headstart.transferability.columns import is_lower_better, is_measured, of_tests, scores_among
from headstart.transferability.ranking import STATIC

MODEL = ("model", "backbone", "backbone.name", "arm")
"""Columns that may name the model: the first that there is."""
DATASET = "dataset"
NAMELESS = "data"
"""The data set of a table without that column."""
REPEATS = ("seed", "split_seed", "fold")
PARAMETERS = ("parameters", "params")
_NO_SCORES = {*MODEL, DATASET, *REPEATS, "status", *PARAMETERS}
MISSING = ("", "-", "na", "n/a", "nan", "none")
NEVER_POSITIVE = ("leep", "nce")
"""Scores that are means of logarithms of probabilities (Nguyen et al. 2020; Tran et al. 2019): never above zero."""


@dataclass(frozen=True)
class Table:
    """One data set of a file: models, what training measured, and their scores."""

    dataset: str
    measured: tuple[Measured, ...]
    """A model each."""
    scores: Mapping[str, tuple[float | None, ...]]
    """Column -> a value per model."""
    parameters: tuple[float | None, ...] | None
    """Of a column `parameters`."""
    notes: tuple[str, ...] = ()
    is_named: bool = True
    """Whether its rows say which data set they are on."""


@dataclass(frozen=True)
class Tables:
    """A file of results: one table per data set."""

    path: Path
    metric: str
    tables: tuple[Table, ...]

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the metric is better."""
        return is_lower_better(self.metric)


def mistake(text: str) -> RecordError:
    """What is wrong with a table, in one line whatever its names hold."""
    return RecordError(one_line(text))


def plain_name(dataset: str) -> str:
    """The name of a data set by which it is told from others: CIFAR-10 is cifar10."""
    return "".join(letter for letter in dataset.casefold() if letter.isalnum()) or dataset.casefold()


def name_twice(datasets: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that are one data set's, where there are any."""
    seen: dict[str, str] = {}
    for name in datasets:
        if plain_name(name) in seen:
            return seen[plain_name(name)], name
        seen[plain_name(name)] = name
    return None


def read_tables(path: Path, *, metric: str | None = None, with_scores: bool = True) -> Tables:
    """Read a long table: columns `dataset`, `model`, the measured one, and a column of numbers per score.

    `metric` names the measured column; without it that is the first of numbers that is or ends with the name of a
    metric (`test/log_loss`, `finetuned_accuracy`): of another name nobody knows which way is better. Columns
    `seed`, `split_seed` and `fold` tell repeats apart; columns of words, other metrics and budgets are no scores
    (`scores_among`). `parameters` is the static baseline of a single set. Raises RecordError in one line for what
    cannot be read; with `with_scores`, for a file without them.
    """
    rows = _rows(path)
    columns = list(rows[0][1])
    model = next((name for name in MODEL if name in columns), None)
    if model is None:
        raise mistake(f"{path}: has no column `model`; there are {', '.join(columns)}.")
    numeric = [name for name in columns if _is_numeric(rows, name)]
    measured = _measured_column(path, columns, numeric, metric)
    names = [name for name in scores_among(numeric, measured) if name not in _NO_SCORES]
    if with_scores and not names:
        raise mistake(f"{path}: has no column of scores beside {measured}; there are {', '.join(columns)}.")
    size = next((name for name in PARAMETERS if name in numeric), None)
    by_set: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, row in rows:
        if row.get("status", "completed").strip() not in ("", "completed"):
            continue
        by_set.setdefault(row.get(DATASET, "").strip(), []).append((number, row))
    if twice := name_twice([dataset or NAMELESS for dataset in by_set]):
        raise mistake(
            f"{path}: data sets {twice[0]} and {twice[1]} are the same by name; write it one way in all rows."
        )
    tables = [
        _table(path, dataset, of, model=model, measured=measured, names=names, size=size)
        for dataset, of in by_set.items()
    ]
    tables = [table for table in tables if table.measured]
    if not tables:
        raise mistake(f"{path}: no row has a value of {measured}.")
    if with_scores and not any(name != STATIC for table in tables for name in table.scores):
        raise mistake(f"{path}: no row with a value of {measured} has a score ({', '.join(names)}).")
    return Tables(path, measured, tuple(tables))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Each row with the line it starts on; lines that are all blank are passed over."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader, line = csv.reader(file, strict=True), 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append((line, cells))
                line = reader.line_num + 1
    except FileNotFoundError as error:
        raise mistake(f"{path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise mistake(f"{path}: cannot be read as CSV ({error}).") from error
    if len(rows) < 2:
        raise mistake(f"{path}: has no rows.")
    (_, columns), *rows = rows
    if len(set(columns)) < len(columns) or "" in columns:
        raise mistake(f"{path}: its first row must name every column, each once.")
    for number, cells in rows:
        if len(cells) != len(columns):
            raise mistake(f"{path}: line {number} has not {len(columns)} cells as the first row has.")
    return [(number, dict(zip(columns, cells, strict=True))) for number, cells in rows]


def _is_numeric(rows: Sequence[tuple[int, Mapping[str, str]]], name: str) -> bool:
    """Whether any cell is a number; one that is none is then a mistake to be named."""
    return any(_try(row[name]) is not None for _, row in rows)


def _try(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _measured_column(path: Path, columns: Sequence[str], numeric: Sequence[str], metric: str | None) -> str:
    if metric is not None:
        if metric not in columns:
            hint = did_you_mean(metric, columns) or f" There are {', '.join(columns)}."
            raise mistake(f"{path}: --metric {metric}: there is no such column.{hint}")
        if metric not in numeric:
            raise mistake(f"{path}: --metric {metric}: that column holds no numbers.")
        return metric
    found = next((name for name in numeric if is_measured(name)), None)
    if found is None and (unknown := of_tests(numeric)):
        raise mistake(
            f"{path}: {unknown[0]} is no metric that is known here; name what training measured by --metric "
            "(higher is taken as better where the name is not known)."
        )
    if found is None:
        raise mistake(
            f"{path}: no column is what training measured, such as test/accuracy_micro or finetuned_accuracy; "
            f"name it by --metric. There are {', '.join(columns)}."
        )
    return found


def _table(
    path: Path,
    dataset: str,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    *,
    model: str,
    measured: str,
    names: Sequence[str],
    size: str | None,
) -> Table:
    repeats: dict[str, dict[Hashable, float]] = {}
    lines: dict[tuple[str, Hashable], int] = {}
    scores: dict[str, dict[str, float | None]] = {}
    notes: list[str] = []
    unmeasured: list[str] = []
    for number, row in rows:
        name = row[model].strip()
        if not name:
            raise mistake(f"{path}: line {number}: {model} is empty.")
        key = tuple(row.get(one, "").strip() for one in REPEATS)
        if (name, key) in lines:
            raise mistake(
                f"{path}: lines {lines[name, key]} and {number} are the same model on the same data set ({name}, "
                f"{dataset or NAMELESS}); a column `seed` tells repeats apart."
            )
        lines[name, key] = number
        value = _number(path, number, measured, row[measured])
        if value is None:
            unmeasured.append(name)
        else:
            repeats.setdefault(name, {})[key] = value
        for column in [*names, *([size] if size else [])]:
            given = _number(path, number, column, row[column])
            if scores.setdefault(name, {}).setdefault(column, given) != given:
                raise mistake(f"{path}: line {number}: {column} of {name} is not what its earlier rows say.")
    models = list(repeats)
    if left := [name for name in dict.fromkeys(unmeasured) if name not in repeats]:
        notes.append(f"not measured, left out: {', '.join(left)}")
    of = {column: tuple(scores[one][column] for one in models) for column in names}
    notes += _oddities(of)
    return Table(
        dataset=dataset or NAMELESS,
        measured=tuple(Measured(name, repeats[name]) for name in models),
        scores={column: values for column, values in of.items() if any(v is not None for v in values)},
        parameters=tuple(scores[one][size] for one in models) if size else None,
        notes=tuple(notes),
        is_named=bool(dataset),
    )


def _number(path: Path, number: int, name: str, text: str) -> float | None:
    if text.strip().lower() in MISSING:
        return None
    value = _try(text)
    if value is None:
        raise mistake(f"{path}: line {number}: {name} is {text.strip()!r}, not a finite number.")
    return value


def _oddities(scores: Mapping[str, tuple[float | None, ...]]) -> Sequence[str]:
    """What cannot be right: columns that are copies of others, and scores beyond what they can be."""
    notes = []
    names = list(scores)
    for i, name in enumerate(names):
        for other in names[:i]:
            values = scores[name]
            if values == scores[other] and len({v for v in values if v is not None}) > 1:
                notes.append(f"{name} is the same as {other} in every row: one is a copy of the other")
        above = sum(v is not None and v > 0 for v in scores[name])
        if name.lower() in NEVER_POSITIVE and above:
            notes.append(
                f"{name} is above zero in {above} of {len(scores[name])} rows, which a mean of log-probabilities "
                "cannot be"
            )
    return notes
