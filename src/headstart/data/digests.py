"""Digests of files that were read before: what a file is while its path, size and times stay as they were."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

import PIL

from headstart.caches import FINGERPRINTS
from headstart.config.paths import cache_dir
from headstart.records.atomic import write_with

_VERSION = f"2 Pillow {PIL.__version__}"
"""Of what is written: another Pillow may decode what this one cannot. Raised when other images are refused."""
_MOST = 20_000_000
"""Files that are remembered of one folder."""
_YOUNG_NS = 50_000_000
"""A file changed less than this before it was read may change once more within one tick of its times."""

Stamp = tuple[int, int, int, int]
"""Size, time of the last change of the content, and of the file's own entry, which nobody can set, in nanoseconds;
and which file of the disk it is: a folder that takes another's place changes neither."""


def stamp_of(path: str) -> Stamp:
    """What a file's entry says of it; raises OSError."""
    found = os.stat(path)  # noqa: PTH116 - a Path for each costs seconds
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino % 2**63


class Digests:
    """Of the files below one folder, by their relative paths. Losing it costs time and nothing else."""

    def __init__(self, root: str) -> None:
        name = hashlib.sha256(os.path.realpath(root).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.path = cache_dir() / FINGERPRINTS / f"{name}.parquet"
        self._known = _read(self.path)
        self._is_new = False

    def get(self, name: str, stamp: Stamp) -> tuple[bytes, str] | None:
        """SHA-256 of the content, and why it cannot be decoded, if so; None where that is not known."""
        found = self._known.get(name)
        return (found[1], found[2]) if found is not None and found[0] == stamp else None

    def put(self, name: str, stamp: Stamp, digest: bytes, problem: str) -> None:
        """Remember a file that was read after `stamp` was taken."""
        if max(stamp[1:3]) < time.time_ns() - _YOUNG_NS:
            self._known[name] = (stamp, digest, problem)
            self._is_new = True

    def save(self) -> None:
        """Write it down; where that cannot be done, say so and go on."""
        if not self._is_new or len(self._known) > _MOST:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_with(self.path, lambda temporary: _write(temporary, self._known))
        except OSError as error:
            warnings.warn(
                f"{self.path.parent}: digests cannot be kept ({error.strerror or error}); the next run reads all "
                "images again.",
                stacklevel=2,
            )


_STAMP = ("size", "mtime_ns", "ctime_ns", "inode")
Known = dict[str, tuple[Stamp, bytes, str]]


def _write(path: Path, known: Known) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    stamps = [stamp for stamp, _, _ in known.values()]
    columns: dict[str, Any] = {"id": pa.array(list(known), pa.string())}
    for i, name in enumerate(_STAMP):
        columns[name] = pa.array([stamp[i] for stamp in stamps], pa.int64())
    columns["digest"] = pa.array([digest for _, digest, _ in known.values()], pa.binary(32))
    columns["problem"] = pa.array([problem for _, _, problem in known.values()], pa.string())
    table = pa.table(columns).replace_schema_metadata({"headstart": _VERSION})
    parquet.write_table(table, path, compression="zstd")


def _read(path: Path) -> Known:
    """What is there; nothing where it is damaged, of another version or somebody else's."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if (
                file.metadata.num_rows > _MOST
                or (file.schema_arrow.metadata or {}).get(b"headstart") != _VERSION.encode()
            ):
                return {}
            table = file.read(columns=["id", *_STAMP, "digest", "problem"])
        columns = [column.to_pylist() for column in table.columns]
    except (OSError, ArrowException, ValueError, KeyError, TypeError, OverflowError):
        return {}
    if any(column.null_count for column in table.columns):
        return {}
    names, *of_stamps, digests, problems = columns
    stamps = zip(*of_stamps, strict=True)
    return {
        name: (stamp, digest, problem)
        for name, stamp, digest, problem in zip(names, stamps, digests, problems, strict=True)
    }
