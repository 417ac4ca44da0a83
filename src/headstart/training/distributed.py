"""Several processes that train one model together: starting them, and telling Lightning of them.

The first rank is the run itself. The others are started from its folder, with the config that is frozen there:
they compose nothing, write nothing and end with the training.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from headstart.errors import RunFailed

READY = "ready"
_PROGRAM = (
    "import sys; from headstart.experiment import train_rank; train_rank(sys.argv[1], resume=sys.argv[2] == '1')"
)
_KEYS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank_of() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) where it trains alone."""
    return int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def other_ranks(folder: Path, *, devices: int, resume: bool) -> Iterator[None]:
    """Have `devices` - 1 further processes train the run in `folder` along with this one.

    Raises RunFailed where one does not get ready. They are ended with the `with`, whatever happens.
    """
    if devices == 1:
        yield
        return
    before = {key: os.environ.get(key) for key in _KEYS}
    common = {"NODE_RANK": "0", "WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    words = [sys.executable, "-c", _PROGRAM, str(folder.absolute()), "1" if resume else "0"]
    processes = [
        subprocess.Popen(
            words, env={**os.environ, **common, "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(1, devices)
    ]
    try:
        for rank, process in enumerate(processes, start=1):
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise RunFailed(f"process {rank} of {devices} did not get ready (exit status {process.wait()}).")
        os.environ.update(common | {"LOCAL_RANK": "0"})
        yield
        for process in processes:
            process.wait(60)
    finally:
        if torch.distributed.is_initialized():  # or the next run of this process would meet ranks that are gone
            torch.distributed.destroy_process_group()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])
