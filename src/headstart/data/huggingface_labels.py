"""Label columns of a Hugging Face dataset as targets: classes, several labels, or numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError
from headstart.facts import Task

_CLASSES = ("int", "uint", "string", "large_string", "bool")


def label_targets(
    splits: Mapping[str, Any], columns: Sequence[str], *, task: str, path: str
) -> tuple[list[str], Task, dict[str, npt.NDArray[Any]]]:
    """Names of classes or numbers, the task, and the targets of each split.

    A class label is one class per image, a list several; a fraction is a number, and so is a list of them.
    Raises DataError for a label that does not fit.
    """
    features = splits["train"].features
    leaves = [_leaf(features[name]) for name in columns]
    fractions = all(getattr(leaf, "dtype", "").startswith("float") for leaf, _ in leaves)
    if len(columns) > 1 or task == "regression" or (task == "auto" and fractions):
        names, targets = _numbers(splits, columns, path)
        return names, "regression", targets
    (column,) = columns
    values = {split: rows[column] for split, rows in splits.items()}
    found, kind = _classes(features[column], [v for rows in values.values() for v in rows], column)
    return (
        [str(name) for name in found],
        kind,
        {split: _targets(rows, found, kind, f"{path}, {split}, {column}") for split, rows in values.items()},
    )


def _leaf(feature: Any) -> tuple[Any, bool]:
    """What a cell holds, and whether it is a list of them."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return (feature, False) if inner is None else (inner, True)


def _numbers(
    splits: Mapping[str, Any], columns: Sequence[str], path: str
) -> tuple[list[str], dict[str, npt.NDArray[np.float64]]]:
    """(n, numbers) of columns of numbers, or of lists of numbers that are all of one length."""
    targets: dict[str, npt.NDArray[np.float64]] = {}
    widths: dict[str, int] = {}
    for split, rows in splits.items():
        parts = []
        for column in columns:
            cells = []
            for row, cell in enumerate(rows[column]):
                cells.append(_row_of_numbers(cell, f"{path}, {split}, {column}, row {row}"))
                if len(cells[-1]) != widths.setdefault(column, len(cells[-1])):
                    raise DataError(
                        f"{path}, {split}, {column}, row {row}: has {len(cells[-1])} numbers, not {widths[column]}."
                    )
            parts.append(np.array(cells, dtype=np.float64).reshape(len(cells), widths.get(column, 1)))
        targets[split] = np.concatenate(parts, axis=1)
    names = [
        column if widths.get(column, 1) == 1 else f"{column}.{i}"
        for column in columns
        for i in range(widths.get(column, 1))
    ]
    return names, targets


def _row_of_numbers(cell: Any, where: str) -> list[float]:
    numbers = cell if isinstance(cell, list) else [cell]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise DataError(f"{where}: the label {number!r} is no number.")
    if not numbers:
        raise DataError(f"{where}: has no label.")
    return [float(number) for number in numbers]


def _classes(feature: Any, values: list[Any], column: str) -> tuple[list[Any], Task]:
    """Class names and task; a list of labels per image means several labels."""
    import datasets

    leaf, several = _leaf(feature)
    task: Task = "multilabel" if several else "multiclass"
    if isinstance(leaf, datasets.ClassLabel):
        return list(leaf.names), task
    if not isinstance(leaf, datasets.Value) or not leaf.dtype.startswith(_CLASSES):
        raise DataError(f"data.label_column={column}: must hold classes (whole numbers or names), not {leaf}.")
    flat = [v for value in values for v in (value or [])] if several else values
    if any(v is None for v in flat):
        raise DataError(f"data.label_column={column}: has rows without a label.")
    if several and set(flat) <= {0, 1} and len({len(value or []) for value in values}) == 1 and len(values[0]) > 2:
        raise DataError(
            f"data.label_column={column}: holds 0 and 1 for every class; it must hold a list of the classes that "
            "are there, such as [2, 5]."
        )
    return sorted(set(flat)), task


def _targets(column: Any, names: list[Any], task: Task, where: str) -> npt.NDArray[np.int64]:
    # class labels are stored as indices, other values as themselves
    index = {name: i for i, name in enumerate(names)}

    def position(value: Any, row: int) -> int:
        at = value if isinstance(value, int) and value not in index else index.get(value, value)
        if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < len(names):
            raise DataError(f"{where}, row {row}: the label {value!r} is none of the {len(names)} classes.")
        return at

    if task == "multiclass":
        return np.asarray([position(value, row) for row, value in enumerate(column)], dtype=np.int64)
    targets = np.zeros((len(column), len(names)), dtype=np.int64)
    for row, values in enumerate(column):
        for value in values or []:
            targets[row, position(value, row)] = 1
    return targets
