"""The cache of decoded images: the same bits as without it, whoever builds it, and whatever happens meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from tests.conftest import RunTiny, make_photos, tiny_config

from headstart import caches
from headstart.caches import IMAGES, LOCK, caches_of
from headstart.cli import main
from headstart.config.compose import compose
from headstart.config.identity import config_hash
from headstart.data import ImageDataModule, decoded, load_data, parts
from headstart.data.decoded import build, places
from headstart.errors import DataError
from headstart.resolve import resolve, spec_of

FORKED: Any = multiprocessing.get_context("fork")
ARRAYS = [np.full((4, 5, 3), i, dtype=np.uint8) for i in range(40)]
DIGESTS = np.arange(40, dtype=np.uint64) * 1_000_003


def module(photos: Path, *overrides: str) -> ImageDataModule:
    base = ["backbone.name=test_resnet", "weights=scratch", "data=image_folder", f"data.path={photos}"]
    config = resolve(compose([*base, "data.image_size=16", "data.batch_size=8", "data.augment=light", *overrides]))
    return load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)


def seen(data: ImageDataModule) -> list[torch.Tensor]:
    """All that one epoch of training, validation and test gives the model."""
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    return [data.on_after_batch_transfer(batch, 0)["image"] for loader in loaders for batch in loader]


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / IMAGES).iterdir())


def fill(folder: Path) -> None:
    build(folder, DIGESTS, lambda i: ARRAYS[i], threads=1, most=2**30, waiting=lambda: None)


def is_whole(folder: Path) -> bool:
    found = places(folder, DIGESTS)
    return all(place is not None and np.array_equal(place.read(), ARRAYS[i]) for i, place in enumerate(found))


def test_the_cache_changes_no_bit_and_is_read(photos: Path, tmp_path: Path) -> None:
    plain = seen(module(photos, "data.cache=false"))
    assert not (tmp_path / "cache" / IMAGES).exists()
    data = module(photos)
    data.warm(threads=2, test=True)
    cached = seen(data)
    assert all(torch.equal(a, b) for a, b in zip(plain, cached, strict=True))
    later = module(photos)
    for file in photos.rglob("*.jpg"):
        file.write_bytes(b"gone")
    assert all(torch.equal(a, b) for a, b in zip(plain, seen(later), strict=True))


def test_a_file_that_was_spoilt_meanwhile_is_said_before_training(photos: Path) -> None:
    data = module(photos)
    (photos / "red" / "05.jpg").write_bytes(b"gone")
    before = (photos / "blue" / "03.jpg").read_bytes()
    (photos / "blue" / "03.jpg").unlink()
    with pytest.raises(DataError, match=r"blue/03\.jpg: cannot be decoded any more \(.*No such file"):
        data.warm(threads=2, test=True)
    (photos / "blue" / "03.jpg").write_bytes(before)
    with pytest.raises(DataError, match=r"red/05\.jpg: cannot be decoded any more \(cannot identify"):
        data.warm(threads=2, test=True)


def test_only_what_is_missing_is_decoded(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = module(photos, "data.train_size=9", "data.val_size=3")
    few.warm(threads=1, test=False)
    held = {path.name: sum(1 for p in places(path, _all_digests(few)) if p) for path in folders(tmp_path / "cache")}
    assert sorted(held.values()) == [3, 9]  # validation as it is evaluated, training as it is cut
    more = module(photos, "data.train_size=12", "data.val_size=3")
    decodes = 0
    of_file = type(more.splits["train"].examples).image

    def counted(self: object, index: int) -> object:
        nonlocal decodes
        decodes += 1
        return of_file(self, index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(more.splits["train"].examples), "image", counted)
    more.warm(threads=1, test=False)
    assert decodes == 2 * 3  # three of them tell how large all are


def _all_digests(data: ImageDataModule) -> np.ndarray:
    return np.concatenate(list(data._digests.values()))


def test_runs_with_and_without_the_cache_are_the_same_experiment(run_tiny: RunTiny) -> None:
    _, without = run_tiny("data.cache=false", "data.augment=light")
    _, with_it = run_tiny("data.augment=light")
    _, again = run_tiny("data.augment=light")
    assert without.predictions_sha256 == with_it.predictions_sha256 == again.predictions_sha256
    assert without.final_weights == with_it.final_weights == again.final_weights
    assert config_hash(tiny_config("data.cache=false")) == config_hash(tiny_config("data.cache_gb=3"))


def test_another_size_or_content_is_another_cache(photos: Path, tmp_path: Path) -> None:
    module(photos, "data.augment=none").warm(threads=1, test=True)
    first = folders(tmp_path / "cache")
    for override in ("data.image_size=24", "data.interpolation=nearest", "data.crop_pct=0.5", "data.channels=1"):
        module(photos, "data.augment=none", override).warm(threads=1, test=True)
        found = folders(tmp_path / "cache")
        assert len(found) == len(first) + 1, override
        first = found
    module(photos, "data.augment=none", "data.mean=[0.1]", "data.batch_size=4").warm(threads=1, test=True)
    assert folders(tmp_path / "cache") == first  # what comes after does not matter
    (photos / "red" / "00.jpg").write_bytes((photos / "blue" / "00.jpg").read_bytes())
    module(photos, "data.augment=none").warm(threads=1, test=True)
    assert len(folders(tmp_path / "cache")) == len(first) + 1


def build_slowly(folder: Path, pause: float, begin: Any, waits: Any) -> None:
    """In a process of its own: decode with a pause at each image."""
    parts.PART_BYTES = 3 * 60

    def slow(i: int) -> np.ndarray:
        time.sleep(pause)
        return ARRAYS[i]

    begin.wait()
    build(folder, DIGESTS, slow, threads=1, most=2**30, waiting=waits.release)


def start_build(folder: Path, *, pause: float, begin: Any, waits: Any) -> BaseProcess:
    process = FORKED.Process(target=build_slowly, args=(folder, pause, begin, waits))
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # quick, as loaders do it
def test_two_processes_build_one_good_cache(tmp_path: Path) -> None:
    begin, waits = FORKED.Event(), FORKED.Semaphore(0)
    both = [start_build(tmp_path / "set", pause=0.02, begin=begin, waits=waits) for _ in range(2)]
    begin.set()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert waits.get_value() == 1
    assert is_whole(tmp_path / "set")
    rows = sum(len(np.load(index)) for index in (tmp_path / "set").glob("part-*.npy"))
    assert rows == len(ARRAYS)  # each was decoded once


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("after", [0.05, 0.3, 0.6])
def test_a_build_that_is_killed_leaves_nothing_false(tmp_path: Path, after: float) -> None:
    folder = tmp_path / "set"
    begin = FORKED.Event()
    process = start_build(folder, pause=0.03, begin=begin, waits=FORKED.Semaphore(0))
    begin.set()
    time.sleep(after)
    process.kill()
    process.join()
    found = places(folder, DIGESTS)
    assert not all(found)
    assert any(found) or after < 0.5
    for i, place in enumerate(found):
        assert place is None or np.array_equal(place.read(), ARRAYS[i])
    fill(folder)
    assert is_whole(folder)
    for pixels in folder.glob("part-*.bin"):
        assert pixels.with_suffix(".npy").exists()
    assert not list(folder.glob(".part*"))


@pytest.mark.parametrize("spoil", ["truncate", "index", "object", "missing", "empty"])
def test_a_damaged_part_is_not_believed(tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "set"
    fill(folder)
    pixels, index = next(folder.glob("part-*.bin")), next(folder.glob("part-*.npy"))
    if spoil == "truncate":
        pixels.write_bytes(pixels.read_bytes()[:-7])
    elif spoil == "index":
        index.write_bytes(os.urandom(200))
    elif spoil == "object":
        np.save(index, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif spoil == "missing":
        pixels.unlink()
    else:
        index.write_bytes(b"")
    assert places(folder, DIGESTS) == [None] * len(DIGESTS)
    fill(folder)
    assert is_whole(folder)


def test_what_does_not_fit_is_said_and_decoded_anew(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = seen(module(photos, "data.cache=false"))
    data = module(photos, "data.cache_gb=0.000001")
    data.warm(threads=1, test=True)
    said = capsys.readouterr().err
    assert "data.cache_gb=1e-06: the decoded images would take 0.0 GB; each is decoded anew in each epoch." in said
    assert all(torch.equal(a, b) for a, b in zip(plain, seen(data), strict=True))
    assert caches_of(tmp_path / "cache" / IMAGES) == []


def test_the_limit_holds_whatever_was_guessed(tmp_path: Path) -> None:
    made: list[int] = []

    def decode(i: int) -> np.ndarray:
        made.append(i)
        return ARRAYS[i]

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(decoded, "_CHUNK", 4)
        assert not build(tmp_path / "set", DIGESTS, decode, threads=1, most=5 * 60, waiting=lambda: None)
    assert len(made) == 8  # the chunk in which it was reached is kept
    found = places(tmp_path / "set", DIGESTS)
    assert [place is not None for place in found] == [True] * 8 + [False] * 32
    fill(tmp_path / "set")
    assert is_whole(tmp_path / "set")


def test_a_cache_that_is_being_built_is_not_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache" / IMAGES / "set"
    fill(folder)
    with FileLock(folder / LOCK).acquire():
        assert main(["cache", "--clear", "images", "--yes"]) == 3
        assert "is being built by another process, and was left." in capsys.readouterr().err
        assert is_whole(folder)
    assert main(["cache", "--clear", "images", "--yes"]) == 0
    assert not folder.exists()


def test_what_was_not_used_for_longest_makes_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [make_photos(tmp_path / name, per_class=6, size=(30 + i, 30)) for i, name in enumerate("abc")]
    one = 18 * 16 * 16 * 3  # bytes of a set
    options = ("data.augment=none", f"data.cache_gb={2.5 * one / 1e9}")
    paths = []
    for i, photos in enumerate(sets[:2]):
        module(photos, *options).warm(threads=1, test=True)
        (new,) = set(folders(tmp_path / "cache")) - set(paths)
        os.utime(new / "about.json", (1000 + i, 1000 + i))
        paths.append(new)
    module(sets[0], *options).warm(threads=1, test=True)  # used again
    module(sets[2], *options).warm(threads=1, test=True)
    left = folders(tmp_path / "cache")
    assert paths[0] in left
    assert paths[1] not in left
    assert len(left) == 2
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_costs_no_run(
    tmp_path: Path, run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    _, record = run_tiny()
    assert record.status == "completed"
    said = capsys.readouterr().err
    assert "the cache of decoded images cannot be written (Not a directory)" in said


def test_a_full_disk_keeps_what_was_decoded_and_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the disk: the second part does not fit."""
    monkeypatch.setattr(parts, "PART_BYTES", 10_000)
    plain = seen(module(photos, "data.cache=false", "data.augment=none"))
    data = module(photos, "data.augment=none")
    save, calls = parts._save, 0

    def full(path: Path, rows: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(28, os.strerror(28), str(path))
        save(path, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(parts, "_save", full)
    data.warm(threads=1, test=True)
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    (folder,) = folders(tmp_path / "cache")
    assert len(list(folder.glob("part-*.bin"))) == len(list(folder.glob("part-*.npy"))) == 1
    assert all(torch.equal(a, b) for a, b in zip(plain, seen(data), strict=True))


def test_little_room_on_the_disk_is_seen_before(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caches, "_SPARE", 2**60)
    module(photos).warm(threads=1, test=True)
    assert f"{tmp_path / 'cache'}: has no room for 0.0 GB of decoded images" in capsys.readouterr().err
    assert caches_of(tmp_path / "cache" / IMAGES) == []
