"""Pairs of like hashes among many, found without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012): hashes of 64 bits that differ in at most 7 agree in one of
four bands of 16 bits but for one bit, so each is looked up under 17 keys in four tables. Most that differ in 8 to
11 bits are found as well, and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.audit.likeness import Codes
from headstart.progress import track

MOST_BITS = 11
"""Hashes that differ in more bits are no candidates."""
MOST_LOOKED = 200_000_000
"""Comparisons of two hashes; where so many are alike that more would be needed, each meets a part of the others."""
MOST_KEPT = 500_000
"""About how many pairs are handed on."""
_BANDS, _BITS = 4, 16
_SLICE = 8_000_000
_FLIPS = np.array([0, *(1 << bit for bit in range(_BITS))], dtype=np.uint64)
_MANY = 20_000


@dataclass(frozen=True)
class Candidates:
    """Pairs of places (m,), first < second, each pair once."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    complete: bool
    """Whether all were looked for; not where too many images look alike."""


@dataclass(frozen=True)
class _Table:
    """The index sorted by one band: `codes` turned so that the band comes first."""

    band: int
    order: npt.NDArray[np.int64]
    codes: Codes
    starts: npt.NDArray[np.int64]


def like_pairs(
    index: Codes, queries: Sequence[Codes], *, most_looked: int = MOST_LOOKED, most_kept: int = MOST_KEPT
) -> Candidates:
    """Pairs (i, j) of which a query's i-th hash differs from the index's j-th in at most 11 bits, i != j."""
    tables = [_table(index, band) for band in range(_BANDS)]
    window, complete = _window(tables, queries, most_looked=most_looked)
    found, parts = np.empty(0, dtype=np.int64), list[npt.NDArray[np.int64]]()
    steps = [(table, query, flip) for flip in _FLIPS for query in queries for table in tables]
    for table, query, flip in track(steps, total=len(steps), what="Comparing images", show=len(index) >= _MANY):
        for i, places in _looked_up(table, query, flip, window):
            j = table.order[places]
            near = (np.bitwise_count(query[i] ^ index[j]) <= MOST_BITS) & (i != j)
            i, j = i[near], j[near]
            parts.append(np.minimum(i, j) * len(index) + np.maximum(i, j))
        if sum(map(len, parts)) > most_kept:
            found, parts = _unique([found, *parts]), []
            if len(found) > most_kept:
                found, complete = _thinned(found, queries[0], index, most=most_kept // 2), False
    found = _unique([found, *parts])
    return Candidates(found // max(1, len(index)), found % max(1, len(index)), complete)


def _unique(parts: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Sorted, each once; NumPy's own way by hashing takes ten times as long for millions."""
    values = np.sort(np.concatenate(parts))
    return values[np.concatenate([[True], values[1:] != values[:-1]])] if len(values) else values


def _thinned(found: npt.NDArray[np.int64], query: Codes, index: Codes, *, most: int) -> npt.NDArray[np.int64]:
    """At most `most` pairs or one for each image: those with many partners keep the nearest of them."""
    first, second = np.divmod(found, len(index))
    order = np.lexsort((np.bitwise_count(query[first] ^ index[second]), first))
    counts = np.bincount(first)
    rank = np.empty(len(found), dtype=np.int64)
    rank[order] = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    partners = int(counts.max())
    while partners > 1 and int(np.minimum(counts, partners).sum()) > most:
        partners //= 2
    return found[rank < partners]


def _turned(codes: Codes, band: int) -> Codes:
    """With a band's bits at the top."""
    shift = np.uint64(_BITS * band)
    return (codes << shift) | (codes >> (np.uint64(64) - shift)) if band else codes


def _table(index: Codes, band: int) -> _Table:
    turned = _turned(index, band)
    order = np.argsort(turned, kind="stable")
    keys = (turned[order] >> np.uint64(64 - _BITS)).astype(np.int64)
    return _Table(band, order, turned[order], np.searchsorted(keys, np.arange(2**_BITS + 1)))


def _window(tables: Sequence[_Table], queries: Sequence[Codes], *, most_looked: int) -> tuple[int, bool]:
    """How many of a table's entries under one key are compared at most, and whether that is all of them."""
    sizes = np.zeros(len(tables[0].codes) + 1, dtype=np.int64)
    for table in tables:
        for query in queries:
            for flip in _FLIPS:
                keys = _keys(table, query, flip)
                sizes += np.bincount(table.starts[keys + 1] - table.starts[keys], minlength=len(sizes))
    largest = int(np.flatnonzero(sizes).max(initial=0))
    window = max(1, largest)
    lengths = np.arange(len(sizes))
    while window > 1 and int((sizes * np.minimum(lengths, window)).sum()) > most_looked:
        window //= 2
    return window, window >= largest


def _keys(table: _Table, query: Codes, flip: np.uint64) -> npt.NDArray[np.int64]:
    return ((_turned(query, table.band) >> np.uint64(64 - _BITS)) ^ flip).astype(np.int64)


def _looked_up(
    table: _Table, query: Codes, flip: np.uint64, window: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Places in the query, and places in the sorted table that have the key which each asks for, in slices."""
    keys = _keys(table, query, flip)
    begin, end = table.starts[keys], table.starts[keys + 1]
    if (crowded := np.flatnonzero(end - begin > window)).size:
        # those nearest in the order of the remaining bits
        wanted = _turned(query[crowded], table.band) ^ (flip << np.uint64(64 - _BITS))
        middle = np.searchsorted(table.codes, wanted) - window // 2
        begin[crowded] = np.clip(middle, begin[crowded], end[crowded] - window)
        end[crowded] = begin[crowded] + window
    counts = end - begin
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _SLICE, side="right")))
        some = counts[start:stop]
        if total := int(some.sum()):
            rows = np.repeat(np.arange(start, stop), some)
            offsets = np.arange(total) - np.repeat(np.cumsum(some) - some, some)
            yield rows, begin[rows] + offsets
        start = stop
