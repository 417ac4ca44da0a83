"""What kind of files the images are: sizes, formats, modes, and those that are unlike the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image

from headstart.audit.look import Looks

LONG = 4.0
"""A picture this many times as wide as it is high, or as high as wide, is odd."""
UNLIKE = 16.0
"""As is one with this many times the pixels of the median, or the part."""
_SAME = {"MPO": "JPEG"}  # a JPEG with further pictures behind the first


@dataclass(frozen=True)
class Range:
    """Of a number of pixels over all images."""

    least: int
    median: float
    most: int


@dataclass(frozen=True)
class OddImage:
    """An image that is worth a look, and why."""

    id: str
    why: str


@dataclass(frozen=True)
class ImageFacts:
    """What all readable images have in common, and what they have not."""

    width: Range | None
    height: Range | None
    formats: dict[str, int]
    """Format as Pillow names it -> images, most first; empty where the source has no image files."""
    modes: dict[str, int]
    traits: dict[str, int]
    odd: tuple[OddImage, ...]
    """By shape or size."""
    small: int
    """Images narrower or lower than what the model takes: they are enlarged."""
    smallest: tuple[str, int, int] | None
    """Id, width and height of the one with the fewest pixels."""
    misnamed: tuple[OddImage, ...]
    """Files whose suffix names another format."""


def describe_images(
    looks: Looks, *, size: tuple[int, int], id_of: Callable[[int], str], name_of: Callable[[int], str]
) -> ImageFacts:
    """`size` is (height, width) of what the model takes; `name_of` gives a file's name, else an empty text."""
    readable = [n for n in range(len(looks)) if n not in looks.problems]
    if not readable:
        return ImageFacts(None, None, {}, {}, {}, (), 0, None, ())
    width, height = looks.sizes[readable].astype(np.int64).T
    pixels = width * height
    least = int(pixels.argmin())
    median = float(np.median(pixels))
    odd = [
        OddImage(id_of(readable[i]), f"{width[i]} x {height[i]}")
        for i in np.flatnonzero(
            (np.maximum(width, height) > LONG * np.minimum(width, height))
            | (pixels > UNLIKE * median)
            | (pixels * UNLIKE < median)
        )
    ]
    return ImageFacts(
        width=_range(width),
        height=_range(height),
        formats=_counted([looks.formats[n] for n in readable if looks.formats[n]]),
        modes=_counted([looks.modes[n] for n in readable]),
        traits={trait: len(found) for trait, found in sorted(looks.traits.items())},
        odd=tuple(odd),
        small=int(((height < size[0]) | (width < size[1])).sum()),
        smallest=(id_of(readable[least]), int(width[least]), int(height[least])),
        misnamed=tuple(
            OddImage(id_of(n), looks.formats[n]) for n in readable if _misnamed(name_of(n), looks.formats[n])
        ),
    )


def _range(values: np.ndarray) -> Range:
    return Range(int(values.min()), float(np.median(values)), int(values.max()))


def _counted(values: Sequence[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _misnamed(name: str, form: str) -> bool:
    said = Image.registered_extensions().get(PurePath(name).suffix.lower()) if name and form else None
    return said is not None and _SAME.get(said, said) != _SAME.get(form, form)
