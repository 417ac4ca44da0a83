"""What lies in the cache folder, which may be deleted at any time: how large it is, and when it was last used."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGES = "images"
FINGERPRINTS = "fingerprints"
KINDS = {
    IMAGES: "decoded images",
    FINGERPRINTS: "digests of image files",
    "features": "features of frozen backbones",
    "measurements": "short measurements of this machine",
}
"""Folders in the cache folder that are ours, and what they hold: what else is there stays."""
ABOUT = "about.json"
LOCK = ".lock"
"""In a cache's folder: whoever holds it is building it."""


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
