"""Label cells of a table as targets: classes, several labels, or numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.source import is_line
from headstart.data.table import Table, shown
from headstart.errors import DataError
from headstart.facts import Task

Cells = Sequence[str | None]
Labels = tuple[tuple[str, ...], Task, npt.NDArray[Any]]
"""Class names or names of numbers, task, and a target per row."""


def natural(names: Iterable[str]) -> list[str]:
    """Sorted; by value where all are numbers, so that 2 comes before 10."""
    names = set(names)
    values = {name: _number(name) for name in names}
    if all(value is not None and math.isfinite(value) for value in values.values()):
        return sorted(names, key=lambda name: (values[name], name))
    return sorted(names)


def read_labels(table: Table, columns: Mapping[str, Cells], *, task: str, separator: str | None) -> Labels:
    """Targets of all rows; `task` is `auto` or what is asked for.

    `auto`: a separator, or several columns of 0 and 1, mean several labels; several other columns, or fractions
    in one, mean numbers; all else are classes. Raises DataError for the first cell that does not fit.
    """
    if len(columns) > 1:
        hot = task == "multilabel" or (task == "auto" and _are_all_hot(columns.values()))
        return _several_columns(table, columns) if hot else _numbers(table, columns)
    (name, cells), *_ = columns.items()
    if separator is not None:
        return _separated(table, name, cells, separator)
    if task == "regression" or (task == "auto" and _has_fractions(table, name, cells)):
        return _numbers(table, columns)
    return _classes(table, name, cells)


def _classes(table: Table, name: str, cells: Cells) -> Labels:
    found = [_present(table, row, name, cell) for row, cell in enumerate(cells)]
    values = {text: _number(text) for text in set(found)}
    if all(value is not None and value.is_integer() for value in values.values()):
        # 1.0 is what becomes of a 1 where a cell above it is empty
        found = [str(int(values[text] or 0)) if "." in text else text for text in found]
    names = natural(found)
    place = {text: i for i, text in enumerate(names)}
    return tuple(names), "multiclass", np.array([place[text] for text in found], dtype=np.int64)


def _separated(table: Table, name: str, cells: Cells, separator: str) -> Labels:
    rows = []
    for row, cell in enumerate(cells):
        labels = [label.strip() for label in cell.split(separator)] if cell and cell.strip() else []
        if not all(labels):
            raise table.wrong(row, name, f"has an empty label between two {separator!r}: {shown(cell or '')}.")
        rows.append([_present(table, row, name, label) for label in labels])
    names = natural(label for labels in rows for label in labels)
    if not names:
        raise DataError(f"{table.said}: its column {name} has no label in any row.")
    place = {label: i for i, label in enumerate(names)}
    targets = np.zeros((len(rows), len(names)), dtype=np.int64)
    for row, labels in enumerate(rows):
        targets[row, [place[label] for label in labels]] = 1
    return tuple(names), "multilabel", targets


def _several_columns(table: Table, columns: Mapping[str, Cells]) -> Labels:
    targets = np.zeros((len(table), len(columns)), dtype=np.int64)
    for i, (name, cells) in enumerate(columns.items()):
        for row, cell in enumerate(cells):
            value = _hot(_present(table, row, name, cell))
            if value is None:
                raise table.wrong(row, name, f"must be 0 or 1, is {shown(cell or '')}.")
            targets[row, i] = value
    return tuple(columns), "multilabel", targets


def _numbers(table: Table, columns: Mapping[str, Cells]) -> Labels:
    targets = np.zeros((len(table), len(columns)), dtype=np.float64)
    for i, (name, cells) in enumerate(columns.items()):
        for row, cell in enumerate(cells):
            value = _number(_present(table, row, name, cell))
            if value is None or not math.isfinite(value):
                raise table.wrong(row, name, f"must be a number, is {shown(cell or '')}.")
            targets[row, i] = value
    return tuple(columns), "regression", targets


def _present(table: Table, row: int, name: str, cell: str | None) -> str:
    text = (cell or "").strip()
    if not text:
        raise table.wrong(row, name, "has no label.")
    if text.lower() in ("nan", "-nan"):
        raise table.wrong(row, name, f"the label is {text} (not a number); give one, or leave the row out.")
    if not is_line(text):
        raise table.wrong(row, name, f"the label {shown(text)} is no line of text.")
    return text


def _has_fractions(table: Table, name: str, cells: Cells) -> bool:
    """Whether a column holds fractional numbers; raises DataError where most are and one is no number."""
    values = {text: _number(text) for text in {cell.strip() for cell in cells if cell}}
    fractions = {text for text, value in values.items() if value is not None and not value.is_integer()}
    if not fractions:
        return False
    odd = next((row for row, cell in enumerate(cells) if cell and values[cell.strip()] is None), None)
    if odd is not None and len(fractions) > len(values) / 2:
        raise table.wrong(
            odd,
            name,
            f"{shown(cells[odd] or '')} is no number, unlike the others; set data.task where all are classes.",
        )
    return odd is None


def _are_all_hot(columns: Iterable[Cells]) -> bool:
    return all(_hot((cell or "").strip()) is not None for cells in columns for cell in cells)


def _hot(text: str) -> int | None:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}.get(text.lower())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) or "_" in text else value


def require_seen(table: Table, labels: Labels, columns: Sequence[str], split_of: Sequence[str]) -> None:
    """Raise DataError for the first row of `val` or `test` with a label that no row of `train` has."""
    names, task, targets = labels
    if task == "regression":
        return
    in_train = np.array([split == "train" for split in split_of])
    if in_train.all():
        return
    if task == "multilabel":
        never = targets[in_train].sum(axis=0) == 0
        unseen = ~in_train & targets[:, never].any(axis=1)
    else:
        unseen = ~in_train & ~np.isin(targets, targets[in_train])
    if unseen.any():
        row = int(unseen.argmax())
        place = int((targets[row] * never).argmax()) if task == "multilabel" else int(targets[row])
        label = names[place]
        raise table.wrong(
            row,
            columns[0] if len(columns) == 1 else label,
            f"the label {shown(label)} is in {split_of[row]} and never in train.",
        )
