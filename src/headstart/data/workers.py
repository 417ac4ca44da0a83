"""How a loader's worker processes come to be, and threads that share a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

FORK = "fork" if sys.platform == "linux" else None
"""What PyTorch's loaders do on Linux; a job of a sweep would have each of its workers import PyTorch anew."""


def one_thread(worker: Any) -> None:
    """For a worker's start: as many threads in each as the machine has cores would only wait for one another."""
    torch.set_num_threads(1)


def share_out(work: Callable[[range], None], count: int) -> None:
    """Let PyTorch's number of threads each `work` on its share of `count` places."""
    threads = min(torch.get_num_threads(), count)
    shares = [range(first, count, threads) for first in range(threads)]
    if threads == 1:
        work(shares[0])
        return
    inference = torch.is_inference_mode_enabled()  # each thread has modes of its own

    def in_mode(share: range) -> None:
        with torch.no_grad(), torch.inference_mode(inference):
            work(share)

    list(_pool(os.getpid(), threads).map(in_mode, shares))


@lru_cache(1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: PyTorch gives each new one a team of its own, which takes longer than a batch."""
    return ThreadPoolExecutor(threads, thread_name_prefix="batch")
