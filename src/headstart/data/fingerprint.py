"""The data's identity, and the search for images that cannot be decoded: one pass over all content."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.digests import Digests, stamp_of
from headstart.data.pictures import BAD_IMAGE
from headstart.data.sound_jpeg import check_content
from headstart.data.source import Examples, Source, file_of, root_of
from headstart.errors import DataError
from headstart.printable import printable
from headstart.progress import track

_MANY = 5_000
"""From here on a pass over the data is worth a progress bar."""
_CHUNK = 64
"""Images that a thread takes at once."""


@dataclass(frozen=True)
class Scan:
    """What one pass over all content found."""

    fingerprint: str
    """SHA-256 over the sorted split, id, label, content and group of each example that can be used."""
    usable: dict[str, list[int]]
    """Indices of the examples that can be used, per split of the source."""
    digests: dict[str, npt.NDArray[np.uint64]]
    """First eight bytes of the SHA-256 of each of their contents, in the same order."""
    skipped: tuple[str, ...]
    """Where the others are."""


def scan(source: Source, *, threads: int, on_bad_image: str, fresh: bool = False, groups: bool = False) -> Scan:
    """Hash every image and try to decode it; files that were read before and are unchanged since only if `fresh`.

    With `groups` the source's groups are part of what the data is: they do not follow from the ids.
    Raises DataError at the first image that cannot be decoded, unless `on_bad_image` is `skip`.
    """
    lines: list[str] = []
    usable: dict[str, list[int]] = {}
    digests: dict[str, npt.NDArray[np.uint64]] = {}
    skipped: list[str] = []
    known: dict[str, Digests] = {}
    try:
        for split, examples in source.splits.items():
            root = root_of(examples)
            if root is not None and root not in known:
                known[root] = Digests(root)
            look = _Look(examples, known[root] if root is not None else None, fresh=fresh)
            usable[split] = []
            starts = bytearray()
            with closing(_looked(look, split=split, threads=threads)) as looked:
                for i, (digest, problem) in enumerate(looked):
                    if problem and on_bad_image == "error":
                        where = printable(examples.where(i)).replace("\n", "\\n")
                        raise DataError(
                            f"{where}: cannot be decoded ({problem}); mend or remove it, or set "
                            "data.on_bad_image=skip."
                        )
                    if problem:
                        skipped.append(examples.where(i))
                        continue
                    usable[split].append(i)
                    starts += digest[:8]
                    label = examples.targets[i].tolist()
                    group = f"\0{source.groups[split][i]}" if groups and split in source.groups else ""
                    lines.append(f"{split}\0{examples.ids[i]}\0{label}\0{digest.hex()}{group}")
            digests[split] = np.frombuffer(starts, dtype=">u8").astype(np.uint64)
    finally:  # what was read need not be read again once the bad image is mended
        for one in known.values():
            one.save()
    lines.sort()
    return Scan(_digest([*source.class_names, *lines]), usable, digests, tuple(skipped))


def _looked(look: _Look, *, split: str, threads: int) -> Generator[tuple[bytes, str]]:
    """What is found of each example, in order; chunk by chunk, as a task for each would cost more than its work."""
    count = len(look.examples.ids)
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        found = itertools.chain.from_iterable(pool.map(look, chunks))
        yield from track(found, total=count, what=f"Reading {split} images", show=count >= _MANY)
    finally:
        pool.shutdown(cancel_futures=True)


def order_fingerprint(ids: Sequence[str], order: Iterable[int]) -> str:
    """SHA-256 hex digest over ids in an order of their places."""
    return _digest(ids[place] for place in order)


def split_fingerprint(splits: dict[str, Sequence[str]]) -> str:
    """SHA-256 hex digest over which id is in which split."""
    return _digest(sorted(f"{split}\0{name}" for split, ids in splits.items() for name in ids))


class _Look:
    """Digests of some examples' contents, and why each cannot be decoded, if so."""

    def __init__(self, examples: Examples, known: Digests | None, *, fresh: bool) -> None:
        self.examples = examples
        self.known = known
        self.fresh = fresh

    def __call__(self, indices: Sequence[int]) -> list[tuple[bytes, str]]:
        return [self._one(index) for index in indices]

    def _one(self, index: int) -> tuple[bytes, str]:
        file = file_of(self.examples, index) if self.known is not None else None
        if file is None or self.known is None:
            return self._read(index)
        name = self.examples.ids[index]
        try:
            stamp = stamp_of(file)
        except OSError as error:
            return b"", _said(error)
        found = None if self.fresh else self.known.get(name, stamp)
        if found is None:
            found = self._read(index)
            if found[0]:  # what could not be read may be the next time
                self.known.put(name, stamp, *found)
        return found

    def _read(self, index: int) -> tuple[bytes, str]:
        try:
            content = self.examples.content(index)
        except BAD_IMAGE as error:
            return b"", _said(error)
        digest = hashlib.sha256(content).digest()
        try:
            if self.examples.encoded:  # the bytes are at hand
                check_content(content)
            else:
                self.examples.image(index)
        except (MemoryError, RuntimeError) as error:  # of this moment, and not of the image
            return b"", _said(error)
        except BAD_IMAGE as error:
            of_system = isinstance(error, OSError) and error.errno is not None
            return b"" if of_system else digest, _said(error)
        return digest, ""


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
