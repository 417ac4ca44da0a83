"""Image files below one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

from headstart.data.pictures import open_picture


class FileExamples:
    """Image files; ids are their paths relative to the data's own folder `root`, with `/` between the parts."""

    encoded = True

    def __init__(self, root: str, ids: Sequence[str], targets: npt.NDArray[Any]) -> None:
        self.root = root
        self.ids = ids
        self.targets = targets

    def file(self, index: int) -> str:
        """Path of this image."""
        return os.path.join(self.root, self.ids[index])  # noqa: PTH118 - a Path for each costs seconds

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return Path(self.file(index)).read_bytes()

    def image(self, index: int) -> Image.Image:
        """The decoded file."""
        return open_picture(self.content(index))

    def where(self, index: int) -> str:
        """Its path."""
        return self.file(index)
