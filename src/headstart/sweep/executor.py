"""What runs the jobs of a sweep: this machine's worker slots, a Ray cluster, SLURM; one queue feeds them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """A job that an executor is done with."""

    job: str
    result: str | None
    """What `perform` returned; None where it did not come to that."""
    how: str = ""
    """Where it did not: what became of its process, in words."""
    kind: str = "killed"
    """Where it did not: the kind of failure."""


class Executor(Protocol):
    """Runs jobs of one sweep, as many at the same time as it has room for."""

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that it has and is not done with."""

    def has_room(self) -> bool:
        """Whether it would start another job at once."""

    def start(self, job: str) -> None:
        """Take a job; raises nothing that is the job's own fault."""

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that have ended, waiting up to `seconds` for one."""

    def stop(self, *, now: bool) -> None:
        """Ask the running jobs to stop, keeping their checkpoints; with `now`, do not wait for that."""

    def close(self) -> None:
        """Let go of what it holds."""
