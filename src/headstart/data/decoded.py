"""Decoded images on disk: each is decoded once, by whichever run is first, and read from memory maps after that.

A folder per (data fingerprint, form) holds parts: a file of pixels, `part-*.bin`, and its index `part-*.npy`, which
is put there last and whole. A build that is killed leaves at most a part without an index, which nobody believes
and the next build removes. One process builds at a time; others wait for it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from headstart.caches import LOCK
from headstart.data.forms import Pixels
from headstart.progress import counted
from headstart.records.atomic import write_with

ShortDigests = npt.NDArray[np.uint64]
"""First eight bytes of the SHA-256 of each image's content."""

PART_BYTES = 128 * 2**20
"""A part is closed when it has this many: what a build that is killed loses at most."""
_INDEX = np.dtype([("digest", "<u8"), ("offset", "<u8"), ("shape", "<u4", (3,))])
_CHUNK = 64


@dataclass(frozen=True)
class Place:
    """Where an image lies."""

    pixels: npt.NDArray[np.uint8]
    offset: int
    shape: tuple[int, int, int]

    def read(self) -> Pixels:
        """The image, without copying it."""
        size = self.shape[0] * self.shape[1] * self.shape[2]
        return self.pixels[self.offset : self.offset + size].reshape(self.shape)


def places(folder: Path, digests: ShortDigests) -> list[Place | None]:
    """Where each image lies; None for those that are not there. Damaged parts are as if they were not."""
    wanted = {int(digest): None for digest in digests}
    found: dict[int, Place] = {}
    for index in sorted(folder.glob("part-*.npy")):
        part = _part(index)
        if part is None:
            continue
        rows, pixels = part
        for digest, offset, shape in zip(
            rows["digest"].tolist(), rows["offset"].tolist(), rows["shape"].tolist(), strict=True
        ):
            if digest in wanted:
                found[digest] = Place(pixels, offset, (shape[0], shape[1], shape[2]))
    return [found.get(int(digest)) for digest in digests]


def _part(index: Path) -> tuple[npt.NDArray[np.void], npt.NDArray[np.uint8]] | None:
    """Index and pixels of a part; None where it is damaged."""
    try:
        rows = np.load(index, allow_pickle=False)
        # PyTorch warns of memory that is read-only; what is written to this would be nobody else's
        pixels = np.memmap(index.with_suffix(".bin"), dtype=np.uint8, mode="c")
    except (OSError, ValueError, EOFError):
        return None
    if rows.dtype != _INDEX or rows.ndim != 1 or not len(rows):
        return None
    ends = rows["offset"] + rows["shape"].astype(np.uint64).prod(axis=1)
    return (rows, pixels) if int(ends.max()) == len(pixels) else None


def build(
    folder: Path,
    digests: ShortDigests,
    decode: Callable[[int], Pixels | None],
    *,
    threads: int,
    most: int,
    waiting: Callable[[], None],
) -> bool:
    """Decode what is not there yet; `decode(i)` gives the image of `digests[i]`, or None where it cannot.

    At most `most` bytes are added; returns whether that was enough. `waiting` is told once where another process is
    at it. Raises OSError where the disk does not take it. What is there by then stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, waiting):
        missing = [i for i, place in enumerate(places(folder, digests)) if place is None]
        unique = list({int(digests[i]): i for i in missing}.values())
        _remove_unbelieved(folder)
        with (
            _Writer(folder) as writer,
            ThreadPoolExecutor(max(1, threads)) as pool,
            counted(len(unique), what="Decoding images") as tell,
        ):
            for start in range(0, len(unique), _CHUNK):
                chunk = unique[start : start + _CHUNK]
                for i, pixels in zip(chunk, pool.map(decode, chunk), strict=True):
                    if pixels is not None:
                        writer.add(int(digests[i]), pixels)
                tell(start + len(chunk))
                if writer.written > most:
                    return False
    return True


@contextmanager
def _alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
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


def _remove_unbelieved(folder: Path) -> None:
    """Parts that nobody reads, of a build that was killed or damaged since; nobody else is building."""
    for path in {file.with_suffix(".npy") for file in folder.glob("part-*")}:
        if _part(path) is None:
            path.unlink(missing_ok=True)
            path.with_suffix(".bin").unlink(missing_ok=True)
    for path in folder.glob(".part-*"):
        path.unlink(missing_ok=True)


class _Writer:
    """Writes parts one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._path = folder
        self._offset = 0
        self.written = 0
        """Bytes of all parts."""
        self._rows: list[tuple[int, int, Sequence[int]]] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self._drop()
        else:  # what an interrupted build has decoded is good
            self._close()

    def add(self, digest: int, pixels: Pixels) -> None:
        """Write an image; raises OSError."""
        if self._file is None:
            self._path = self.folder / f"part-{secrets.token_hex(8)}.bin"
            self._file = self._path.open("xb")
            self._offset, self._rows = 0, []
        self._file.write(np.ascontiguousarray(pixels).data)
        self._rows.append((digest, self._offset, pixels.shape))
        self._offset += pixels.size
        self.written += pixels.size
        if self._offset >= PART_BYTES:
            self._close()

    def _close(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
            self._file.truncate(self._offset)  # an interrupt may have come between two lines
            os.fsync(self._file.fileno())
            self._file.close()
            rows = np.array(self._rows, dtype=_INDEX)
            write_with(self._path.with_suffix(".npy"), lambda temporary: _save(temporary, rows))
        except OSError:
            self._drop()
            raise
        self._file = None

    def _drop(self) -> None:
        if self._file is not None:
            os.truncate(self._path, 0)
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._file = None


def _save(path: Path, rows: npt.NDArray[np.void]) -> None:
    with path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
