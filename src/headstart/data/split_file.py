"""A split that is written down: which example is in which split, by id."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from headstart.config.paths import expanded
from headstart.data.csv_table import SPLIT_WORDS
from headstart.data.fingerprint import split_fingerprint
from headstart.data.source import Source
from headstart.data.subset import Split, joined
from headstart.data.table import read_table
from headstart.errors import DataError
from headstart.records.atomic import write_text
from headstart.records.examples import ExampleTable

KEY = "data.split_file"


def read_split(path: str) -> dict[str, str]:
    """Split of each id that a file names: `train`, `val` or `test`.

    `train,val`, which stands in the examples.parquet of a run that trained on both, is `val`. Raises DataError
    where the file cannot be read, names an id in two splits, or lacks a split.
    """
    file = expanded(path)
    try:
        stat = file.stat()
    except OSError:
        return _read(path, 0, 0)
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(path: str, mtime_ns: int, size: int) -> dict[str, str]:
    table = read_table(path, key=KEY)
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    cells = table.column("split", key=KEY)
    for row, (name, cell) in enumerate(zip(table.column("id", key=KEY), cells, strict=True)):
        words = [SPLIT_WORDS.get(word.strip().lower()) for word in (cell or "").split(",") if word.strip()]
        if None in words or (len(words) > 1 and set(words) != {"train", "val"}):
            raise table.wrong(row, "split", f"must be train, val or test, or empty; is {cell!r}.")
        if name is None:
            raise table.wrong(row, "id", "is empty.")
        split = "val" if len(words) > 1 else str(words[0]) if words else "no split"
        if name in seen:
            more = f"in {seen[name]} and in {split}" if seen[name] != split else "twice"
            raise table.wrong(row, "id", f"{name!r} is named {more}.")
        seen[name] = split
        if words:
            found[name] = split
    for split in ("train", "val", "test"):
        if split not in found.values():
            raise DataError(f"{table.said}: names no example of {split}.")
    return found


def split_digest(path: str) -> str:
    """SHA-256 hex digest of what a file says, however it is written: the split fingerprint of its runs."""
    by_split: dict[str, Sequence[str]] = {}
    named = read_split(path)
    for split in ("train", "val", "test"):
        by_split[split] = [name for name, own in named.items() if own == split]
    return split_fingerprint(by_split)


def by_file(source: Source, path: str, usable: Mapping[str, Sequence[int]]) -> dict[str, Split]:
    """The splits that a file names; raises DataError for an id that the source has not, or cannot decode."""
    wanted = read_split(path)
    places: dict[tuple[str, str], list[int]] = {}
    found: set[str] = set()
    for origin, examples in source.splits.items():
        for index in usable[origin]:
            name = examples.ids[index]
            if name in wanted:
                found.add(name)
                places.setdefault((wanted[name], origin), []).append(index)
    if len(found) < len(wanted):
        missing = next(name for name in wanted if name not in found)
        there = any(missing in examples.ids for examples in source.splits.values())
        what = "cannot be decoded" if there else "is not in the data"
        more = f", like {len(wanted) - len(found) - 1} more" if len(wanted) - len(found) > 1 else ""
        raise DataError(f"{KEY}={path}: {missing!r} {what}{more}.")
    splits: dict[str, Split] = {}
    for (split, origin), indices in places.items():
        part = Split(source.splits[origin], np.array(indices, dtype=np.int64))
        splits[split] = joined(splits[split], part) if split in splits else part
    return splits


def write_split(path: Path, table: ExampleTable) -> None:
    """Write which example is in which split as a CSV file of id, split and label, whole or not at all.

    `table` is what `ImageDataModule.examples()` returns; examples that are in no split have no row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "split", "label"))
    for name, split, label in zip(table.ids, table.splits, table.labels, strict=True):
        if split:
            writer.writerow((name, split, label))
    write_text(path, text.getvalue())
