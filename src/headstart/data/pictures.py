"""Decoding, and bringing every image to the channels that the model sees."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError

from headstart.data.source import Picture
from headstart.errors import DataError

MAX_PIXELS = 178_956_970
"""Above this an image is taken for a decompression bomb; twice the limit at which Pillow warns."""

MAX_RATIO = 1_000
"""Longer side over shorter, at most: resized by its shorter side, a line would become a bomb."""

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

# a damaged EXIF block is as if it were not there; Pillow warns of it without a word of whose it is
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

_PNG = b"\x89PNG\r\n\x1a\n"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def open_picture(data: bytes) -> Image.Image:
    """Decode an image file's bytes; raises one of `BAD_IMAGE`."""
    image = identified(data)
    image.load()
    if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
        raise ValueError("some of its pixels are no finite numbers")
    return image


def check_picture(data: bytes) -> None:
    """Raise what `open_picture` would, and ValueError for a PNG whose pixels do not have the checksum they should.

    A JPEG is decoded at an eighth of its size: its data is read all the same.
    """
    if data.startswith(_PNG):
        _require_checksums(data)
    image = identified(data)
    if image.format != "JPEG":
        open_picture(data)
        return
    image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()


def is_of_fit_size(width: int, height: int) -> bool:
    """Whether an image of so many pixels may be decoded."""
    return 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_RATIO * min(width, height)


def identified(data: bytes) -> Image.Image:
    """An image whose pixels are still to be decoded; raises one of `BAD_IMAGE`."""
    if not data:
        raise ValueError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:  # Pillow's own words name a place in memory
        raise ValueError(f"cannot identify it as {', '.join(FORMATS)}") from error
    if not is_of_fit_size(image.width, image.height):
        what = "are too many" if image.width * image.height > MAX_PIXELS else "are a line and no picture"
        raise ValueError(f"{image.width} x {image.height} pixels {what}")
    return image


def _require_checksums(data: bytes) -> None:
    """Raise ValueError where a chunk that pixels depend on is not what was written; Pillow looks at few of them."""
    place = len(_PNG)
    while len(head := data[place : place + 8]) == 8:
        kind, end = head[4:], place + 8 + int.from_bytes(head[:4], "big")
        wanted = data[end : end + 4]
        # in lower case are notes, which any reader may pass over; a file that is cut off is said to be so later
        if (
            kind[:1].isupper()
            and len(wanted) == 4
            and zlib.crc32(data[place + 4 : end]) != int.from_bytes(wanted, "big")
        ):
            raise ValueError(f"its chunk {kind.decode('ascii', 'backslashreplace')} is damaged: wrong checksum")
        place = end + 4


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
    upright = _upright(picture)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    return upright if upright.mode == _MODES[channels] else upright.convert(_MODES[channels])


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""


def _upright(image: Image.Image) -> Image.Image:
    """As a person sees it. Pillow's own way writes the rest of EXIF anew, and fails where that is damaged."""
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """What EXIF says of how the camera was held: 1 for upright, to 8; 1 where it says nothing or is damaged."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # its readers raise of every kind
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


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
