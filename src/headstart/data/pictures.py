"""Decoding, and bringing every image to the channels that the model sees."""

from __future__ import annotations

import io
import struct

import numpy as np
import torch
from PIL import Image, ImageOps

from headstart.data.source import Picture
from headstart.errors import DataError

MAX_PIXELS = 178_956_970
"""Above this an image is taken for a decompression bomb; twice the limit at which Pillow warns."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is decoded; a file's content decides, and some of Pillow's other formats start programs."""

BAD_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    RuntimeError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
)
"""What decoding a broken image raises."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def open_picture(data: bytes) -> Image.Image:
    """Decode an image file's bytes; raises one of `BAD_IMAGE`."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    image.load()
    return image


def check_picture(data: bytes) -> None:
    """Raise what `open_picture` would, decoding a JPEG at an eighth of its size: its data is read all the same."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    if image.format == "JPEG":
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()


def as_channels(picture: Picture, channels: int) -> Image.Image | torch.Tensor:
    """Bring a decoded image to `channels`, upright: a PIL image, or a uint8 tensor (channels, height, width).

    Raises DataError where there is no way from the channels it has.
    """
    if isinstance(picture, np.ndarray):
        array = picture[:, :, None] if picture.ndim == 2 else picture
        if array.shape[2] not in _MODES or channels not in _MODES:
            if array.shape[2] != channels:
                raise DataError(f"data.channels={channels}: the images have {array.shape[2]} channels.")
            return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
        picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if channels not in _MODES:
        have = len(picture.getbands())
        raise DataError(f"data.channels={channels}: the images have {have} channels; 1, 3 and 4 can be made.")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    return upright if upright.mode == _MODES[channels] else upright.convert(_MODES[channels])


def thumbnail(picture: Picture, *, side: int) -> bytes:
    """A small picture for people: at most `side` pixels wide and high, JPEG, or PNG where it was as small before.

    Raises DataError where the image has other channels than grey, colour, or colour and opacity.
    """
    image = as_channels(picture, 3)
    assert isinstance(image, Image.Image)
    small = max(image.size) <= side
    if not small:
        image.thumbnail((side, side))
    target = io.BytesIO()
    image.save(target, "PNG" if small else "JPEG", **({} if small else {"quality": 82}))
    return target.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels of other depths, scaled: Pillow's own conversion would clip them to white.

    16 bits are scaled by their full range. Whole numbers of 32 bits count as 8 bits where none is above 255,
    else as 16; fractions as shares of white where none is above 1, else as 8 bits.
    """
    levels = np.asarray(image).astype(np.float64)
    highest = levels.max(initial=0)
    if image.mode.startswith("I;16"):
        top = 65535.0
    elif image.mode == "F":
        top = 1.0 if highest <= 1 else 255.0
    else:
        top = 255.0 if highest <= 255 else 65535.0
    return Image.fromarray(np.rint(np.clip(levels / top, 0, 1) * 255).astype(np.uint8))
