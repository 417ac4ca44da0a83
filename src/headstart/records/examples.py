"""`examples.parquet`: every example that a run's data had, with its label, its content's digest and its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import RecordError
from headstart.records.atomic import write_with

EXAMPLES = "examples.parquet"
DIGEST_BYTES = 8
"""Of each image's SHA-256: enough to name the one that changed. The fingerprint has all of it."""


@dataclass(frozen=True)
class ExampleTable:
    """A row per example of the source, in its order; all columns have the same length n."""

    origins: Sequence[str]
    """The split of the source that it lies in: with its id, what identifies it."""
    ids: Sequence[str]
    labels: Sequence[str]
    """Names of its classes, joined by commas where it may have several."""
    digests: npt.NDArray[np.uint64]
    """(n,) first bytes of the SHA-256 of its content, big-endian."""
    splits: Sequence[str]
    """Where the run uses it: `train`, `val`, `test`, `train,val` where both are trained on, or nothing."""


MOST_EXAMPLES = 50_000_000
"""Rows of a file that is read: one that claims more is no record of a run."""
_TEXTS = ("origin", "id", "label", "split")


def write_examples(path: Path, table: ExampleTable) -> None:
    """Write the table, whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    written = pa.table(
        {
            "origin": pa.array(list(table.origins), pa.string()),
            "id": pa.array(list(table.ids), pa.string()),
            "label": pa.array(list(table.labels), pa.string()),
            "digest": pa.array(table.digests, pa.uint64()),
            "split": pa.array(list(table.splits), pa.string()),
        }
    )
    write_with(path, lambda temporary: parquet.write_table(written, temporary, compression="zstd"))


def read_examples(path: Path) -> ExampleTable:
    """Read what `write_examples` wrote; raises RecordError where the file is missing or is no such table."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path, read_dictionary=list(_TEXTS)) as file:
            if file.metadata.num_rows > MOST_EXAMPLES:
                raise RecordError(f"{path}: has more than {MOST_EXAMPLES:,} examples.")
            table = file.read(columns=[*_TEXTS, "digest"])
        if any(table.column(name).null_count for name in table.column_names):
            raise ValueError("empty cells")
        digests = table.column("digest").to_numpy().astype(np.uint64, casting="safe")
        texts = [_texts(table.column(name)) for name in _TEXTS]
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such file.") from error
    except (OSError, ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    return ExampleTable(texts[0], texts[1], texts[2], digests, texts[3])


def _texts(column: Any) -> list[str]:
    """A column of text; equal cells are one object, so that a small file does not become a large one."""
    import pyarrow as pa

    found: list[str] = []
    if not pa.types.is_dictionary(column.type):
        raise ValueError("cells that are no text")
    for chunk in column.chunks:
        values = chunk.dictionary.to_pylist()
        if not all(isinstance(value, str) for value in values):
            raise ValueError("cells that are no text")
        found += [values[i] for i in chunk.indices.to_pylist()]
    return found
