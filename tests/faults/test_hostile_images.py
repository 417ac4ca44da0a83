"""Image files that are broken, bombs, or something else: each is named, skipped on request, or decoded as documented."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.faults.hostile_input import ids_of, loaded, refused, small_photos, untouched
from tests.faults.strange_images import (
    RED,
    bad_profile,
    chunk,
    commented,
    cut,
    exif,
    floats,
    frames,
    lab,
    looping_exif,
    noise,
    pickled,
    plain,
    png,
    profile_bomb,
    saved,
    see_through,
    spoiled,
    tagged_tiff,
    text_bomb,
    tiff_of,
    turned,
    wide_bmp,
    wide_gif,
)

UNKNOWN = "cannot identify it as JPEG, PNG"
BOMB = "pixels.? exceeds limit|pixels are too many"

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a JPEG cut in half": ("jpg", cut("JPEG"), "truncated"),
    "a JPEG without its end": ("jpg", cut("JPEG", kept=0.97), "truncated"),
    "a progressive JPEG cut in half": ("jpg", saved(noise(), "JPEG", progressive=True)[:1500], "truncated"),
    "markers in the middle of a JPEG": ("jpg", spoiled(saved(noise(), "JPEG"), b"\xff\xc0\xff\xd8" * 10), "broken data"),
    "a JPEG whose tables are overwritten": ("jpg", spoiled(saved(noise(), "JPEG"), bytes(range(64)), at=0.05), UNKNOWN),
    "bytes before a JPEG": ("jpg", b"junk" + saved(plain(), "JPEG"), UNKNOWN),
    "zero bytes": ("jpg", b"", "the file is empty"),
    "zeros": ("jpg", bytes(4096), UNKNOWN),
    "text called .png": ("png", b"no image\n" * 20, UNKNOWN),
    "a web page called .jpg": ("jpg", b"<!doctype html><html><body>404</body></html>", UNKNOWN),
    "pixels of a PNG with another checksum": ("png", png(8, 8, crc=7), "its chunk IDAT is damaged: wrong checksum"),
    "a PNG whose size was changed": ("png", spoiled(png(8, 8), b"\0\0\0\7", at=16 / len(png(8, 8))), "IHDR is damaged"),
    "a note of a PNG with another checksum": ("png", png(8, 8, chunk(b"tIME", bytes(7), crc=1)), UNKNOWN),
    "a PNG without width": ("png", png(0, 10), UNKNOWN),
    "a PNG with fewer pixels than it says": ("png", png(1600, 800), "truncated"),
    "a PNG cut in half": ("png", cut("PNG"), "truncated"),
    "a GIF cut in half": ("gif", cut("GIF"), "truncated"),
    "a TIFF cut in half": ("tif", cut("TIFF"), "truncated"),
    "a WebP cut in half": ("webp", cut("WEBP"), "could not create decoder"),
    "a BMP cut in half": ("bmp", cut("BMP"), "truncated"),
    "a PPM cut in half": ("ppm", cut("PPM"), "truncated"),
    "a bomb of a PNG": ("png", png(60_000, 60_000), BOMB),
    "a bomb of a PPM": ("ppm", b"P6 60000 60000 255\n" + bytes(10), BOMB),
    "a bomb of a GIF": ("gif", wide_gif(), BOMB),
    "a bomb of a BMP": ("bmp", wide_bmp(), BOMB),
    "a bomb of a TIFF": ("tif", tiff_of(60_000, 60_000), BOMB),
    "a TIFF of a width below zero": ("tif", tiff_of(2**32 - 1, 2), BOMB),
    "a bomb in a PNG's second header": (
        "png", png(8, 8, chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))), BOMB,
    ),
    "a bomb in a PNG's comment": ("png", text_bomb(), "Decompressed data too large"),
    "a bomb in a PNG's profile": ("png", profile_bomb(), "Decompressed data too large"),
    "a line that would grow": ("png", saved(plain(size=(30_000, 1)), "PNG"), "30000 x 1 pixels are a line and no picture"),
    "PostScript": ("jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(proof) (w) file\n", UNKNOWN),
    "Photoshop": ("jpg", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(200), UNKNOWN),
    "PDF": ("jpg", b"%PDF-1.7\n%%EOF\n", UNKNOWN),
    "SVG": ("png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", UNKNOWN),
    "an icon": ("png", saved(plain(), "ICO"), UNKNOWN),
    "HDF5": ("tif", b"\x89HDF\r\n\x1a\n" + bytes(200), UNKNOWN),
    "JPEG 2000": ("jpg", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60), UNKNOWN),
    "Targa": ("bmp", saved(plain(), "TGA"), UNKNOWN),
    "an X bitmap": ("pgm", b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {0};\n", UNKNOWN),
    "a pickle": ("png", pickled(), UNKNOWN),
    "a ZIP": ("webp", b"PK\x03\x04" + bytes(60), UNKNOWN),
    "a TIFF with pixels that are no numbers": ("tif", floats([0.5, float("nan")] * 8), "no finite numbers"),
    "a TIFF with an endless pixel": ("tif", floats([0.5, float("inf")] * 8), "no finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_decoded(tmp_path: Path, name: str) -> None:
    suffix, content, said = REFUSED[name]
    words = small_photos(tmp_path / "set")
    (tmp_path / "set" / "red" / f"evil.{suffix}").write_bytes(content)
    with untouched(tmp_path / "set"):
        refused(words, rf"/set/red/evil\.{suffix}: cannot be decoded \((.*)({said}).*; mend or remove it, or set")
        data = loaded([*words, "data.on_bad_image=skip"])
    assert data.facts.skipped == (str(tmp_path / "set" / "red" / f"evil.{suffix}"),)
    assert len(ids_of(data)) == 9


GREY = (200, 200, 200)
DECODED: dict[str, tuple[str, bytes, tuple[int, int, int]]] = {
    "an animated GIF, by its first picture": ("gif", frames("GIF"), RED),
    "an animated PNG": ("png", frames("PNG"), RED),
    "an animated WebP": ("webp", frames("WEBP", lossless=True), RED),
    "a JPEG with two pictures (MPO)": ("jpg", frames("MPO", quality=95), RED),
    "a TIFF with two pages": ("tif", frames("TIFF"), RED),
    "one pixel": ("png", saved(plain(size=(1, 1)), "PNG"), RED),
    "one pixel wide": ("png", saved(plain(size=(1, 500)), "PNG"), RED),
    "one pixel high": ("png", saved(plain(size=(900, 1)), "PNG"), RED),
    "grey of 16 bits": ("png", saved(Image.fromarray(np.full((16, 16), 200 * 257, dtype=np.uint16)), "PNG"), GREY),
    "grey of 32 bits": ("tif", saved(Image.fromarray(np.full((16, 16), 70_000, dtype=np.int32)), "TIFF"), (255,) * 3),
    "fractions": ("tif", floats([0.5] * 16), (128, 128, 128)),
    "fractions below zero": ("tif", floats([-5.0] * 16), (0, 0, 0)),
    "one bit": ("png", saved(plain("1", 1), "PNG"), (255, 255, 255)),
    "CMYK": ("jpg", saved(plain("CMYK", (0, 200, 200, 50)), "JPEG", quality=95), (205, 44, 44)),
    "a palette with a colour that is not seen": ("png", see_through(), RED),
    "a palette that is not there": ("png", png(8, 8, colour=3), (0, 0, 0)),
    "grey and opacity": ("png", saved(plain("LA", (200, 128)), "PNG"), GREY),
    "colour and opacity": ("png", saved(plain("RGBA", (*RED, 10)), "PNG"), RED),
    "L*a*b*": ("tif", lab(), (119, 119, 119)),
    "a profile that is nonsense": ("jpg", bad_profile(), RED),
    "a PNG profile that is nonsense": ("png", png(8, 8, chunk(b"iCCP", b"x\0\0nonsense")), (0, 0, 0)),
    "a comment for a terminal": ("png", commented(), RED),
    "no resolution": ("tif", tagged_tiff(282, 0.0), RED),
    "turned in a way that there is not": ("jpg", turned(9), RED),
    "turned by a text": ("jpg", turned(0x78697300, kind=2, count=4), RED),
    "turned by a fraction": ("jpg", turned(0x40C00000, kind=11), RED),
    "turned by a billion numbers": ("jpg", turned(2**31, count=2**30), RED),
    "turned by a kind that there is not": ("jpg", turned(6, kind=99), RED),
    "a TIFF turned in a way that there is not": ("tif", tagged_tiff(274, 99), RED),
    "EXIF that is nonsense": ("jpg", exif(b"nonsense"), RED),
    "EXIF that is empty": ("jpg", exif(b""), RED),
    "EXIF that is cut off": ("jpg", exif(b"II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"), RED),
    "EXIF that begins behind its end": ("jpg", exif(b"MM\0*\xff\xff\xff\xff"), RED),
    "EXIF that loops": ("jpg", looping_exif(), RED),
    "bytes behind a JPEG": ("jpg", saved(plain(), "JPEG", quality=95) + b"junk" * 1000, RED),
    "a JPEG called .png": ("png", saved(plain(), "JPEG", quality=95), RED),
    "a progressive JPEG": ("jpg", saved(plain(), "JPEG", progressive=True, quality=95), RED),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # as a run does
@pytest.mark.parametrize("name", DECODED)
def test_what_is_odd_and_can_be_decoded(tmp_path: Path, name: str) -> None:
    suffix, content, colour = DECODED[name]
    words = small_photos(tmp_path / "set")
    (tmp_path / "set" / "red" / f"odd.{suffix}").write_bytes(content)
    with untouched(tmp_path / "set"):
        data = loaded(words)
    assert data.facts.skipped == ()
    assert len(ids_of(data)) == 10
    split = next(split for split in data.splits.values() if f"red/odd.{suffix}" in split.ids)
    examples, index = next(place for place in split.places() if place[0].ids[place[1]] == f"red/odd.{suffix}")
    pixels = data.evaluation(examples.image(index)).astype(int)
    assert np.abs(pixels - np.reshape(colour, (3, 1, 1))).max() <= 4
