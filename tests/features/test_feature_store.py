"""Rows on disk: one builder, nothing false after a kill, and no run that ends for want of room."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.features.test_bank import module, opened, rows

from headstart import caches
from headstart.caches import ABOUT
from headstart.data import parts
from headstart.data.draws import mixed
from headstart.features.store import Indices, Rows, RowStore

FORKED: Any = multiprocessing.get_context("fork")
KEYS = mixed(np.arange(50, dtype=np.uint64))
VALUES = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)


def compute(wanted: Indices, *, pause: float = 0.0) -> Iterator[tuple[Indices, Rows]]:
    for start in range(0, len(wanted), 4):
        time.sleep(pause)
        yield wanted[start : start + 4], VALUES[wanted[start : start + 4]]


def store_in(folder: Path, *, said: list[str] | None = None, limit: int = 2**30) -> RowStore:
    lines = [] if said is None else said
    return RowStore(folder, dtype="float32", about={"source": "a"}, limit=limit, say=lines.append)


def is_whole(store: RowStore) -> bool:
    order = np.random.default_rng(1).permutation(50)
    return bool((store.read(KEYS[order]) == VALUES[order]).all())


def build_slowly(folder: Path, pause: float, begin: Any, waits: Any) -> None:
    """In a process of its own; each batch fills a part."""
    parts.PART_BYTES = 100
    store = RowStore(folder, dtype="float32", about={}, limit=2**30, say=lambda line: waits.release())
    begin.wait()
    store.fill(KEYS, lambda wanted: compute(wanted, pause=pause))
    assert is_whole(store)


def start_build(folder: Path, *, pause: float, begin: Any, waits: Any) -> BaseProcess:
    process = FORKED.Process(target=build_slowly, args=(folder, pause, begin, waits))
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_two_processes_build_one_good_cache(tmp_path: Path) -> None:
    begin, waits = FORKED.Event(), FORKED.Semaphore(0)
    both = [start_build(tmp_path / "set", pause=0.02, begin=begin, waits=waits) for _ in range(2)]
    begin.set()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert waits.get_value() == 1
    held = sum(len(np.load(index)) for index in (tmp_path / "set").glob("part-*.npy"))
    assert held == 50  # each was computed once
    assert is_whole(store_in(tmp_path / "set"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("after", [0.1, 0.4])
def test_a_build_that_is_killed_leaves_nothing_false(tmp_path: Path, after: float) -> None:
    begin = FORKED.Event()
    process = start_build(tmp_path / "set", pause=0.06, begin=begin, waits=FORKED.Semaphore(0))
    begin.set()
    time.sleep(after)
    process.kill()
    process.join()
    store = store_in(tmp_path / "set")
    there = ~store.missing(KEYS)
    assert not there.all()
    assert there.any() or after < 0.2
    if there.any():
        assert (store.read(KEYS[there]) == VALUES[there]).all()
    assert store.fill(KEYS, compute) == (~there).sum()
    assert is_whole(store)
    for held in (tmp_path / "set").glob("part-*.bin"):
        assert held.with_suffix(".npy").exists()


@pytest.mark.parametrize("spoil", ["truncate", "index", "missing", "other width", "gap"])
def test_a_damaged_part_is_not_believed(tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20 * 28)
    store_in(tmp_path / "set").fill(KEYS, compute)
    index = sorted((tmp_path / "set").glob("part-*.npy"))[1]
    held = index.with_suffix(".bin")
    count = len(np.load(index))
    if spoil == "truncate":
        held.write_bytes(held.read_bytes()[:-3])
    elif spoil == "index":
        index.write_bytes(os.urandom(100))
    elif spoil == "missing":
        held.unlink()
    elif spoil == "other width":
        edited = np.load(index)
        edited["shape"][:, 2] = 24
        edited["offset"] = np.arange(count) * 24
        np.save(index, edited)
        held.write_bytes(held.read_bytes()[: 24 * count])
    else:
        edited = np.load(index)
        edited["offset"][:-1] += 4
        np.save(index, edited)
    store = store_in(tmp_path / "set")
    assert store.missing(KEYS).sum() == count
    assert store.fill(KEYS, compute) == count
    assert is_whole(store)
    assert is_whole(store_in(tmp_path / "set"))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit on the size of files stands for a full disk: what is written beyond it fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_costs_no_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = module(photos)
    plain = rows(opened(tmp_path, cache=None), data)
    bank = opened(tmp_path)
    with files_of_at_most(2000):
        found = rows(bank, data)
    said = capsys.readouterr().err
    assert "the cache of features cannot be written (File too large); they are kept in memory for this run." in said
    assert torch.equal(found, plain)
    assert bank.about()["kept"] is False
    assert opened(tmp_path).missing(data, ["train"]) == len(plain)
    assert torch.equal(rows(opened(tmp_path), data), plain)


def test_what_was_written_before_the_disk_was_full_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 10 * 28)
    said: list[str] = []
    store = store_in(tmp_path / "set", said=said)
    store.in_memory = 30 * 28  # what lies on disk takes none of it

    def until_full(wanted: Indices) -> Iterator[tuple[Indices, Rows]]:
        for number, part in enumerate(compute(wanted)):
            if number == 6:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
            yield part

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        store.fill(KEYS, until_full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(said) == 1
    assert is_whole(store)
    assert not store.is_kept
    later = store_in(tmp_path / "set")
    assert (~later.missing(KEYS)).sum() == 20
    assert later.fill(KEYS, compute) == 30
    assert later.is_kept
    assert is_whole(later)


def test_rows_that_are_read_outlive_their_files(tmp_path: Path) -> None:
    store = store_in(tmp_path / "set")
    store.fill(KEYS[:30], lambda wanted: compute(wanted))
    shutil.rmtree(tmp_path / "set")  # `headstart cache --clear`, or another run that makes room
    assert store.fill(KEYS, lambda wanted: compute(wanted)) == 20
    assert is_whole(store)
    fresh = store_in(tmp_path / "set")
    assert (~fresh.missing(KEYS)).sum() == 20


def test_a_folder_that_cannot_be_is_said(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "blocked").write_text("no folder")
    data = module(photos)
    bank = opened(tmp_path, cache=tmp_path / "blocked" / "cache")
    assert torch.equal(rows(bank, data), rows(opened(tmp_path, cache=None), data))
    assert "the cache of features cannot be written (Not a directory)" in capsys.readouterr().err


def test_the_limit_holds_and_what_was_not_used_for_longest_makes_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    one = 50 * 28
    for number, name in enumerate("ab"):
        store_in(tmp_path / name, limit=3 * one).fill(KEYS, compute)
        os.utime(tmp_path / name / ABOUT, (1000 + number, 1000 + number))
    small = store_in(tmp_path / "c", limit=one - 1, said=said)
    small.fill(KEYS, compute)
    assert said == [
        "features.cache_gb=1.399e-06: the features would take 0.0 GB; they are kept in memory for this run."
    ]
    assert is_whole(small)
    assert not list((tmp_path / "c").glob("part-*"))
    store_in(tmp_path / "a").fill(KEYS, compute)  # used again
    extra = sum(file.stat().st_size for file in (tmp_path / "a").iterdir()) - one
    store_in(tmp_path / "d", limit=2 * one + 2 * extra, said=said).fill(KEYS, compute)
    assert not (tmp_path / "b").exists()
    assert is_whole(store_in(tmp_path / "a"))
    assert is_whole(store_in(tmp_path / "d"))
    monkeypatch.setattr(caches, "_SPARE", 2**60)
    store_in(tmp_path / "e", said=said).fill(KEYS, compute)
    assert "has no room for 0.0 GB of features" in said[-1]
    assert json.loads((tmp_path / "a" / ABOUT).read_text()) == {"source": "a"}


def test_an_interrupt_keeps_what_was_computed(tmp_path: Path) -> None:
    def interrupted(wanted: Indices) -> Iterator[tuple[Indices, Rows]]:
        yield wanted[:30], VALUES[wanted[:30]]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store_in(tmp_path / "set").fill(KEYS, interrupted)
    store = store_in(tmp_path / "set")
    assert (~store.missing(KEYS)).sum() == 30
    assert store.fill(np.concatenate([KEYS, KEYS]), compute) == 20  # each but once
    with pytest.raises(KeyError):
        store.read(KEYS[:1] + np.uint64(1))
