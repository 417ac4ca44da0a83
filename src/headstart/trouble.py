"""What the machine may refuse, in words: memory, room on the disk, the right to write."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import ConfigError, DiskTrouble, HeadstartError, OutOfMemory, RunFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what was missing; PyTorch says so in several ways, most of them RuntimeErrors."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (
            isinstance(error, RuntimeError)
            and any(said in text for said in ("out of memory", "can't allocate memory", "failed to allocate"))
        )
    )


def refused(
    error: BaseException, *, batch_size: int, size: tuple[int, int], gpu: bool, precision: str
) -> RunFailed | None:
    """The sentence for what the device has not: memory enough, or a deterministic form of an operation.

    `size` is that of the images, (height, width) in pixels. None where the trouble is another.
    """
    if ran_out_of_memory(error):
        gpu = gpu or type(error).__name__ == "OutOfMemoryError"
        return _out_of_memory(batch_size, size, gpu=gpu, precision=precision)
    operation = re.search(r"(\S+) does not have a deterministic implementation", str(error))
    if operation:
        return RunFailed(
            f"trainer.deterministic=true: {operation[1]} has no deterministic form on this device; with "
            "trainer.deterministic=false it runs, and comes out the same within a tolerance only."
        )
    return None


def _out_of_memory(batch_size: int, size: tuple[int, int], *, gpu: bool, precision: str) -> OutOfMemory:
    at = f" at {size[0]} x {size[1]} pixels" if all(size) else ""
    smaller = f"data.batch_size={batch_size // 2}, " if batch_size > 1 else ""
    more = "" if gpu else "fewer jobs at the same time (launcher.workers), "
    if gpu and precision not in ("bf16-mixed", "16-mixed"):
        more = "trainer.precision=bf16-mixed, "
    return OutOfMemory(
        f"out of memory on the {'GPU' if gpu else 'CPU'} with data.batch_size={batch_size}{at}. "
        f"Try {smaller}a smaller data.image_size, {more}or a strategy that trains fewer layers."
    )


def disk_trouble(error: BaseException) -> str | None:
    """What a failed write says of the disk, or None where it is another trouble."""
    if not isinstance(error, OSError):
        return None
    what = f" ({Path(error.filename).name} could not be written)" if isinstance(error.filename, str) else ""
    if error.errno in _FULL:
        return f"the disk is full{what}"
    if error.errno in _REFUSED:
        return f"{os.strerror(error.errno or 0).lower()}{what}"
    return None


def stopped_by_disk(error: BaseException, folder: Path) -> DiskTrouble | None:
    """The sentence for a run that could not be written down any further; None where the disk is not why."""
    why = disk_trouble(error)
    if why is None:
        return None
    return DiskTrouble(
        f"{folder}: {why}; once it can be written again, `headstart resume {folder}` goes on from its last epoch."
    )


@contextmanager
def clear_disk_errors(folder: Path) -> Iterator[None]:
    """Say in a line that `folder` cannot be written to: raises ConfigError in the place of such an OSError."""
    try:
        yield
    except HeadstartError:
        raise
    except OSError as error:
        why = disk_trouble(error)
        if why is None:
            raise
        raise ConfigError(f"output_dir: {folder}: {why}; free some space, or set another output_dir.") from error
