"""What lies in the cache folder, which may be deleted at any time: how large it is, and when it was last used."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

IMAGES = "images"
FINGERPRINTS = "fingerprints"
FEATURES = "features"
MEASUREMENTS = "measurements"
KINDS = {
    IMAGES: "decoded images",
    FINGERPRINTS: "digests of image files",
    FEATURES: "features of frozen backbones",
    MEASUREMENTS: "short measurements of this machine",
}
"""Folders in the cache folder that are ours, and what they hold: what else is there stays."""
ABOUT = "about.json"
LOCK = ".lock"
"""In a cache's folder: whoever holds it is building it."""
_SPARE = 2**30
"""Bytes that a build leaves on the disk."""


@dataclass(frozen=True)
class Cache:
    """A file or folder that can be removed on its own."""

    path: Path
    size: int
    """Bytes."""
    used: float
    """When it was last used, in seconds since 1970."""
    about: str
    """What it is of."""


def caches_of(folder: Path) -> list[Cache]:
    """Everything in the folder of one kind; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        with suppress(OSError):  # another process may remove it meanwhile
            found.append(_cache(path))
    return found


def mark_used(folder: Path) -> None:
    """Remember that a cache was used now."""
    with suppress(OSError):
        os.utime(folder / ABOUT)


def remove(cache: Cache) -> bool:
    """Remove a cache unless somebody is building it, and say whether; who reads it keeps what is open."""
    from filelock import FileLock, Timeout

    if not cache.path.is_dir() or cache.path.is_symlink():
        cache.path.unlink(missing_ok=True)
        return True
    try:
        with FileLock(cache.path / LOCK).acquire(timeout=0):
            shutil.rmtree(cache.path, ignore_errors=True)
    except (Timeout, OSError):
        return False
    return not cache.path.exists()


class NoRoom(Exception):
    """What is to be built does not fit: by itself, beside what others are building, or on the disk."""

    def __init__(self, reason: Literal["limit", "busy", "disk"], size: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.size = size
        """Bytes that it would take in all."""


def make_room(folder: Path, *, needed: int, limit: int) -> int:
    """Bytes that may be added to the cache in `folder`, once what was not used for longest has made way.

    `needed` more bytes are asked for, and all caches beside it may hold `limit`. Raises NoRoom where they would
    not fit, and OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    others = [cache for cache in caches_of(folder.parent) if cache.path != folder]
    own = sum(_size(file) for file in folder.glob("part-*"))
    held = own + sum(cache.size for cache in others)
    if own + needed > limit:
        raise NoRoom("limit", own + needed)
    for cache in sorted(others, key=lambda cache: cache.used):
        free = shutil.disk_usage(folder.parent).free - _SPARE
        if held + needed <= limit and needed <= free:
            break
        if remove(cache):
            held -= cache.size
    if held + needed > limit:
        raise NoRoom("busy", own + needed)
    free = shutil.disk_usage(folder.parent).free - _SPARE
    if needed > free:
        raise NoRoom("disk", own + needed)
    return min(limit - held, free)


def size_of(path: Path) -> int:
    """Bytes that a file or folder holds."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(file) for file in path.rglob("*"))
    return path.lstat().st_size


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.lstat().st_size if file.is_file() else 0
    return 0


def _cache(path: Path) -> Cache:
    about: dict[str, Any] = {}
    used = path.stat().st_mtime
    if (path / ABOUT).is_file():
        used = (path / ABOUT).stat().st_mtime
        with suppress(OSError, ValueError):
            read = json.loads((path / ABOUT).read_text(encoding="utf-8"))
            about = read if isinstance(read, dict) else {}
    text = ", ".join(str(about[key]) for key in ("source", "form") if about.get(key))
    return Cache(path, size_of(path), used, text)
