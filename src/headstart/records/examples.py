"""`examples.parquet`: every example that a run's data had, with its label, its content's digest and its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

    names = ["origin", "id", "label", "digest", "split"]
    try:
        table = parquet.read_table(path, columns=names, partitioning=None)
        columns = [table.column(name).to_pylist() for name in names]
        if any(None in column for column in columns):
            raise ValueError("empty cells")
        digests = np.asarray(columns[3], dtype=np.uint64)
        texts = [columns[i] for i in (0, 1, 2, 4)]
        if not all(isinstance(text, str) for column in texts for text in column):
            raise ValueError("cells that are no text")
    except FileNotFoundError as error:
        raise RecordError(f"{path}: there is no such file.") from error
    except (OSError, ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    return ExampleTable(texts[0], texts[1], texts[2], digests, texts[3])
