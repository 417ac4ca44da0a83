"""Decoded images on disk: each is decoded once, by whichever run is first, and read from memory maps after that.

A folder per (data fingerprint, form) holds them in parts (data/parts.py), under the digests of their content.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data.forms import Pixels
from headstart.data.parts import PartWriter, alone, read_parts, remove_unbelieved
from headstart.progress import counted

ShortDigests = npt.NDArray[np.uint64]
"""First eight bytes of the SHA-256 of each image's content."""

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
    for rows, pixels in read_parts(folder):
        for digest, offset, shape in zip(
            rows["digest"].tolist(), rows["offset"].tolist(), rows["shape"].tolist(), strict=True
        ):
            if digest in wanted:
                found[digest] = Place(pixels, offset, (shape[0], shape[1], shape[2]))
    return [found.get(int(digest)) for digest in digests]


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
    with alone(folder, waiting):
        missing = [i for i, place in enumerate(places(folder, digests)) if place is None]
        unique = list({int(digests[i]): i for i in missing}.values())
        remove_unbelieved(folder)
        with (
            PartWriter(folder) as writer,
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
