"""The data's identity, and the search for images that cannot be decoded: one pass over all content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.pictures import BAD_IMAGE, check_picture
from headstart.data.source import Examples, Source
from headstart.errors import DataError
from headstart.progress import track

_MANY = 5_000
"""From here on a pass over the data is worth a progress bar."""


@dataclass(frozen=True)
class Scan:
    """What one pass over all content found."""

    fingerprint: str
    """SHA-256 over the sorted split, id, label and content of each example that can be used."""
    usable: dict[str, list[int]]
    """Indices of the examples that can be used, per split of the source."""
    digests: dict[str, npt.NDArray[np.uint64]]
    """First eight bytes of the SHA-256 of each of their contents, in the same order."""
    skipped: tuple[str, ...]
    """Where the others are."""


def scan(source: Source, *, threads: int, on_bad_image: str) -> Scan:
    """Hash every image and try to decode it.

    Raises DataError at the first image that cannot be decoded, unless `on_bad_image` is `skip`.
    """
    lines: list[str] = []
    usable: dict[str, list[int]] = {}
    digests: dict[str, npt.NDArray[np.uint64]] = {}
    skipped: list[str] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for split, examples in source.splits.items():
            count = len(examples.ids)
            results: Iterable[tuple[str, str]] = pool.map(_Look(examples), range(count), chunksize=16)
            usable[split] = []
            starts = []
            for i, (digest, problem) in enumerate(
                track(results, total=count, what=f"Reading {split} images", show=count >= _MANY)
            ):
                if problem:
                    if on_bad_image == "error":
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise DataError(
                            f"{examples.where(i)}: cannot be decoded ({problem}); mend or remove it, or set "
                            "data.on_bad_image=skip."
                        )
                    skipped.append(examples.where(i))
                    continue
                usable[split].append(i)
                starts.append(int(digest[:16], 16))
                label = examples.targets[i].tolist()
                lines.append(f"{split}\0{examples.ids[i]}\0{label}\0{digest}")
            digests[split] = np.array(starts, dtype=np.uint64)
    return Scan(_digest([*source.class_names, *sorted(lines)]), usable, digests, tuple(skipped))


def order_fingerprint(ids: Sequence[str], order: Iterable[int]) -> str:
    """SHA-256 hex digest over ids in an order of their places."""
    return _digest(ids[place] for place in order)


def split_fingerprint(splits: dict[str, Sequence[str]]) -> str:
    """SHA-256 hex digest over which id is in which split."""
    return _digest(sorted(f"{split}\0{name}" for split, ids in splits.items() for name in ids))


class _Look:
    """Digest of one example's content, and why it cannot be decoded, if so."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __call__(self, index: int) -> tuple[str, str]:
        try:
            content = self.examples.content(index)
            if self.examples.encoded:  # the bytes are at hand
                check_picture(content)
            else:
                self.examples.image(index)
        except BAD_IMAGE as error:
            return "", " ".join(str(error).split())[:200] or type(error).__name__
        return hashlib.sha256(content).hexdigest(), ""


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
