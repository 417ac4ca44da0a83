"""What can be known of this machine without asking PyTorch, which takes seconds."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import lru_cache


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache
def keep_freed_memory() -> None:
    """Let this process keep memory that was freed, up to 2 GiB, where its C library is glibc.

    Each batch needs some megabytes anew: handed back and asked for again, they come a page at a time, which took a
    third of the time of feeding images on a CPU.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


# of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
