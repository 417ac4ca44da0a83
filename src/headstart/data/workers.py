"""How a loader's worker processes come to be."""

from __future__ import annotations

import sys
from typing import Any

import torch

FORK = "fork" if sys.platform == "linux" else None
"""What PyTorch's loaders do on Linux; a job of a sweep would have each of its workers import PyTorch anew."""


def one_thread(worker: Any) -> None:
    """For a worker's start: as many threads in each as the machine has cores would only wait for one another."""
    torch.set_num_threads(1)
