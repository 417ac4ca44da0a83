"""Image files that are not what their names say, or what anybody expects: bytes, made on the spot."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

RED = (200, 30, 30)
SIDE = 16


def plain(mode: str = "RGB", colour: Any = RED, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An image of one colour."""
    return Image.new(mode, size, colour)


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """An image whose file is long enough to be damaged in its middle."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of its file."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def cut(kind: str, *, kept: float = 0.5) -> bytes:
    """The first part of a file."""
    content = saved(noise(), kind)
    return content[: int(len(content) * kept)]


def spoiled(content: bytes, what: bytes, *, at: float = 0.6) -> bytes:
    """A file with other bytes somewhere in it."""
    place = int(len(content) * at)
    return content[:place] + what + content[place + len(what) :]


def chunk(kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    """A chunk of a PNG file."""
    return (
        struct.pack(">I", len(body))
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)
    )


def png(width: int, height: int, *more: bytes, crc: int | None = None, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file that says it is this large and has a kilobyte of zeros for pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)), crc=crc)
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with a comment that would grow to 64 MB."""
    return png(8, 8, chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2**26), 9)))


def profile_bomb() -> bytes:
    """A PNG with a colour profile that would grow to 64 MB."""
    return png(8, 8, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26), 9)))


def wide_gif() -> bytes:
    """A GIF whose canvas is 65,535 pixels wide and high."""
    return b"GIF89a" + struct.pack("<HH", 65535, 65535) + saved(plain("P", 1), "GIF")[10:]


def wide_bmp() -> bytes:
    """A BMP that says it is 60,000 pixels wide and high."""
    content = saved(plain(), "BMP")
    return content[:18] + struct.pack("<ii", 60_000, 60_000) + content[26:]


def tiff_of(width: int, height: int) -> bytes:
    """A TIFF file that says it is this large, and is not."""
    content = saved(plain(), "TIFF")
    for tag, size in ((256, width), (257, height)):
        old = struct.pack("<HHIHH", tag, 3, 1, SIDE, 0)
        assert old in content or struct.pack("<HHII", tag, 4, 1, SIDE) in content
        content = content.replace(old, struct.pack("<HHII", tag, 4, 1, size))
        content = content.replace(struct.pack("<HHII", tag, 4, 1, SIDE), struct.pack("<HHII", tag, 4, 1, size))
    return content


def exif(raw: bytes) -> bytes:
    """A red JPEG with this for its EXIF block."""
    return saved(plain(), "JPEG", exif=b"Exif\0\0" + raw, quality=95)


def turned(value: int, *, kind: int = 3, count: int = 1) -> bytes:
    """A red JPEG that says how it is to be turned: a short, or a value of another kind."""
    entry = struct.pack("<HHII", 0x0112, kind, count, value)
    return exif(b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0))


def looping_exif() -> bytes:
    """EXIF whose directory points at itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return exif(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8))


def floats(values: Sequence[float]) -> bytes:
    """A TIFF of fractions, one per column."""
    return saved(Image.fromarray(np.tile(np.array(values, dtype=np.float32), (SIDE, 1))), "TIFF")


def frames(kind: str, **options: Any) -> bytes:
    """Two pictures in one file: a red one, and a blue one after it."""
    return saved(plain(), kind, save_all=True, append_images=[plain(colour=(0, 0, 250))], **options)


def see_through() -> bytes:
    """A palette with a colour that is not to be seen."""
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0, *RED])
    return saved(image, "PNG", transparency=0)


def twelve_bits() -> bytes:
    """A grey TIFF of 12 bits in 16."""
    return saved(Image.fromarray(np.full((SIDE, SIDE), 2048, dtype=np.uint16)), "TIFF")


def lab() -> bytes:
    """A TIFF of colours as L*a*b*."""
    return saved(Image.new("LAB", (SIDE, SIDE), (128, 128, 128)), "TIFF")


def bad_profile() -> bytes:
    """A JPEG whose colour profile is nonsense."""
    return saved(plain(), "JPEG", icc_profile=b"\x00nonsense" * 20, quality=95)


def tagged_tiff(tag: int, value: Any) -> bytes:
    """A red TIFF with one more tag."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    return saved(plain(), "TIFF", tiffinfo=tags)


def commented() -> bytes:
    """A PNG whose comment would run in a terminal."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "\x1b[2J<script>")
    return saved(plain(), "PNG", pnginfo=info)


def pickled() -> bytes:
    """A pickle."""
    return pickle.dumps({"image": [1, 2, 3]})
