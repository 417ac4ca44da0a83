"""Rows of numbers under 64-bit keys: on disk for every run, or in memory for this one where the disk takes none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from headstart.caches import ABOUT, NoRoom, make_room, mark_used
from headstart.data.draws import Keys
from headstart.data.parts import PartWriter, alone, read_parts, remove_unbelieved
from headstart.records.atomic import write_json

Indices = npt.NDArray[np.int64]
Rows = npt.NDArray[np.floating]
"""(n, width)."""
Compute = Callable[[Indices], Iterator[tuple[Indices, Rows]]]
"""From places of keys that are missing to their rows, some at a time: which of these places, and (n, width)."""


def to_stderr(text: str) -> None:
    """A line for the person."""
    print(text, file=sys.stderr, flush=True)


class TooLarge(Exception):
    """The disk takes no more rows, and memory would hold more of them than was allowed; the message says it."""


class RowStore:
    """The rows of one folder, all of one width."""

    def __init__(
        self,
        folder: Path | None,
        *,
        dtype: npt.DTypeLike,
        about: Mapping[str, str],
        limit: int,
        in_memory: int | None = None,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        """`folder` None: in memory alone. `limit`: bytes that all folders beside this one may take with it.

        `in_memory`: the most bytes that are held in memory where the disk does not take them, None for any number.
        """
        self.folder = folder
        self.dtype = np.dtype(dtype)
        self.about = dict(about)
        self.limit = limit
        self.in_memory = in_memory
        self.say = say
        self._writes = folder is not None
        self._in_memory: list[tuple[Keys, Rows]] = []
        self._parts: list[tuple[Keys, Rows]] = []
        self._mapped: list[tuple[Keys, Rows]] = []
        """Those of the parts that lie, or lay, on disk."""
        self._keys = np.empty(0, dtype=np.uint64)
        self._where = np.empty((0, 2), dtype=np.int64)
        self._look()

    @property
    def is_kept(self) -> bool:
        """Whether all its rows lie on disk."""
        return self.folder is not None and not self._in_memory

    @property
    def width(self) -> int:
        """Numbers of a row; 0 where there is none yet."""
        return self._parts[0][1].shape[1] if self._parts else 0

    def missing(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """(n,) which of them have no row."""
        return self._find(keys) < 0

    def read(self, keys: Keys) -> Rows:
        """(n, width) their rows, copied; raises KeyError where one is missing."""
        found = self._find(keys)
        if bool((found < 0).any()):
            raise KeyError(int(keys[found < 0][0]))
        parts, rows = self._where[found].T
        out = np.empty((len(keys), self.width), dtype=self.dtype)
        for part in np.unique(parts):
            here = parts == part
            out[here] = self._parts[part][1][rows[here]]
        return out

    def fill(self, keys: Keys, compute: Compute) -> int:
        """Let `compute` make the rows that are missing; returns how many.

        One process at a time does so, others wait and find what it made. What the disk does not take is said, and
        stays in memory; raises TooLarge where it may not.
        """
        if not self.missing(keys).any():
            self._mark_used()
            return 0
        with ExitStack() as stack:
            try:
                if self.folder is not None and self._writes:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(alone(self.folder, self._waits))
                    remove_unbelieved(self.folder)
                    if not (self.folder / ABOUT).exists():
                        write_json(self.folder / ABOUT, self.about)
            except OSError as error:
                self.give_up(error)
            self._look()
            wanted = np.flatnonzero(self.missing(keys))
            wanted = wanted[np.unique(keys[wanted], return_index=True)[1]]
            wanted.sort()
            if len(wanted):
                with _Keeper(self, count=len(wanted)) as keeper:
                    for places, rows in compute(wanted):
                        keeper.take(keys[places], rows)
            self._look()
        self._mark_used()
        return len(wanted)

    def hold(self, rows: list[tuple[Keys, Rows]]) -> None:
        """Keep rows in memory; raises TooLarge."""
        self._in_memory += rows
        self.check_memory([])

    def check_memory(self, more: list[tuple[Keys, Rows]]) -> None:
        """Raise TooLarge where memory may not hold `more` as well."""
        size = sum(rows.nbytes for _, rows in (*self._in_memory, *more))
        if self.in_memory is not None and size > self.in_memory:
            raise TooLarge(f"memory would hold more than {self.in_memory / 2**30:g} GiB of them")

    def give_up(self, error: OSError) -> None:
        """Write no more, and say why."""
        self.say(
            f"{self.folder}: the cache of features cannot be written ({error.strerror or error}); they are kept in "
            "memory for this run."
        )
        self._writes = False

    def writer(self, needed: int) -> PartWriter | None:
        """What puts `needed` bytes on disk; None where there is no room, which is said, or none is to be used."""
        if self.folder is None or not self._writes:
            return None
        try:
            make_room(self.folder, needed=needed, limit=self.limit)
        except NoRoom as lack:
            allowed = f"features.cache_gb={self.limit / 1e9:g}"
            lacks = {
                "limit": f"{allowed}: the features would take {lack.size / 1e9:.1f} GB",
                "busy": f"{allowed}: the cache is full of features that others are computing",
                "disk": f"{self.folder.parent}: has no room for {needed / 1e9:.1f} GB of features",
            }
            self.say(f"{lacks[lack.reason]}; they are kept in memory for this run.")
            return None
        except OSError as error:
            self.give_up(error)
            return None
        return PartWriter(self.folder)

    def _waits(self) -> None:
        self.say("Waiting for another process that computes the same features ...")

    def _mark_used(self) -> None:
        if self.folder is not None:
            mark_used(self.folder)

    def _on_disk(self) -> Iterator[tuple[Keys, Rows]]:
        width = 0
        for index, held in read_parts(self.folder) if self.folder is not None else ():
            size = int(index["shape"][0, 2])
            whole = np.arange(len(index), dtype=np.uint64) * np.uint64(size)
            of_rows = (index["shape"] == (1, 1, size)).all() and (index["offset"] == whole).all()
            if of_rows and size and size % self.dtype.itemsize == 0 and size == (width or size):
                width = size
                yield index["digest"], held.view(self.dtype).reshape(len(index), -1)

    def _look(self) -> None:
        """See what is there now."""
        now = list(self._on_disk())
        there = np.concatenate([keys for keys, _ in now]) if now else np.empty(0, dtype=np.uint64)
        # files that were removed since are still mapped
        self._mapped = now + [part for part in self._mapped if not np.isin(part[0], there).all()]
        self._parts = [*self._mapped, *self._in_memory]
        if not self._parts:
            return
        keys = np.concatenate([keys for keys, _ in self._parts])
        parts = np.repeat(np.arange(len(self._parts)), [len(keys) for keys, _ in self._parts])
        rows = np.concatenate([np.arange(len(keys)) for keys, _ in self._parts])
        order = np.argsort(keys, kind="stable")
        self._keys, self._where = keys[order], np.stack([parts, rows], axis=1)[order]

    def _find(self, keys: Keys) -> Indices:
        """(n,) the place of each among the sorted ones, -1 where it is missing."""
        if not len(self._keys):
            return np.full(len(keys), -1, dtype=np.int64)
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where(self._keys[places] == keys, places, -1)


class _Keeper:
    """Takes rows as they come: to the disk while that takes them, then to memory."""

    def __init__(self, store: RowStore, *, count: int) -> None:
        self.store = store
        self.count = count
        self._writer: PartWriter | None = None
        self._begun = False
        self._unsafe: list[tuple[Keys, Rows]] = []
        """What would be lost with the part that is open."""

    def __enter__(self) -> _Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()  # what an interrupted run has computed is good
                return
        except OSError as trouble:
            self._fall_back(trouble)
        if error is None:
            self.store.hold(self._unsafe)

    def take(self, keys: Keys, rows: Rows) -> None:
        """Keep rows (n, width) under `keys`."""
        rows = np.ascontiguousarray(rows, dtype=self.store.dtype)
        if not self._begun:
            self._begun, self._writer = True, self.store.writer(self.count * rows[0].nbytes)
        self._unsafe.append((keys, rows))
        if self._writer is None:
            self.store.check_memory(self._unsafe)
            return
        try:
            for key, row in zip(keys.tolist(), rows.view(np.uint8), strict=True):
                self._writer.add(key, row)
        except OSError as error:
            self._fall_back(error)
            return
        if self._writer.is_safe:
            self._unsafe = []

    def _fall_back(self, error: OSError) -> None:
        with suppress(OSError):
            if self._writer is not None:
                self._writer.drop()
        self._writer = None
        self.store.give_up(error)
