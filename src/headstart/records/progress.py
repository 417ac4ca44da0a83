"""How far a run is: a small file in its folder while it trains, for whoever looks on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart.records.atomic import plain_json

FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    metric: str = ""
    """The monitored metric and its last value, in words."""
    seconds_left: float | None = None


def write_progress(folder: Path, progress: Progress) -> None:
    """Write it down; a reader sees the old file or the new one.

    Training waits for this every other second: unlike what counts, it is not forced onto the disk.
    """
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(plain_json(asdict(progress))), encoding="utf-8")
    temporary.replace(folder / FILE)


def read_progress(folder: Path) -> Progress | None:
    """What a run said last, if it did."""
    try:
        return Progress(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def forget_progress(folder: Path) -> None:
    """Take it away when the training is over."""
    (folder / FILE).unlink(missing_ok=True)


def clock(seconds: float) -> str:
    """`7 s`, `3:05` or `1:02:03`."""
    whole = round(max(0.0, seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}" if minutes else f"{rest} s"
