"""A few runs that stand for a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from headstart.errors import RecordError
from headstart.records.schema import RunRecord

Run = tuple[Path, RunRecord]


def sample(runs: Sequence[Run], *, count: int | None) -> list[Run]:
    """`count` completed runs, one of each arm before a second of any; the same ones every time. None: all.

    Raises RecordError where no run has completed.
    """
    completed = [run for run in runs if run[1].status == "completed"]
    if not completed:
        raise RecordError("none of the runs of this sweep has completed.")
    if count is None:
        return completed
    arms: dict[str, list[Run]] = {}
    for run in sorted(completed, key=lambda run: _draw(run[1].id)):
        arms.setdefault(run[1].arm, []).append(run)
    rounds = [
        arm[place] for place in range(max(map(len, arms.values()))) for arm in arms.values() if place < len(arm)
    ]
    chosen = {run[1].id for run in rounds[:count]}
    return [run for run in completed if run[1].id in chosen]


def _draw(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest()
