"""Some examples of a source: a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.source import Examples, Picture, file_of
from headstart.errors import DataError


@dataclass(frozen=True)
class Split:
    """Some examples of a source."""

    examples: Examples
    indices: npt.NDArray[np.int64]

    @property
    def ids(self) -> list[str]:
        """Stable ids, in order."""
        return [self.examples.ids[i] for i in self.indices]

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Their targets, in order."""
        return self.examples.targets[self.indices]

    def image(self, position: int, digest: int | None) -> Picture:
        """Decode the image at a position; `digest`: first eight bytes of the SHA-256 of its content, where known.

        Raises what decoding does, and DataError where it is a file that has other content by now.
        """
        (examples, index), *_ = Split(self.examples, self.indices[position : position + 1]).places()
        picture = examples.image(index)
        if digest is not None and file_of(examples, index) is not None:
            found = hashlib.sha256(examples.content(index)).digest()
            if int.from_bytes(found[:8], "big") != digest:
                raise DataError(
                    f"{examples.where(index)}: was changed after it was checked; start again once nothing "
                    "writes to the data."
                )
        return picture

    @property
    def source_indices(self) -> npt.NDArray[np.int64]:
        """The index of each in the source's own examples: the same in every subset."""
        if not isinstance(self.examples, _Joined):
            return self.indices
        return np.array([index for _, index in self.places()], dtype=np.int64)

    def places(self) -> Iterator[tuple[Examples, int]]:
        """The source's own examples, and the index there of each of these."""
        for index in self.indices:
            examples, place = self.examples, int(index)
            yield examples.at(place) if isinstance(examples, _Joined) else (examples, place)


class _Joined:
    """The examples of two sources, one after the other."""

    def __init__(self, first: Examples, second: Examples) -> None:
        self._parts = (first, second)
        self._length = len(first.ids)
        self.ids = [*first.ids, *second.ids]
        self.targets = np.concatenate([first.targets, second.targets])

    def at(self, index: int) -> tuple[Examples, int]:
        """The source's own examples that an example comes from, and its index there."""
        first, second = self._parts
        part, place = (first, index) if index < self._length else (second, index - self._length)
        return part.at(place) if isinstance(part, _Joined) else (part, place)

    def image(self, index: int) -> Picture:
        part, place = self.at(index)
        return part.image(place)

    def where(self, index: int) -> str:
        part, place = self.at(index)
        return part.where(place)


def joined(first: Split, second: Split) -> Split:
    """The examples of both."""
    if first.examples is second.examples:
        return Split(first.examples, np.sort(np.concatenate([first.indices, second.indices])))
    examples = _Joined(first.examples, second.examples)
    return Split(examples, np.concatenate([first.indices, second.indices + len(first.examples.ids)]))  # type: ignore[arg-type]
