"""The fingerprint: all content, whatever was read before; and images that cannot be decoded are always found."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import RunTiny
from tests.faults.test_fuzz import full, fuzz

from headstart.cli import main
from headstart.config.schema.data import ImageFolderConfig
from headstart.data.digests import Digests, stamp_of
from headstart.data.fingerprint import Scan, scan
from headstart.data.image_folder import image_folder
from headstart.data.opening import chosen_source
from headstart.data.pictures import BAD_IMAGE, open_picture
from headstart.data.sound_jpeg import check_content, is_sound
from headstart.errors import DataError


def scanned(photos: Path, *, fresh: bool = False, skip: bool = False, threads: int = 1) -> Scan:
    return scan(image_folder(str(photos)), threads=threads, on_bad_image="skip" if skip else "error", fresh=fresh)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files whose content is read."""
    from headstart.data import files

    seen: list[str] = []
    content: Callable[[Any, int], bytes] = files.FileExamples.content

    def noted(self: Any, index: int) -> bytes:
        seen.append(self.ids[index])
        return content(self, index)

    monkeypatch.setattr(files.FileExamples, "content", noted)
    return seen


@pytest.fixture
def old(photos: Path) -> Path:
    """Photographs that were written a while ago."""
    time.sleep(0.06)
    return photos


def test_it_is_the_sha256_of_all_there_is(old: Path) -> None:
    lines = []
    for file in old.glob("*/*.jpg"):
        name = file.relative_to(old).as_posix()
        label = ["blue", "green", "red"].index(file.parent.name)
        lines.append(f"train\0{name}\0{label}\0{hashlib.sha256(file.read_bytes()).hexdigest()}")
    text = "".join(f"{line}\n" for line in ["blue", "green", "red", *sorted(lines)])
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert scanned(old).fingerprint == expected
    assert scanned(old, threads=3).fingerprint == expected


def test_what_was_read_is_not_read_again(old: Path, reads: list[str]) -> None:
    first = scanned(old)
    assert len(reads) == 36
    again = scanned(old)
    assert len(reads) == 36
    assert again.fingerprint == first.fingerprint
    assert again.digests["train"].tolist() == first.digests["train"].tolist()
    assert scanned(old, fresh=True).fingerprint == first.fingerprint
    assert len(reads) == 72
    config = ImageFolderConfig(path=str(old), classes=["red", "blue"])
    assert len(scan(chosen_source(config), threads=1, on_bad_image="error").usable["train"]) == 24
    assert len(reads) == 72


