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
    """Runs jobs of one sweep, each process one of them or several that are fitted together."""

    divides: bool
    """Whether many jobs that can be fitted together are done sooner in several processes."""

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that it has and is not done with."""

    def room(self) -> int:
        """How many more processes it would start at once."""

    def start(self, jobs: tuple[str, ...]) -> None:
        """Take jobs that one process does; raises nothing that is their own fault."""

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that have ended, waiting up to `seconds` for one."""

    def stop(self, *, now: bool) -> None:
        """Ask the running jobs to stop, keeping their checkpoints; with `now`, do not wait for that."""

    def close(self) -> None:
        """Let go of what it holds."""
