"""Whether a JPEG file is sound, seen from its structure: much faster than decoding it, and never wrong in that.

A decoder gives up on a file for what its headers say or lack, for markers where none may be, and for an end that
does not come; bits that are merely wrong make other pixels. So a file of the common kind (baseline, one scan,
grey or three colours) whose headers are complete and whose scan runs without a marker to its end can be decoded.
"""

from __future__ import annotations

import re

from headstart.data.pictures import check_picture, is_of_fit_size

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _FRAME, _TABLES, _HUFFMAN, _RESTART = 0xDA, 0xC0, 0xDB, 0xC4, 0xDD
_NOTES: dict[int, tuple[bytes, ...]] = {
    0xE0: (b"JFIF\0",),
    0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/"),
    0xE2: (b"ICC_PROFILE\0",),
    0xEE: (b"Adobe",),
    0xFE: (b"",),
}
"""Segments that say nothing of how to decode, and how they begin."""
_LEAST = {0xE0: 14, 0xE1: 6, 0xE2: 14, 0xEE: 12, 0xFE: 0}
"""Bytes that each has at least: Pillow reads versions and numbers of parts in them."""
# all that stands in a scan: bytes, escaped 0xFF and restarts
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def check_content(data: bytes) -> None:
    """Raise what decoding an image file's bytes would."""
    if not is_sound(data):
        check_picture(data)


def is_sound(data: bytes) -> bool:
    """Whether this is a JPEG file that can be decoded for certain; False says nothing."""
    if not data.startswith(_START):
        return False
    quantizers: set[int] = set()
    huffman: set[int] = set()
    frame = b""
    place = 2
    while True:
        head = data[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return False
        kind, length = head[1], int.from_bytes(head[2:], "big")
        body = data[place + 4 : place + 2 + length]
        if len(body) != length - 2:
            return False
        place += 2 + length
        if kind == _SCAN:
            break
        if kind == _FRAME and not frame:
            frame = body
        elif kind == _TABLES:
            if not _read_quantizers(body, quantizers):
                return False
        elif kind == _HUFFMAN:
            if not _read_huffman(body, huffman):
                return False
        elif kind == _RESTART:
            if length != 4:
                return False
        elif kind not in _NOTES or not body.startswith(_NOTES[kind]) or len(body) < _LEAST[kind]:
            return False
    if not _fits(frame, body, quantizers, huffman):
        return False
    end = _MARKER.search(data, place)
    return end is not None and end[0] == _END


def _read_quantizers(body: bytes, found: set[int]) -> bool:
    """Note the tables of a segment: 64 bytes each."""
    if not body or len(body) % 65:
        return False
    for start in range(0, len(body), 65):
        if body[start] > 3:
            return False
        found.add(body[start])
    return True


def _read_huffman(body: bytes, found: set[int]) -> bool:
    """Note the tables of a segment: counts of codes by their length, then as many values."""
    place = 0
    while place < len(body):
        counts = body[place + 1 : place + 17]
        values = body[place + 17 : place + 17 + sum(counts)]
        if len(counts) < 16 or body[place] not in (0x00, 0x01, 0x10, 0x11) or len(values) != sum(counts):
            return False
        room, code = 1, 0
        for count in counts:
            room = 2 * room - count
            code += count
            if room < 0:  # more codes than such lengths allow
                return False
        is_dc = body[place] < 0x10
        if not 0 < code <= 256 or room < 1 or (is_dc and max(values) > 11):
            return False
        found.add(body[place])
        place += 17 + len(values)
    return bool(body)


def _fits(frame: bytes, scan: bytes, quantizers: set[int], huffman: set[int]) -> bool:
    """Whether the frame is of the common kind and its one scan has all tables that it names."""
    if len(frame) < 6 or frame[0] != 8:
        return False
    height, width, parts = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
    if not is_of_fit_size(width, height) or parts not in (1, 3) or len(frame) != 6 + 3 * parts:
        return False
    if len(scan) != 4 + 2 * parts or scan[0] != parts or scan[-3:] != b"\x00\x3f\x00":
        return False
    names = frame[6::3]
    if len(set(names)) != parts or scan[1:-3:2] != names:
        return False
    samplings = [(byte >> 4, byte & 15) for byte in frame[7::3]]
    if any(one not in (1, 2) for pair in samplings for one in pair) or any(
        pair != (1, 1) for pair in samplings[1:]
    ):
        return False
    tables = {(byte >> 4) for byte in scan[2:-3:2]} | {0x10 | (byte & 15) for byte in scan[2:-3:2]}
    return set(frame[8::3]) <= quantizers and tables <= huffman