def test_a_file_that_is_another_now_is_read(old: Path, reads: list[str]) -> None:
    first = scanned(old)
    file = old / "red" / "05.jpg"
    times = file.stat()
    image = np.asarray(Image.open(file)).copy()
    while True:  # another picture of as many bytes
        image[0, 0] += 1
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG")
        if len(buffer.getvalue()) <= times.st_size:
            break
    file.write_bytes(buffer.getvalue().ljust(times.st_size, b"\0"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # forged
    assert file.stat().st_size == times.st_size
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    reads.clear()
    assert scanned(old).fingerprint != first.fingerprint
    assert reads == ["red/05.jpg"]


def test_a_file_that_has_just_been_written_is_not_remembered(photos: Path, reads: list[str]) -> None:
    (photos / "red" / "new.jpg").write_bytes((photos / "red" / "00.jpg").read_bytes())
    scanned(photos)
    reads.clear()
    scanned(photos)
    assert "red/new.jpg" in reads


def test_the_verdict_is_remembered_too(old: Path, reads: list[str]) -> None:
    file = old / "red" / "05.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    time.sleep(0.06)
    for _ in range(2):
        with pytest.raises(DataError, match=r"05\.jpg: cannot be decoded .*truncated"):
            scanned(old)
    assert reads.count("red/05.jpg") == 1
    found = scanned(old, skip=True)
    assert len(found.usable["train"]) == 35
    assert found.skipped == (str(file),)


def cache_of(photos: Path) -> Path:
    return Digests(str(photos)).path


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other version", "no columns"])
def test_a_damaged_cache_is_written_anew(
    old: Path, reads: list[str], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    from headstart.data import digests

    first = scanned(old)
    path = cache_of(old)
    whole = path.read_bytes()
    if damage == "other version":
        monkeypatch.setattr(digests, "_VERSION", "1 Pillow 99")
    elif damage == "no columns":
        pd.DataFrame({"id": ["red/00.jpg"]}).to_parquet(path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"no table"}[damage])
    reads.clear()
    assert scanned(old).fingerprint == first.fingerprint
    assert len(reads) == 36
    reads.clear()
    scanned(old)
    assert reads == []


def test_a_cache_that_cannot_be_written_is_no_more_than_a_warning(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="digests cannot be kept .Not a directory."):
        scanned(old)


def test_a_full_disk_leaves_what_was_there(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from headstart.data import digests

    scanned(old)
    before = cache_of(old).read_bytes()

    def full_disk(path: Path, known: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(digests, "_write", full_disk)
    with pytest.warns(UserWarning, match="No space left"):
        scanned(old, fresh=True)
    assert cache_of(old).read_bytes() == before
    assert [file.name for file in cache_of(old).parent.iterdir()] == [cache_of(old).name]


def test_several_write_at_once(old: Path) -> None:
    first = scanned(old)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: scanned(old, fresh=i % 2 == 0).fingerprint, range(12)))
    assert set(found) == {first.fingerprint}
    known = Digests(str(old))
    assert known.get("red/00.jpg", stamp_of(str(old / "red" / "00.jpg"))) is not None


def test_two_folders_and_links_do_not_mix(old: Path, tmp_path: Path, reads: list[str]) -> None:
    scanned(old)
    (tmp_path / "link").symlink_to(old)
    reads.clear()
    scanned(tmp_path / "link")
    assert reads == []
    assert cache_of(tmp_path) != cache_of(old)


def test_reproducing_reads_what_is_there_and_not_what_was_kept(
    old: Path, run_tiny: RunTiny, reads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data=image_folder", f"data.path={old}", "data.train_size=null", "data.test_size=0.3")
    folder, record = run_tiny(*words)
    known = Digests(str(old))
    stamp = stamp_of(str(old / "red" / "05.jpg"))
    known.put("red/05.jpg", stamp, bytes(32), "")  # a lie that nothing but reading finds out
    known.save()
    assert main(["reproduce", str(folder), "--check-only"]) == 0
    assert "changed" not in capsys.readouterr().out
    assert scanned(old).fingerprint == record.data["fingerprint"]  # and what was read is kept in its place


# --- sound files


def jpeg(kind: str, *, size: tuple[int, int] = (48, 40)) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size)
    options: dict[str, Any] = {"quality": 85}
    if kind == "grey":
        image = image.convert("L")
    elif kind == "cmyk":
        image = image.convert("CMYK")
    elif kind == "progressive":
        options["progressive"] = True
    elif kind == "restarts":
        options["restart_marker_blocks"] = 2
    elif kind == "optimized":
        options["optimize"] = True
    elif kind == "444":
        options["subsampling"] = 0
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    elif kind == "icc":
        options["icc_profile"] = b"profile" * 20
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


PLAIN = ("colour", "grey", "restarts", "optimized", "444", "exif", "icc")


@pytest.mark.parametrize("kind", [*PLAIN, "cmyk", "progressive"])
def test_common_files_are_seen_to_be_sound_and_all_are_accepted(kind: str) -> None:
    content = jpeg(kind)
    assert is_sound(content) == (kind in PLAIN)
    assert is_sound(content + b"something after the end") == (kind in PLAIN)
    check_content(content)


@pytest.mark.parametrize("kind", [*PLAIN, "cmyk", "progressive"])
def test_a_truncated_file_is_found_wherever_it_ends(kind: str) -> None:
    content = jpeg(kind)
    for end in range(0, len(content) - 2, 7):
        assert not is_sound(content[:end])
        with pytest.raises(BAD_IMAGE):
            check_content(content[:end])


def without(content: bytes, marker: int) -> bytes:
    """Without the segments of a kind."""
    while (place := content.find(bytes((0xFF, marker)))) >= 0:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        content = content[:place] + content[place + 2 + length :]
    return content


def overfull(content: bytes) -> bytes:
    """With lengths in the first Huffman table, of 12 codes, that leave no code of ones alone, which none may be."""
    place = content.find(b"\xff\xc4") + 5
    assert sum(content[place : place + 16]) == 12
    return content[:place] + bytes((0, 0, 4, 8)) + bytes(12) + content[place + 16 :]


def frame_with(content: bytes, offset: int, value: bytes) -> bytes:
    """With other bytes in the frame's header."""
    place = content.find(b"\xff\xc0") + 4 + offset
    return content[:place] + value + content[place + len(value) :]


@pytest.mark.parametrize(
    "broken",
    [
        overfull(jpeg("colour")),
        without(jpeg("colour"), 0xDB),
        without(jpeg("colour"), 0xC0),
        frame_with(jpeg("colour"), 0, b"\x0c"),
        frame_with(jpeg("colour"), 1, b"\0\0"),
        frame_with(jpeg("colour"), 1, b"\xff\xff\xff\xff"),
        frame_with(jpeg("colour"), 7, b"\x05"),
    ],
    ids=["codes", "no quantizers", "no frame", "12 bits", "no height", "too large", "sampling"],
)
def test_headers_that_no_decoder_takes(broken: bytes) -> None:
    assert not is_sound(broken)
    with pytest.raises(BAD_IMAGE):
        check_content(broken)


@full
def test_what_is_called_sound_can_be_decoded(cases: int) -> None:
    contents = [jpeg(kind) for kind in (*PLAIN, "cmyk", "progressive")]
    called = 0

    def one(data: Any) -> None:
        nonlocal called
        content = bytearray(data.draw(st.sampled_from(contents)))
        for _ in range(data.draw(st.integers(1, 3))):
            # half of the places in the headers
            last = min(len(content) - 1, 650) if data.draw(st.booleans()) else len(content) - 1
            place = data.draw(st.integers(0, max(0, last)))
            how = data.draw(st.integers(0, 3))
            if how == 0:
                content[place] = data.draw(
                    st.sampled_from([0, 1, 2, 3, 0x11, 0x7F, 0x80, 0xC0, 0xC4, 0xD0, 0xD9, 0xFF])
                )
            elif how == 1:
                content[place] = data.draw(st.integers(0, 255))
            elif how == 2:
                del content[place : place + data.draw(st.integers(1, 40))]
            else:
                content[place:place] = data.draw(st.binary(max_size=8))
        if is_sound(bytes(content)):
            called += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's on notes that are damaged
                open_picture(bytes(content))

    fuzz(cases, one, st.data())
    assert called > cases / 10


def test_folders_that_change_places_are_seen(tmp_path: Path) -> None:
    """Their files keep size, times and entries; only which file of the disk is called so has changed."""
    for name, level in (("a", 10), ("b", 200)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.full((8, 8, 3), level + i, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.bmp")
    time.sleep(0.1)
    for file in (tmp_path / "set").rglob("*.bmp"):
        os.utime(file, (1_000_000, 1_000_000))
    time.sleep(0.1)
    before = scanned(tmp_path / "set")
    for old_name, new_name in (("a", "t"), ("b", "a"), ("t", "b")):
        (tmp_path / "set" / old_name).rename(tmp_path / "set" / new_name)
    after = scanned(tmp_path / "set")
    assert after.fingerprint == scanned(tmp_path / "set", fresh=True).fingerprint
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize("error", [MemoryError("no memory"), OSError(5, "Input/output error"), RuntimeError("?")])
def test_trouble_of_the_moment_is_not_remembered(
    old: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(content: bytes) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("headstart.data.fingerprint.check_content", fails)
        assert len(scanned(old, skip=True).skipped) == 36
    assert scanned(old, skip=True).skipped == ()


def test_short_notes_are_no_sign_of_a_sound_file(photos: Path) -> None:
    data = (photos / "red" / "00.jpg").read_bytes()
    assert is_sound(data)
    for kind, note in ((0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")):
        short = data[:2] + bytes([0xFF, kind]) + (len(note) + 2).to_bytes(2, "big") + note + data[2:]
        assert not is_sound(short)
