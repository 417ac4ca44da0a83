"""Small pictures of test images that a run got wrong: what a report shows when the data is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headstart.errors import RecordError
from headstart.records.atomic import write_with

THUMBNAILS = "pictures.parquet"
MOST_BYTES = 64 * 1024
"""A file with larger pictures than this was not written here; they are left out."""
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def write_thumbnails(path: Path, pictures: Mapping[str, bytes]) -> None:
    """Write a row per picture, `id` and `image` (a PNG's or JPEG's bytes), whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {"id": pa.array(list(pictures), pa.string()), "image": pa.array(list(pictures.values()), pa.binary())}
    )
    write_with(path, lambda temporary: parquet.write_table(table, temporary, compression="none"))


def read_thumbnails(path: Path) -> dict[str, bytes]:
    """Picture by id; none where there is no such file. What is neither PNG nor JPEG, or too large, is left out.

    Raises RecordError where the file is damaged.
    """
    if not path.is_file():
        return {}
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path, columns=["id", "image"], partitioning=None)
        found = dict(zip(table.column("id").to_pylist(), table.column("image").to_pylist(), strict=True))
    except (OSError, ArrowException, KeyError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    return {
        str(name): image
        for name, image in found.items()
        if isinstance(image, bytes) and len(image) <= MOST_BYTES and kind_of(image)
    }


def kind_of(image: bytes) -> str | None:
    """`png` or `jpeg` by the first bytes; None for anything else."""
    return "png" if image.startswith(_PNG) else "jpeg" if image.startswith(_JPEG) else None
