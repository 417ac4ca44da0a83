"""The queue of a sweep: which job is next, what is tried again, and when it is over."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from headstart.errors import RecordError
from headstart.records.index import completed_run
from headstart.records.store import now, read_record, write_record
from headstart.records.sweeps import DONE, RETRIABLE, JobState, Sweep, SweepJob, read_state, write_state
from headstart.sweep.executor import Ended, Executor
from headstart.sweep.job import alone
from headstart.sweep.together import MOST, partners

POLL = 0.5
"""Seconds between two looks at the clock while jobs run."""
_ELSEWHERE = 3.0
"""Seconds after which a job that another launch is at is asked for again."""
_FEWER = 4
"""By how much a group that came to nothing is too large, in parts."""


@dataclass(frozen=True)
class Policy:
    """What happens when a job fails."""

    retries: int = 0
    stop_on_error: bool = False


class Feed(Protocol):
    """What has more jobs for a queue while it runs: a search. `states` gets those of new jobs."""

    @property
    def sweep(self) -> Sweep:
        """The sweep with the jobs so far."""

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""

    def resumed(self, states: dict[str, JobState]) -> list[SweepJob]:
        """What an earlier launch had begun."""

    def ask(self, states: dict[str, JobState], busy: Set[str], *, most: int) -> list[SweepJob]:
        """More jobs, now that there is room; `busy` are those that are not over.

        Up to `most`, where further ones need not wait for these and may be fitted together.
        """

    def watch(self, states: dict[str, JobState], busy: Set[str]) -> None:
        """Look at what runs and what has ended."""


class Queue:
    """Runs the jobs of a sweep that are not done, through an executor."""

    def __init__(
        self,
        folder: Path,
        sweep: Sweep,
        executor: Executor,
        *,
        output_dir: Path,
        policy: Policy,
        watch: Callable[[Queue], None] = lambda queue: None,
        feed: Feed | None = None,
    ) -> None:
        self.folder, self.sweep, self.executor, self.policy = folder, sweep, executor, policy
        self.feed = feed
        self.output_dir = output_dir
        self.jobs = {job.id: job for job in sweep.jobs}
        self.states = {job.id: read_state(folder, job.id) for job in sweep.jobs}
        self.waiting = [job.id for job in sweep.jobs if self.states[job.id].status not in DONE]
        self.stopping = self.interrupted = False
        self.begun: set[str] = set()
        """Jobs that this launch has started."""
        self._watch = watch
        self._retried: dict[str, int] = {}
        self._elsewhere: dict[str, float] = {}
        self._alone: set[str] = set()
        self._beside: dict[str, bool] = {}
        self.units: dict[str, tuple[str, ...]] = {}
        """With which others each job was started last, itself included."""
        self._attempts: dict[str, int] = {}
        self._most: dict[str, int] = {}

    def run(self) -> dict[str, JobState]:
        """Run what is left to run; returns what became of every job.

        Ctrl-C and SIGTERM let the running jobs stop and keep their checkpoints; a second one kills them. Both
        raise KeyboardInterrupt when that is done.
        """
        try:
            with self._signals():
                if self.feed:
                    self._add(self.feed.resumed(self.states))
                    self.feed.watch(self.states, self._busy)  # before it draws more, it hears what has ended
                self._watch(self)
                while self.waiting or self.executor.running or (self.feed and not self.feed.done):
                    self._start()
                    self._watch(self)  # some end before the next look
                    if self.stopping and not self.executor.running:
                        break
                    for ended in self.executor.wait(POLL):
                        self._end(ended)
                    if self.feed:
                        self.feed.watch(self.states, self._busy)
                        self.waiting = [job for job in self.waiting if self.states[job].status != "pruned"]
                    self._watch(self)
        finally:
            self.executor.close()
        if self.interrupted:
            raise KeyboardInterrupt
        return self.states

    def _start(self) -> None:
        """Give jobs to the executor while it has room."""
        while not self.stopping and (room := self.executor.room()) > 0:
            unit = self._next(room)
            if not unit and self.feed and not self.waiting:
                self._add(self.feed.ask(self.states, self._busy, most=MOST))
                unit = self._next(room)
            if not unit or self.stopping:  # asked to stop while it asked
                break
            others = self.executor.running
            started = now()
            for job in unit:
                self.waiting.remove(job)
                self.units[job], self._beside[job] = unit, bool(others)
                self._attempts[job] = self.states[job].attempts
                self.states[job] = JobState("running", self.states[job].run, started=started)
            self._beside |= dict.fromkeys(others, True)
            self.begun |= {*unit}
            self.executor.start(unit)
            if self.interrupted:  # in the meantime: this one has not been told
                self.executor.stop(now=False)
        if not self.executor.running and self.waiting and not self.stopping and self._elsewhere:
            time.sleep(POLL)  # all that is left is being done by another launch

    @property
    def to_come(self) -> int:
        """Jobs that it has yet to be given, at most."""
        return self.feed.sweep.to_come if self.feed else 0

    @property
    def _busy(self) -> set[str]:
        """Jobs that are not over."""
        return {*self.waiting, *self.executor.running}

    def _add(self, jobs: Sequence[SweepJob]) -> None:
        """Take further jobs in; those that it has already stay as they are."""
        fresh = [job for id, job in {job.id: job for job in jobs}.items() if id not in self.jobs]
        self.jobs |= {job.id: job for job in fresh}
        self.sweep = replace(self.sweep, jobs=(*self.sweep.jobs, *fresh))
        self.waiting += [job.id for job in fresh if self.states[job.id].status not in DONE]

    def _next(self, room: int) -> tuple[str, ...]:
        """The first job that may start, with those that are fitted together with it; none where all must wait."""
        running = {*self.executor.running}
        if running & self._alone:
            return ()
        ready = (self.jobs[job] for job in [*self.waiting] if self._is_ready(job, running))
        first = next(ready, None)
        if first is None:
            return ()
        if first.id in self._alone or not first.together:
            return (first.id,)
        others = (job for job in ready if job.id not in self._alone)
        return partners(first, others, room=room, most=self._most, divides=self.executor.divides)

    def _is_ready(self, job: str, running: Set[str]) -> bool:
        """Whether a job may start; one that cannot any more is failed."""
        if time.monotonic() < self._elsewhere.get(job, 0.0):
            return False
        needs = self.jobs[job].needs
        if needs and self.states[needs].status != "completed":
            if needs not in self.waiting and needs not in running:
                self._finish(job, "failed", "the job whose weights it needs has not completed", "stage")
            return False
        return not (job in self._alone and running)

    def _end(self, ended: Ended) -> None:
        """Take down what became of a job."""
        job = ended.job
        if ended.result == "elsewhere" or (ended.result is None and self._is_elsewhere(job)):
            self._elsewhere[job] = time.monotonic() + _ELSEWHERE
            self.states[job] = read_state(self.folder, job)
            self.waiting.append(job)
            return
        state = read_state(self.folder, job)
        if ended.result is None and not self._was_over(job, state):
            if self.interrupted:
                state.status, state.finished = "interrupted", now()
            else:
                state.status, state.kind, state.error, state.finished = "failed", ended.kind, ended.how, now()
            try:
                write_state(self.folder, job, state)
            except OSError as error:  # what still runs shall end by itself, and nothing else begins
                why = f"how it ended cannot be written ({error.strerror}); no further job starts."
                print(f"{job}: {why}", file=sys.stderr, flush=True)
                self.stopping = True
            self._tell_the_run(state)
        self.states[job] = state
        if state.status == "failed" and self._again(job, state):
            self._retried[job] = self._retried.get(job, 0) + 1
            self.waiting.append(job)
        elif state.status == "failed" and self.policy.stop_on_error:
            self.stopping = True

    def _is_elsewhere(self, job: str) -> bool:
        """Whether another launch is at a job whose process here is gone, and had not begun it."""
        if len(self.units[job]) == 1 or read_state(self.folder, job).attempts > self._attempts[job]:
            return False
        with alone(self.output_dir, self.jobs[job].key) as is_alone:
            return not is_alone

    def _was_over(self, job: str, state: JobState) -> bool:
        """Whether a job had come to its end when its process did; `state` says so then."""
        if state.status in DONE or len(self.units[job]) == 1:
            return state.status in DONE
        if run := completed_run(self.output_dir, self.jobs[job].key):  # while others were still at work
            state.status, state.run, state.finished = "completed", run, now()
            write_state(self.folder, job, state)
            return True
        return state.status == "failed" and state.attempts > self._attempts[job]

    def _tell_the_run(self, state: JobState) -> None:
        """Into the record of a run whose process is gone: it could not write down itself how it ended."""
        if state.run is None:
            return
        folder = self.output_dir / "runs" / state.run
        with suppress(RecordError, OSError):
            record = read_record(folder)
            if record.status == "running":
                record.status, record.error, record.finished = state.status, state.error, state.finished
                write_record(folder, record)

    def _again(self, job: str, state: JobState) -> bool:
        """Whether a failed job is tried again; one that ran out of memory has the machine to itself then.

        One that others were fitted with goes on with fewer of them. Where it was memory, or the process was killed,
        that is no further try: they were put together unasked.
        """
        if state.kind == "disk":  # it is full until somebody makes room
            return False
        if state.kind not in RETRIABLE or self.stopping:
            return False
        is_last, size = self._retried.get(job, 0) >= self.policy.retries, len(self.units[job])
        unasked = state.kind in ("memory", "killed")  # a machine short of memory kills, too
        if size > 1 and (unasked or not is_last):
            self._most[job] = max(1, size // _FEWER)
            if unasked:
                self._retried[job] = self._retried.get(job, 0) - 1
            return True
        if is_last:
            return False
        if state.kind == "memory":
            if not self._beside.get(job):
                return False
            self._alone.add(job)
        return True

    def _finish(self, job: str, status: str, error: str, kind: str) -> None:
        state = JobState(status, error=error, kind=kind, finished=now())
        write_state(self.folder, job, state)
        self.states[job] = state
        self.waiting.remove(job)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop the queue, the second at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            again, self.stopping, self.interrupted = self.interrupted, True, True
            self.executor.stop(now=again)

        before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
