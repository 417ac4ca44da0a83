"""The tables of a run: metrics per epoch, and predictions per example."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import RecordError
from headstart.records.atomic import write_text, write_with

METRICS = "metrics.csv"
PREDICTIONS = "predictions.parquet"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read rows that `write_rows` wrote: numbers as numbers, empty cells left out.

    Raises RecordError where the file is missing or is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if any(None in row or None in row.values() for row in rows):
            raise RecordError(f"{path}: has rows of different lengths.")
        return [{k: _number(v) for k, v in row.items() if v != ""} for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_predictions(
    path: Path,
    *,
    ids: Sequence[str],
    targets: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    probabilities: npt.NDArray[np.float32] | None = None,
) -> str:
    """Write a row per example and return the digest of the rows.

    `targets` and `predicted` are (n,) of class indices, (n, classes) of 0 and 1, or (n, numbers) of floats, where a
    single number stands by itself; `probabilities` is (n, classes), or None for numbers. The digest covers ids,
    targets and probabilities or predicted numbers, not the file's bytes, which change with the version of Parquet.
    """
    import pyarrow as pa
    from pyarrow import parquet

    def column(values: npt.NDArray[Any]) -> Any:
        if values.dtype.kind == "f" and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        return pa.array(list(values) if values.ndim == 2 else values)

    columns = {"id": pa.array(list(ids), pa.string()), "target": column(targets), "predicted": column(predicted)}
    if probabilities is not None:
        columns["probability"] = pa.array(list(probabilities), pa.list_(pa.float32()))
    table = pa.table(columns)
    write_with(path, lambda temporary: parquet.write_table(table, temporary, compression="zstd"))
    return predictions_digest(ids, targets, predicted if probabilities is None else probabilities)


def read_predictions(path: Path, *, probabilities: bool = True) -> dict[str, npt.NDArray[Any]]:
    """Columns of a predictions file: `id` (n,), `target` and `predicted` (n,) or (n, labels), and `probability`.

    `probability` is (n, classes) in float64, left out where it is not asked for: most of the file is in it. It is
    not there where targets are numbers. Raises RecordError where the file is missing or is no such table.
    """
    from pyarrow import ArrowException, parquet

    columns = ["id", "target", "predicted", *(["probability"] if probabilities else [])]
    try:
        table = parquet.read_table(path, columns=columns, partitioning=None)
        found = {name: _array(table.column(name)) for name in columns}
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such file.") from error
    except (OSError, ArrowException, KeyError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    return found


def _array(column: Any) -> npt.NDArray[Any]:
    """(n,), or (n, k) where a row is a list of k numbers; raises ValueError where rows differ in length."""
    if not str(column.type).startswith(("list", "large_list", "fixed_size_list")):
        return np.asarray(column.to_numpy())
    whole = column.combine_chunks()
    values = np.asarray(whole.flatten().to_numpy(zero_copy_only=False))
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    return values.astype(kind).reshape(len(column), -1) if len(column) else values.reshape(0, 0)


def predictions_digest(ids: Sequence[str], targets: npt.NDArray[Any], said: npt.NDArray[Any]) -> str:
    """SHA-256 hex digest over ids, targets and the exact probabilities or numbers, in their order."""
    digest = hashlib.sha256()
    for name in ids:
        digest.update(name.encode() + b"\0")
    digest.update(np.ascontiguousarray(targets, dtype="<f8" if targets.dtype.kind == "f" else "<i8").tobytes())
    digest.update(np.ascontiguousarray(said, dtype="<f4").tobytes())
    return digest.hexdigest()
