"""How a sweep is getting on: a live view on a terminal, a line per event elsewhere, and `headstart status`."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headstart.errors import RecordError
from headstart.records.progress import Progress, clock, read_progress
from headstart.records.schema import result_of
from headstart.records.store import read_record
from headstart.records.sweeps import ENDED, JobState, SweepJob, read_state

if TYPE_CHECKING:
    from headstart.sweep.queue import Queue

_EVERY = 1.0
"""Seconds between two looks at the files of running jobs."""
_SHOWN = 24
"""Running jobs that are listed."""


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment."""

    jobs: Sequence[SweepJob]
    states: Mapping[str, JobState]
    progress: Mapping[str, Progress]
    """Of the running jobs, where they have said something."""
    slots: int
    to_come: int = 0
    """Jobs that a search has yet to ask for."""

    @property
    def counts(self) -> Counter[str]:
        """Jobs by status."""
        return Counter(self.states[job.id].status for job in self.jobs)

    def seconds_left(self) -> float | None:
        """To the end, at the pace of the jobs that have been completed by this sweep; None before there is one.

        Jobs that are fitted together have a pace of their own.
        """
        if not self.jobs:
            return None
        total = 0.0
        for together in (False, True):
            jobs = [job for job in self.jobs if bool(job.together) == together]
            left = self._steps_left(jobs)
            if jobs:  # those to come are like those that are there
                mean = sum(max(1, job.steps) for job in jobs) / len(jobs)
                left += self.to_come * len(jobs) / len(self.jobs) * mean
            pace = self._pace(jobs)
            if left and pace is None:
                return None
            total += left * (pace or 0.0)
        return total / max(1, self.slots)

    def _steps_left(self, jobs: Sequence[SweepJob]) -> float:
        left = 0.0
        for job in jobs:
            if self.states[job.id].status in ("waiting", "running", "interrupted"):
                done = self.progress[job.id].step if job.id in self.progress else 0
                left += max(0.0, max(1, job.steps) - done)
        return left

    def _pace(self, jobs: Sequence[SweepJob]) -> float | None:
        """Seconds of a process per step of its jobs."""
        spans: dict[tuple[str, str], float] = {}
        steps = 0
        for job in jobs:
            state = self.states[job.id]
            seconds = _seconds(state)
            if seconds is not None:
                unit = (job.together or job.id, str(state.started))  # those of one process began at the same moment
                spans[unit] = max(spans.get(unit, 0.0), seconds)
                steps += max(1, job.steps)
        return sum(spans.values()) / steps if steps else None


def take_snapshot(
    folder: Path,
    output_dir: Path,
    jobs: Sequence[SweepJob],
    *,
    slots: int = 1,
    to_come: int = 0,
    known: Mapping[str, JobState] | None = None,
) -> Snapshot:
    """Look at a sweep's files; states that are `known` to be final are not read again."""
    final = {id: state for id, state in (known or {}).items() if state.status in ENDED}
    states = {job.id: final.get(job.id) or read_state(folder, job.id) for job in jobs}
    running = {id: state.run for id, state in states.items() if state.status == "running" and state.run}
    progress = {id: found for id, run in running.items() if (found := read_progress(output_dir / "runs" / run))}
    return Snapshot(jobs, states, progress, slots, to_come)


