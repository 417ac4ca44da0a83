"""Decoding, and bringing every image to the channels that the model sees."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps

from headstart.data.source import Picture
from headstart.errors import DataError

MAX_PIXELS = 178_956_970
"""Above this an image is taken for a decompression bomb; twice the limit at which Pillow warns."""

BAD_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    Image.DecompressionBombError,
    MemoryError,
    IndexError,
)
"""What decoding a broken image raises."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def open_picture(data: bytes) -> Image.Image:
    """Decode an image file's bytes; raises one of `BAD_IMAGE`."""
    image = Image.open(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are too many")
    image.load()
    return image


def check_picture(data: bytes) -> None:
    """Raise what `open_picture` would, decoding a JPEG at an eighth of its size: its data is read all the same."""
    image = Image.open(io.BytesIO(data))
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


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 and more bits, scaled: Pillow's own conversion would clip them to white."""
    levels = np.asarray(image).astype(np.float64)
    top = 65535.0 if image.mode.startswith("I") and levels.max(initial=0) > 255 else max(levels.max(initial=0), 1.0)
    return Image.fromarray(np.rint(np.clip(levels / top, 0, 1) * 255).astype(np.uint8))
