"""Arrays of bytes on disk, each under a 64-bit key, in parts that are there whole or not at all.

A part is a file of bytes, `part-*.bin`, and its index `part-*.npy`, which is put there last and whole. A build that
is killed leaves at most a part without an index, which nobody believes and the next build removes. One process
builds at a time; others wait for it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from headstart.caches import LOCK
from headstart.records.atomic import write_with

Bytes = npt.NDArray[np.uint8]

PART_BYTES = 128 * 2**20
"""A part is closed when it has this many: what a build that is killed loses at most."""
INDEX = np.dtype([("digest", "<u8"), ("offset", "<u8"), ("shape", "<u4", (3,))])


def read_parts(folder: Path) -> Iterator[tuple[npt.NDArray[np.void], Bytes]]:
    """Index and bytes of each part; damaged ones are as if they were not there."""
    for index in sorted(folder.glob("part-*.npy")):
        part = _part(index)
        if part is not None:
            yield part


def _part(index: Path) -> tuple[npt.NDArray[np.void], Bytes] | None:
    """Index and bytes of a part; None where it is damaged."""
    try:
        rows = np.load(index, allow_pickle=False)
        # PyTorch warns of memory that is read-only; what is written to this would be nobody else's
        held = np.memmap(index.with_suffix(".bin"), dtype=np.uint8, mode="c")
    except (OSError, ValueError, EOFError):
        return None
    if rows.dtype != INDEX or rows.ndim != 1 or not len(rows):
        return None
    ends = rows["offset"] + rows["shape"].astype(np.uint64).prod(axis=1)
    return (rows, held) if int(ends.max()) == len(held) else None


@contextmanager
def alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """As the only process that builds in `folder`; `waiting` is told once where another is at it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def remove_unbelieved(folder: Path) -> None:
    """Parts that nobody reads, of a build that was killed or damaged since; nobody else may be building."""
    for path in {file.with_suffix(".npy") for file in folder.glob("part-*")}:
        if _part(path) is None:
            path.unlink(missing_ok=True)
            path.with_suffix(".bin").unlink(missing_ok=True)
    for path in folder.glob(".part-*"):
        path.unlink(missing_ok=True)


class PartWriter:
    """Writes parts one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._path = folder
        self._offset = 0
        self.written = 0
        """Bytes of all parts."""
        self._rows: list[tuple[int, int, Sequence[int]]] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self.drop()
        else:  # what an interrupted build has made is good
            self.close()

    @property
    def is_safe(self) -> bool:
        """Whether all that was added lies in parts that are closed."""
        return self._file is None

    def add(self, key: int, array: Bytes) -> None:
        """Write an array of at most three dimensions; raises OSError."""
        if self._file is None:
            self._path = self.folder / f"part-{secrets.token_hex(8)}.bin"
            self._file = self._path.open("xb")
            self._offset, self._rows = 0, []
        self._file.write(np.ascontiguousarray(array).data)
        self._rows.append((key, self._offset, (1, 1, 1, *array.shape)[-3:]))
        self._offset += array.size
        self.written += array.size
        if self._offset >= PART_BYTES:
            self.close()

    def close(self) -> None:
        """Put the index of the part in place, if one is open; raises OSError, and then the part is gone."""
        if self._file is None:
            return
        try:
            self._file.flush()
            self._file.truncate(self._offset)  # an interrupt may have come between two lines
            os.fsync(self._file.fileno())
            self._file.close()
            rows = np.array(self._rows, dtype=INDEX)
            write_with(self._path.with_suffix(".npy"), lambda temporary: _save(temporary, rows))
        except OSError:
            self.drop()
            raise
        self._file = None

    def drop(self) -> None:
        """Remove the part that is open."""
        if self._file is not None:
            os.truncate(self._path, 0)
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = None


def _save(path: Path, rows: npt.NDArray[np.void]) -> None:
    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
