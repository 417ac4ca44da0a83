"""Worker slots on this machine: each job in a fresh process, forked from one that has imported what jobs need."""

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
"""Seconds that a job has between being asked to stop and being killed."""
_CODES = {"completed": 0, "failed": 10, "interrupted": 11, "elsewhere": 12, "pruned": 13}
_RESULTS = {code: result for result, code in _CODES.items()}

Work = Callable[[str, str, str], str]
"""Does a job in its own process: sweep's folder, job, output folder -> result."""


def forkserver() -> ForkServerContext:
    """Where jobs fork from: a process that has imported torch, timm and Lightning, and never touched a GPU."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment", "headstart.sweep.preflight"])
    return context


@dataclass
class _Worker:
    process: Any
    slot: int
    deadline: float | None
    asked: float | None = None
    """When it was asked to stop."""
    late: bool = False


class LocalExecutor:
    """As many jobs at a time as there are slots; a slot may be tied to a GPU, which its jobs then see alone."""

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
        self._workers: dict[str, _Worker] = {}
        # every job holds one end: when this process is gone, however it went, they notice
        self._theirs, self._ours = context.Pipe(duplex=False)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that have a slot."""
        return tuple(self._workers)

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self._workers) < len(self.slots)

    def start(self, job: str) -> None:
        """Fork a process for the job."""
        taken = {worker.slot for worker in self._workers.values()}
        slot = next(i for i in range(len(self.slots)) if i not in taken)
        process = self._context.Process(
            target=_enter,
            args=(str(self.sweep), job, str(self.output_dir), self.slots[slot], self._theirs, self.work),
            name=f"headstart {job}",
        )
        process.start()
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        self._workers[job] = _Worker(process, slot, deadline)

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that have ended; those past their time are stopped on the way."""
        if self._workers:
            connection.wait([worker.process.sentinel for worker in self._workers.values()], timeout=seconds)
        ended = []
        for job, worker in list(self._workers.items()):
            if worker.process.is_alive():
                self._hurry(worker)
                continue
            worker.process.join()
            ended.append(_ended(job, worker, self.timeout))
            worker.process.close()
            del self._workers[job]
        return ended

    def _hurry(self, worker: _Worker) -> None:
        now = time.monotonic()
        if worker.asked is None and worker.deadline is not None and now > worker.deadline:
            worker.late, worker.asked = True, now
            worker.process.terminate()
        elif worker.asked is not None and now > worker.asked + GRACE:
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


def _ended(job: str, worker: _Worker, timeout: float | None) -> Ended:
    code = worker.process.exitcode
    result = _RESULTS.get(code)
    if worker.late and result != "completed":
        return Ended(job, None, f"stopped after launcher.job_timeout ({timeout:g} s)", "timeout")
    if result is not None:
        return Ended(job, result)
    how = (
        f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with exit status {code}"
    )
    return Ended(job, None, f"the process was {how}" if code < 0 else f"the process {how}", "killed")


def _enter(
    sweep: str, job: str, output_dir: str, gpu: str | None, lifeline: connection.Connection, work: Work | None
) -> None:
    """In the job's own process: see to its surroundings, do it, and end with what came of it."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the queue's to pass on
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log_to(job_folder(Path(sweep), job) / LOG)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    if work is None:
        from headstart.sweep.job import perform_in

        work = perform_in
    try:
        result = work(sweep, job, output_dir)
    except KeyboardInterrupt:
        result = "interrupted"
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_CODES[result])


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def log_to(path: Path) -> None:
    """Send all that this process and its children print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _watch(lifeline: connection.Connection) -> None:
    """Stop this process when the one that launched it is gone."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    os.kill(os.getpid(), signal.SIGTERM)
