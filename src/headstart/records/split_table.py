"""Which example is in which split, as a table that people read and that can be passed back in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from headstart.records.atomic import write_text

COLUMNS = ("id", "split", "label")


def write_split(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write id, split and label of each example as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    write_text(path, text.getvalue())
