"""A table that says where images are and what is in them: a path, labels, perhaps a split and a group per row."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.config.paths import expanded
from headstart.data.cells import read_labels, require_seen
from headstart.data.files import FileExamples
from headstart.data.source import Examples, Source
from headstart.data.table import Table, read_table, shown, some
from headstart.errors import DataError

IMAGE_COLUMNS = ("path", "image", "file", "filename", "filepath", "file_name", "file_path", "image_path", "img")
LABEL_COLUMNS = ("label", "labels", "class", "target", "targets", "category")
SPLIT_COLUMN = "split"
NO_SPLIT = "none"
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip


def csv_table(
    path: str,
    *,
    root: str | None,
    image_column: str | None,
    label_column: str | Sequence[str] | None,
    label_separator: str | None,
    split_column: str | None,
    group_column: str | None,
    task: str,
) -> Source:
    """List the images of a table; ids are their paths as they are written there.

    Raises DataError, with row and column, for a label that is missing or does not fit, an image that is not there
    or no file, an image in two rows, and a label that is never trained on.
    """
    table = read_table(path, key="data.path")
    if not len(table):
        raise DataError(f"{table.said}: has a header and no rows.")
    image_name = image_column or _image_column(table)
    label_names = _label_columns(table, label_column, others=(image_name, split_column, group_column))
    split_name = _split_column(table, split_column)
    folder = expanded(root) if root else table.path.parent
    if not os.path.isdir(folder):  # noqa: PTH112 - a Path's own raises for a name that is too long
        raise DataError(f"data.root={root}: there is no such folder.")

    images = _images(table, image_name, str(folder))
    columns = {name: table.column(name, key="data.label_column") for name in label_names}
    labels = read_labels(table, columns, task="multiclass" if task == "binary" else task, separator=label_separator)
    names, found_task, targets = labels
    split_of = _splits(table, split_name) if split_name else ["train"] * len(table)
    _require_once(table, image_name, images, str(folder), targets, split_of)
    require_seen(table, labels, label_names, split_of)
    groups = _groups(table, group_column) if group_column else None

    splits: dict[str, Examples] = {}
    grouped: dict[str, Sequence[str]] = {}
    for split in ("train", "val", "test"):
        rows = [row for row, own in enumerate(split_of) if own == split]
        if rows:
            splits[split] = FileExamples(str(folder), [images[row] for row in rows], targets[rows])
            if groups is not None:
                grouped[split] = [groups[row] for row in rows]
    return Source(names, found_task, splits, grouped)


def _image_column(table: Table) -> str:
    found = [name for name in table.columns if name.lower() in IMAGE_COLUMNS]
    if len(found) != 1:
        what = f"{' and '.join(found[:3])} may both hold" if found else "no column is known to hold"
        raise DataError(f"{table.said}: {what} the images; set data.image_column (columns: {some(table.columns)}).")
    return found[0]


def _label_columns(table: Table, given: str | Sequence[str] | None, *, others: Sequence[str | None]) -> list[str]:
    if given is not None:
        return [given] if isinstance(given, str) else list(given)
    found = [name for word in LABEL_COLUMNS for name in table.columns if name.lower() == word]
    rest = [name for name in table.columns if name not in others and name.lower() != SPLIT_COLUMN]
    if not found and len(rest) != 1:
        raise DataError(
            f"{table.said}: which column has the labels? Set data.label_column (columns: {some(rest)})."
        )
    return [found[0] if found else rest[0]]


def _split_column(table: Table, given: str | None) -> str | None:
    if given is None:
        return next((name for name in table.columns if name.lower() == SPLIT_COLUMN), None)
    return None if given == NO_SPLIT and NO_SPLIT not in table.columns else given


def _images(table: Table, column: str, root: str) -> list[str]:
    """The paths as they are written, each of them one of a file."""
    images = []
    for row, cell in enumerate(table.column(column, key="data.image_column")):
        if cell is None:
            raise table.wrong(row, column, "names no image.")
        try:
            mode = os.stat(os.path.join(root, cell)).st_mode  # noqa: PTH116, PTH118 - a Path for each costs seconds
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            hint = " Write / in place of \\." if "\\" in cell else ""
            raise table.wrong(row, column, f"{shown(cell)} is not below {root} ({reason}).{hint}") from error
        if not stat.S_ISREG(mode):
            raise table.wrong(row, column, f"{shown(cell)} is no file but {_kind(mode)}.")
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise table.wrong(row, column, f"{shown(cell)} is no text.") from error
        images.append(cell)
    return images


def _kind(mode: int) -> str:
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"


def _splits(table: Table, column: str) -> list[str]:
    found = []
    for row, cell in enumerate(table.column(column, key="data.split_column")):
        word = SPLIT_WORDS.get((cell or "").strip().lower())
        if word is None:
            raise table.wrong(row, column, f"must be train, val or test, is {shown(cell or '')}.")
        found.append(word)
    if "train" not in found:
        raise DataError(f"{table.said}: its column {column} puts no row into train.")
    return found


def _groups(table: Table, column: str) -> list[str]:
    groups = []
    for row, cell in enumerate(table.column(column, key="data.group_column")):
        if cell is None:
            raise table.wrong(row, column, "names no group.")
        groups.append(cell)
    return groups


def _require_once(
    table: Table, column: str, images: Sequence[str], root: str, targets: Any, split_of: Sequence[str]
) -> None:
    """Raise DataError for an image in two rows: with two labels, in two splits (a leak), or counted twice."""
    first: dict[str, int] = {}
    for row, image in enumerate(images):
        before = first.setdefault(os.path.normpath(os.path.join(root, image)), row)  # noqa: PTH118
        if before == row:
            continue
        if not np.array_equal(targets[before], targets[row]):
            what = "has another label there"
        elif split_of[before] != split_of[row]:
            what = f"is in {split_of[before]} there and in {split_of[row]} here, which is a leak"
        else:
            what = "would count twice; remove one"
        raise table.wrong(row, column, f"{shown(image)} is in row {before + 1} as well and {what}.")