def render(shot: Snapshot, *, width: int) -> RenderableType:
    """The running jobs, a line each, and where the whole stands."""
    table = Table(box=None, pad_edge=False, show_header=False, expand=False)
    for _ in range(3):
        table.add_column(no_wrap=True, overflow="ellipsis")
    running = [job for job in shot.jobs if shot.states[job.id].status == "running"]
    for job in running[:_SHOWN]:
        said = shot.progress.get(job.id)
        where = f"epoch {said.epoch}/{said.epochs}  {said.metric}" if said else "starting"
        left = f"{clock(said.seconds_left)} left" if said and said.seconds_left is not None else ""
        table.add_row(Text(f"  {job.varied or 'one run'}"), Text(where), Text(left))
    if len(running) > _SHOWN:
        table.add_row(Text(f"  ... and {len(running) - _SHOWN} more"), "", "")
    counts, total = shot.counts, len(shot.jobs) + shot.to_come
    ended = sum(counts[status] for status in ENDED)
    bar = ProgressBar(total=max(1, total), completed=ended, width=min(32, width // 3))
    line = Table.grid(padding=(0, 1))
    line.add_row(bar, Text(summary(shot)))
    return Group(table, line)


def summary(shot: Snapshot) -> str:
    """Where a sweep stands, in a line."""
    counts, total = shot.counts, len(shot.jobs) + shot.to_come
    counts["to come"] = shot.to_come
    parts = [f"{counts['completed']} of {total} completed"]
    shown = ("failed", "pruned", "running", "interrupted", "waiting", "to come")
    parts += [f"{counts[status]} {status}" for status in shown if counts[status]]
    left = shot.seconds_left()
    if left is not None and sum(counts[status] for status in ENDED) < total:
        parts.append(f"about {clock(left)} left")
    return ", ".join(parts)


def outcome(job: SweepJob, state: JobState, output_dir: Path) -> str:
    """What became of a job, in a line."""
    if state.status == "pruned":
        return f"{job.varied or 'one run'}: {last_line(state)}"
    if state.status != "completed":
        return f"{job.varied or 'one run'}: {state.status}: {last_line(state)}"
    try:
        record = read_record(output_dir / "runs" / str(state.run))
    except RecordError:
        return f"{job.varied or 'one run'}: completed"
    return f"{job.varied or 'one run'}: {result_of(record)} in {record.seconds.get('total', 0):.1f} s"


def last_line(state: JobState) -> str:
    """The last line of what went wrong."""
    return (state.error or state.status).strip().splitlines()[-1]


class View:
    """Shown while a queue runs; on a terminal it is drawn anew, elsewhere each event has its line."""

    def __init__(self, *, slots: int, output_dir: Path) -> None:
        self.slots, self.output_dir = slots, output_dir
        self.console = Console(stderr=True)
        self._live: Live | None = None
        self._looked = 0.0
        self._said: dict[str, str] | None = None

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *what: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, queue: Queue) -> None:
        """Say what has happened since the last time."""
        self._events(queue)
        if self._live and time.monotonic() > self._looked + _EVERY:
            self._looked = time.monotonic()
            shot = take_snapshot(
                queue.folder,
                self.output_dir,
                queue.sweep.jobs,
                slots=self.slots,
                to_come=queue.to_come,
                known=queue.states,
            )
            self._live.update(render(shot, width=self.console.width), refresh=True)

    def _events(self, queue: Queue) -> None:
        total = len(queue.states) + queue.to_come
        if self._said is None:  # what was done before this launch is no event
            self._said = {id: state.status for id, state in queue.states.items() if id not in queue.waiting}
        for id, state in queue.states.items():
            if state.status == self._said.get(id) or state.status in ("waiting", "interrupted"):
                continue
            if state.status == "running" and id not in queue.units:  # another launch has begun it, or one that died
                continue
            self._said[id] = state.status
            if state.status == "completed" and id not in queue.begun:
                continue
            done = sum(said in ENDED for said in self._said.values())
            if state.status == "running":
                unit = queue.units[id]
                others = f", and {len(unit) - 1} that are fitted with it" if len(unit) > 1 else ""
                if not self._live and id == unit[0]:
                    self._say(f"       {queue.jobs[id].varied or 'one run'}: started{others}")
            else:
                self._say(f"[{done}/{total}] {outcome(queue.jobs[id], state, self.output_dir)}")

    def _say(self, text: str) -> None:
        if self._live:
            self._live.console.print(Text(text))
        else:
            print(text, file=sys.stderr, flush=True)


def failures(jobs: Iterable[SweepJob], states: Mapping[str, JobState], output_dir: Path) -> list[str]:
    """A line for every job that did not complete: what, where and why."""
    lines = []
    for job in jobs:
        state = states[job.id]
        if state.status == "failed":
            where = f" ({output_dir / 'runs' / state.run})" if state.run else ""
            lines.append(f"failed: {job.varied or 'one run'}{where}: {last_line(state)}")
    return lines


def _seconds(state: JobState) -> float | None:
    """How long a job took that this sweep has run; None for others."""
    if state.status != "completed" or state.reused or not state.started or not state.finished:
        return None
    return (datetime.fromisoformat(state.finished) - datetime.fromisoformat(state.started)).total_seconds()
