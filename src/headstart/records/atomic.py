"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place of `path`.

    A reader sees the old file or the new one, whenever this is interrupted. Raises OSError as writing does.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            write(temporary)
        except Exception as error:
            _say_if_full(temporary, path, error)
            raise
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        # a writer that still has it open would keep its room on a full disk, and the record finds none
        with suppress(OSError):
            os.truncate(temporary, 0)
        temporary.unlink(missing_ok=True)
        raise


def _say_if_full(temporary: Path, path: Path, error: Exception) -> None:
    """Raise OSError where the disk is full: PyTorch, safetensors and Parquet each say it in a way of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    try:  # what was written so far has taken all there was
        with temporary.open("ab") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as trouble:
        if trouble.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(trouble.errno, os.strerror(trouble.errno), str(path)) from error


_PROBE = 65536


def remove_leftovers(folder: Path) -> None:
    """Remove what writes that were killed have left below `folder`; nothing may be writing there."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files below `folder` that nothing has put in its place."""
    return [
        path
        for path in folder.rglob(".*")
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink()
    ]


# ours, and those of safetensors
_LEFTOVER = re.compile(r"\..+\.tmp|\.tmp[A-Za-z0-9]{6}")


def _umask() -> int:
    """The user's own: temporary files are made private."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_with(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all; NaN and infinities become null."""
    write_text(path, json.dumps(plain_json(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def plain_json(value: Any) -> Any:
    """The same with null for NaN and infinities, which JSON has not."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
