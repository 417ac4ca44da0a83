"""A hostile input is tried: it is answered in time, in a line, and nothing of it is changed on disk."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import make_photos, tiny_config

from headstart.data import ImageDataModule, load_data
from headstart.errors import HeadstartError
from headstart.resolve import resolve, spec_of

PATIENCE = 10.0
"""Seconds that an answer may take on a machine that is busy with other things."""
STUCK = 60.0
"""Seconds after which the process shows where it hangs, and ends."""

Make = Callable[[Path], list[str]]
"""Makes an input in a folder; returns the overrides that name it."""


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a folder: kinds, modes, sizes, times, links' targets and digests, by path."""
    found = {}
    for here, folders, files in os.walk(os.fsencode(folder)):
        for path in [here, *(os.path.join(here, name) for name in folders + files)]:  # noqa: PTH118 - bytes
            entry = os.lstat(path)
            what = b""
            if stat.S_ISLNK(entry.st_mode):
                what = os.readlink(path)  # noqa: PTH115
            elif stat.S_ISREG(entry.st_mode):
                with open(path, "rb") as file:  # noqa: PTH123
                    what = hashlib.sha256(file.read()).digest()
            found[os.fsdecode(path)] = (
                entry.st_mode, entry.st_size, entry.st_mtime_ns, entry.st_ino, entry.st_nlink, what,
            )  # fmt: skip
    return found


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """What is done in here ends in time and changes nothing in the folder."""
    before = snapshot(folder)
    faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__)
    began = time.monotonic()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        assert snapshot(folder) == before
    assert time.monotonic() - began < PATIENCE


def loaded(words: list[str]) -> ImageDataModule:
    """The data of a tiny experiment, every image of it decoded as the model sees it."""
    sizes = [] if any(word.startswith("data.test_size=") for word in words) else ["data.test_size=null"]
    config = resolve(tiny_config("data.image_size=16", "data.cache=false", "data.train_size=null", *sizes, *words))
    data = load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)
    for name, split in data.splits.items():
        assert len(data.sample(name, len(split.indices))) == len(split.indices)
    return data


def refused(words: list[str], said: str) -> str:
    """Assert that the answer is a mistake in one or two lines that match; returns them."""
    with pytest.raises(HeadstartError, match=said) as caught:
        loaded(words)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    assert len(text) < 700
    assert "Traceback" not in text
    assert " object at 0x" not in text
    return text


def small_photos(root: Path, *, per_class: int = 3) -> list[str]:
    """Three classes of tiny photos, and the overrides that name them."""
    make_photos(root, per_class=per_class, size=(18, 16))
    return ["data=image_folder", f"data.path={root}"]


def quoted(text: str) -> str:
    """A value of an override that holds what the grammar of overrides has a meaning for."""
    return "'" + text.replace("'", "\\'") + "'"


def ids_of(data: ImageDataModule) -> set[str]:
    """Ids of all examples that are used."""
    return {name for split in data.splits.values() for name in split.ids}
