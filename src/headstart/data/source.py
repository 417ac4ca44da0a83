"""The one interface behind every source of images."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.facts import Task

Picture = Image.Image | npt.NDArray[np.uint8]
"""A decoded image: PIL's, or an array (height, width, channels) where PIL has no mode for it."""


class Examples(Protocol):
    """Some labelled images. Ids are stable: they name an example on every machine and in every run."""

    @property
    def ids(self) -> Sequence[str]:
        """In the source's own order."""

    @property
    def targets(self) -> npt.NDArray[Any]:
        """(n,) int64 class indices, (n, classes) int64 of 0 and 1, or (n, numbers) float64 in their own units."""

    @property
    def encoded(self) -> bool:
        """Whether `content` is an image file's bytes."""

    def content(self, index: int) -> bytes:
        """The bytes that make this image what it is, for its fingerprint."""

    def image(self, index: int) -> Picture:
        """Decode it; raises OSError, ValueError or SyntaxError where that cannot be done."""

    def where(self, index: int) -> str:
        """Where a person finds this image."""


_BREAKS = ("Cc", "Zl", "Zp")
"""Kinds of signs that no name of a class has: control characters, ends of lines and paragraphs."""


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_line(name: str) -> bool:
    """Whether a name can be that of a class: a line of text, without what a terminal would obey."""
    return name.isprintable() or (is_text(name) and not any(unicodedata.category(sign) in _BREAKS for sign in name))


@dataclass
class Source:
    """What a source has: its classes, and examples under the names `train`, `val` and `test`.

    `train` is always there; what is missing of the others is taken from it. Of a binary task `class_names` are
    the negative class and the positive one; of a regression, the names of its numbers.
    """

    class_names: tuple[str, ...]
    task: Task
    splits: Mapping[str, Examples] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each split's examples, what may not be torn apart: a patient, a scene. Empty without such a thing."""


def file_of(examples: Examples, index: int) -> str | None:
    """Path of an example that is a file of its own; None for others."""
    file = getattr(examples, "file", None)
    found: str | None = file(index) if file is not None else None
    return found


def root_of(examples: Examples) -> str | None:
    """The folder that ids of files are relative to; None for examples that are no files."""
    found: str | None = getattr(examples, "root", None)
    return found
