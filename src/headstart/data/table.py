"""A table in a file, .csv or .parquet, as columns of text."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.config.paths import expanded
from headstart.errors import DataError, did_you_mean

MOST_ROWS = 50_000_000
"""Of a table that is read: one that claims more is no list of images."""
MOST_COLUMNS = 20_000
"""Of a table that is read."""
_SHOWN, _LONG = 12, 200
_DELIMITERS = ",;\t"


class Table:
    """Columns by name; a cell is text, or None where it is empty. Rows are counted from 1, below the header."""

    def __init__(
        self, path: Path, key: str, columns: dict[str, list[str | None]], others: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self.key = key
        self.columns = columns
        self.others = others or {}
        """Kinds of the columns that hold something else than text and numbers, by name."""

    @property
    def said(self) -> str:
        """The key and the file, as errors begin."""
        return f"{self.key}={self.path}"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def column(self, name: str, *, key: str) -> list[str | None]:
        """A column that the config names; raises DataError where there is none of that name."""
        if name in self.others:
            raise DataError(f"{key}={name}: {self.path} has no text or numbers in it but {self.others[name]}.")
        if name not in self.columns:
            hint = did_you_mean(name, self.columns) or f" It has {some(self.columns)}."
            raise DataError(f"{key}={name}: {self.path} has no such column.{hint}")
        return self.columns[name]

    def wrong(self, row: int, column: str, what: str) -> DataError:
        """The error for a cell; `row` counts from 0."""
        return DataError(f"{self.path}, row {row + 1}, column {column}: {what}")


def shown(cell: str) -> str:
    """A cell as an error shows it: in quotes, and not without end."""
    return repr(cell) if len(cell) <= _LONG else f"{cell[:_LONG]!r}..."


def read_table(path: str, *, key: str) -> Table:
    """Read a table; `key` is the config's key that names it.

    Raises DataError where there is no such file, or it is no table.
    """
    file = expanded(path)
    if not os.path.isfile(file):  # noqa: PTH113 - a Path's own raises for a name that is too long
        what = "there is no such file"
        if os.path.exists(file):  # noqa: PTH110
            is_folder = os.path.isdir(file)  # noqa: PTH112
            what = f"is a {'folder' if is_folder else 'pipe, socket or device'}, not a table (.csv, .parquet)"
        raise DataError(f"{key}={path}: {what}.")
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise DataError(f"{key}={path}: a table is a .csv or a .parquet file.")
    if suffix == ".parquet":
        columns, others = _parquet(file, key)
        return Table(file, key, columns, others)
    return Table(file, key, _csv(file, key))


def _csv(path: Path, key: str) -> dict[str, list[str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=header.count)
            rows = _rows(csv.reader(file, delimiter=delimiter, strict=True))
            names = [name.strip() for name in next(rows, [])]
            if not names:
                raise DataError(f"{key}={path}: is empty.")
            _require_names(names, f"{key}={path}")
            columns: list[list[str | None]] = [[] for _ in names]
            for number, row in enumerate(rows, 1):
                if len(row) != len(names):
                    raise DataError(
                        f"{path}, row {number}: has {len(row)} cells, the header {len(names)}; a cell with "
                        f"{delimiter!r} in it needs quotes."
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell or None)
    except OSError as error:
        raise DataError(f"{key}={path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{key}={path}: is not UTF-8 ({error.reason} at byte {error.start}).") from error
    except csv.Error as error:
        raise DataError(f"{key}={path}: is no table ({error}).") from error
    return dict(zip(names, columns, strict=True))


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    return (row for row in reader if row)  # an empty line is no row


def _require_names(names: Sequence[str], said: str) -> None:
    if len(names) > MOST_COLUMNS:
        raise DataError(f"{said}: has {len(names):,} columns; more than {MOST_COLUMNS:,} are no list of images.")
    for name, count in Counter(names).items():
        if not name:
            raise DataError(f"{said}: has a column without a name.")
        if count > 1:
            raise DataError(f"{said}: has two columns called {name!r}.")


def some(names: Iterable[str]) -> str:
    """Names as an error shows them: not too many of them."""
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _parquet(path: Path, key: str) -> tuple[dict[str, list[str | None]], dict[str, str]]:
    """Columns of text and numbers, and the kinds of the others."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise DataError(f"{key}={path}: has more than {MOST_ROWS:,} rows.")
            names = file.schema_arrow.names
            _require_names(names, f"{key}={path}")
            kinds = {name: file.schema_arrow.field(name).type for name in names}
            found = {}
            for name in names:
                if _is_plain(kinds[name]):
                    found[name] = [_text(value) for value in file.read(columns=[name]).column(name).to_pylist()]
    except (OSError, ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"{key}={path}: cannot be read as Parquet ({str(error).splitlines()[0][:200]}).") from error
    return found, {name: str(kind).splitlines()[0][:80] for name, kind in kinds.items() if name not in found}


def _is_plain(kind: Any) -> bool:
    """Whether cells are text, truth or numbers; images and lists are other sources' business."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_boolean, types.is_integer,
              types.is_floating, types.is_null)  # fmt: skip
    return any(check(kind) for check in checks)


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))  # whole numbers become fractions where a cell among them is empty
    return None if value is None or value == "" else str(value)
