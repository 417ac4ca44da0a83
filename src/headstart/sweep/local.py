"""Worker slots on this machine: fresh processes, forked from one that has imported what jobs need."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from headstart.records.sweeps import LOG, job_folder
from headstart.sweep.executor import Ended

GRACE = 15.0
"""Seconds that a process has between being asked to stop and being killed, ..."""
_GRACE_EACH = 0.2
"""... and more for each job: it has as many records to write."""

Work = Callable[[str, tuple[str, ...], str], Sequence[str]]
"""Does the jobs of a process: sweep's folder, their ids, output folder -> what became of each."""


def forkserver() -> ForkServerContext:
    """Where jobs fork from: a process that has imported torch, timm and Lightning, and never touched a GPU."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment", "headstart.sweep.preflight"])
    return context


@dataclass
class _Worker:
    process: Any
    slot: int
    results: connection.Connection
    """What became of its jobs comes here, at the end."""
    deadline: float | None
    asked: float | None = None
    """When it was asked to stop."""
    late: bool = False


class LocalExecutor:
    """As many processes at a time as there are slots; one may be tied to a GPU, which its jobs then see alone."""

    divides = True

    def __init__(
        self,
        sweep: Path,
        *,
        output_dir: Path,
        slots: Sequence[str | None],
        timeout: float | None,
        context: ForkServerContext,
        work: Work | None = None,
    ) -> None:
        self.sweep, self.output_dir = sweep, output_dir
        self.slots = tuple(slots)
        self.timeout = timeout
        self.work = work
        self._context = context
        self._workers: dict[tuple[str, ...], _Worker] = {}
        # every job holds one end: when this process is gone, however it went, they notice
        self._theirs, self._ours = context.Pipe(duplex=False)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that have a slot."""
        return tuple(job for jobs in self._workers for job in jobs)

    def room(self) -> int:
        """How many slots are free."""
        return len(self.slots) - len(self._workers)

    def start(self, jobs: tuple[str, ...]) -> None:
        """Fork a process for them; each brings its own time to it."""
        taken = {worker.slot for worker in self._workers.values()}
        slot = next(i for i in range(len(self.slots)) if i not in taken)
        results, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_enter,
            args=(str(self.sweep), jobs, str(self.output_dir), self.slots[slot], self._theirs, theirs, self.work),
            name=f"headstart {jobs[0]}",
        )
        process.start()
        theirs.close()
        deadline = None if self.timeout is None else time.monotonic() + self.timeout * len(jobs)
        self._workers[jobs] = _Worker(process, slot, results, deadline)

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that have ended; those past their time are stopped on the way."""
        if self._workers:
            connection.wait([worker.process.sentinel for worker in self._workers.values()], timeout=seconds)
        ended = []
        for jobs, worker in list(self._workers.items()):
            if worker.process.is_alive():
                self._hurry(worker, grace=GRACE + _GRACE_EACH * (len(jobs) - 1))
                continue
            worker.process.join()
            ended += _ended(jobs, worker, self.timeout)
            worker.process.close()
            del self._workers[jobs]
        return ended

    def _hurry(self, worker: _Worker, *, grace: float) -> None:
        now = time.monotonic()
        if worker.asked is None and worker.deadline is not None and now > worker.deadline:
            worker.late, worker.asked = True, now
            worker.process.terminate()
        elif worker.asked is not None and now > worker.asked + grace:
            worker.process.kill()

    def stop(self, *, now: bool) -> None:
        """Ask all jobs to stop, or kill them."""
        for worker in self._workers.values():
            if now:
                worker.process.kill()
            elif worker.asked is None:
                worker.asked = time.monotonic()
                worker.process.terminate()

    def close(self) -> None:
        """Kill what still runs."""
        self.stop(now=True)
        for worker in self._workers.values():
            worker.process.join(5)
        self._workers.clear()
        self._ours.close()
        self._theirs.close()


def _ended(jobs: tuple[str, ...], worker: _Worker, timeout: float | None) -> list[Ended]:
    code, results = worker.process.exitcode, _results(worker, count=len(jobs))
    if worker.late:
        how, kind = timed_out(timeout, jobs=len(jobs)), "timeout"
    elif code < 0:
        how, kind = f"the process was killed by signal {-code} ({signal.Signals(-code).name})", "killed"
    else:
        how, kind = f"the process ended with exit status {code}", "killed"
    known = ("completed",) if worker.late else _RESULTS
    return [
        Ended(job, result) if result in known else Ended(job, None, how, kind)
        for job, result in zip(jobs, results, strict=True)
    ]


def _results(worker: _Worker, *, count: int) -> Sequence[str | None]:
    """What a process that is gone has said of its jobs; None for each where it did not come to that."""
    found: Sequence[str | None] = ()
    with suppress(EOFError, OSError), worker.results:
        if worker.results.poll():
            found = worker.results.recv()
    return found if len(found) == count else [None] * count


_RESULTS = ("completed", "failed", "interrupted", "elsewhere", "pruned")


def timed_out(timeout: float | None, *, jobs: int) -> str:
    """The words for jobs that were stopped after their time."""
    times = f"{jobs} times " if jobs > 1 else ""
    return f"stopped after {times}launcher.job_timeout ({timeout:g} s)"


def _enter(
    sweep: str,
    jobs: tuple[str, ...],
    output_dir: str,
    gpu: str | None,
    lifeline: connection.Connection,
    results: connection.Connection,
    work: Work | None,
) -> None:
    """In a process of its own: see to its surroundings, do the jobs, and say what came of each."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the queue's to pass on
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log_to(Path(sweep), jobs)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    if work is None:
        from headstart.sweep.job import perform_in

        work = perform_in
    try:
        said = work(sweep, jobs, output_dir)
    except KeyboardInterrupt:
        said = ["interrupted"] * len(jobs)
    sys.stdout.flush()
    sys.stderr.flush()
    results.send(list(said))
    os._exit(0)


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def log_to(sweep: Path, jobs: Sequence[str]) -> None:
    """Send all that this process and its children print to the log of its first job; the others' say where."""
    first = job_folder(sweep, jobs[0]) / LOG
    first.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(first, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    if len(jobs) == 1:
        return
    os.write(1, f"fitted together, {len(jobs)} jobs in one process: {', '.join(jobs)}\n".encode())
    for job in jobs[1:]:
        path = job_folder(sweep, job) / LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(f"fitted together with {len(jobs) - 1} others; what they print is in ../{jobs[0]}/{LOG}\n")


def _watch(lifeline: connection.Connection) -> None:
    """Stop this process when the one that launched it is gone."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os.kill(os.getpid(), signal.SIGTERM)
