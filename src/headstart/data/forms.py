"""What an image is brought to once, before anything random: the same bits every time, so it can be kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import PIL
import timm
import torch
import torchvision
from PIL import Image, features
from torchvision.transforms.v2 import functional as F

from headstart.data.pictures import as_channels
from headstart.data.source import Picture
from headstart.data.transforms import Geometry, evaluation, interpolation_mode, whole
from headstart.facts import InputSpec

Pixels = npt.NDArray[np.uint8]

_VERSION = 1
"""Raised when the same image comes out with other bits."""


@dataclass(frozen=True)
class Finished:
    """As the model is evaluated on it: (channels, height, width)."""

    spec: InputSpec
    channels: int
    squashed: bool = False
    """Resized to the size itself, without a crop."""

    def __str__(self) -> str:
        height, width = self.spec.size
        return f"as evaluated at {width} x {height}"

    @cached_property
    def geometry(self) -> Geometry:
        """PIL image or uint8 tensor -> uint8 (channels, height, width)."""
        return whole(self.spec, self.spec.size) if self.squashed else evaluation(self.spec)

    def __call__(self, picture: Picture) -> Pixels:
        """Raises DataError where there is no way to the channels, and what decoding does."""
        # another order in memory would have batches in it, and convolutions of other last bits
        return np.ascontiguousarray(self.geometry(as_channels(picture, self.channels)).numpy())


@dataclass(frozen=True)
class Shrunk:
    """For random crops: (height, width, channels), its shorter side at most `side` pixels, never enlarged."""

    side: int
    interpolation: str
    channels: int

    def __str__(self) -> str:
        return f"for random crops, shorter side at most {self.side}"

    def __call__(self, picture: Picture) -> Pixels:
        """Raises DataError where there is no way to the channels, and what decoding does."""
        image = as_channels(picture, self.channels)
        height, width = F.get_size(image)
        if min(height, width) > self.side:
            mode = interpolation_mode(self.interpolation)
            image = F.resize(image, [self.side], interpolation=mode, antialias=True)
        return _rows(image)


@dataclass(frozen=True)
class Squashed:
    """For crops of one size: resized to `size` whatever its shape, (height, width, channels)."""

    size: tuple[int, int]
    interpolation: str
    channels: int

    def __str__(self) -> str:
        return f"squashed to {self.size[1]} x {self.size[0]}"

    def __call__(self, picture: Picture) -> Pixels:
        """Raises DataError where there is no way to the channels, and what decoding does."""
        image = as_channels(picture, self.channels)
        mode = interpolation_mode(self.interpolation)
        return _rows(F.resize(image, list(self.size), interpolation=mode, antialias=True))


Form = Finished | Shrunk | Squashed


def form_key(form: Form) -> str:
    """SHA-256 hex digest of all that decides the bits: the form, and the versions of the libraries that make it."""
    made_by = {"timm": timm.__version__, "torch": torch.__version__, "Pillow": PIL.__version__}
    made_by |= {name: str(features.version(name)) for name in ("jpg", "libjpeg_turbo", "zlib", "webp", "libtiff")}
    text = f"{_VERSION} {form!r} {made_by} {torchvision.__version__}"
    return hashlib.sha256(text.encode()).hexdigest()


def _rows(image: Image.Image | torch.Tensor) -> Pixels:
    if isinstance(image, torch.Tensor):
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    array = np.array(image)  # Pillow's own memory is read-only
    return array[:, :, None] if array.ndim == 2 else array
