"""One job of a sweep: done once, whoever asks, and whenever it was interrupted."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headstart.config.plain import read_config
from headstart.config.schema.root import Config
from headstart.errors import DiskTrouble, HeadstartError, OutOfMemory, RecordError, RunFailed, RunPruned
from headstart.records.index import completed_run, index_folder, note_run, run_of
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, now, read_record
from headstart.records.sweeps import (
    PRUNE,
    RETRIABLE,
    JobState,
    SweepJob,
    job_folder,
    read_state,
    read_sweep,
    write_state,
)
from headstart.redaction import redact, redacted_output, show_traceback
from headstart.trouble import ran_out_of_memory

Result = str
"""`completed`, `failed`, `interrupted`, `pruned`, or `elsewhere` where another process is at it."""

Run = Callable[..., tuple[Path, RunRecord]]


def perform(sweep: Path, job_id: str, *, output_dir: Path, run: Run | None = None) -> Result:
    """Do a job unless it has been done; what became of it is on disk when this returns, whatever happens.

    A run with its key that has completed is taken over, one that was interrupted goes on from its last
    checkpoint. While a process is at a job, no other is. `run` is what trains; by default the experiment.
    """
    plan = read_sweep(sweep)
    job = next((job for job in plan.jobs if job.id == job_id), None)
    if job is None:
        raise RecordError(f"{sweep}: has no job {job_id}.")
    with _alone(output_dir, job.key) as alone:
        if not alone:
            return "elsewhere"
        before = read_state(sweep, job_id)
        state = JobState("running", before.run, attempts=before.attempts + 1, started=now())
        done = completed_run(output_dir, job.key)
        if done:
            finished = JobState("completed", done, attempts=before.attempts, reused=done != before.run)
            write_state(sweep, job_id, replace(finished, started=before.started, finished=now()))
            return "completed"
        write_state(sweep, job_id, state)
        _attempt(sweep, plan.command, job, before, state, output_dir=output_dir, run=run)
        state.finished = now()
        write_state(sweep, job_id, state)
        if job.trial is not None and state.run and state.status in ("completed", "pruned"):
            _lighten(output_dir / "runs" / state.run, plan.name, keep=bool(plan.search.get("keep_weights")))
        return state.status


def _attempt(
    sweep: Path,
    command: tuple[str, ...],
    job: SweepJob,
    before: JobState,
    state: JobState,
    *,
    output_dir: Path,
    run: Run | None,
) -> None:
    """Run or resume; `state` says what came of it."""

    def announce(folder: Path) -> None:
        state.run = folder.name
        note_run(output_dir, job.key, folder.name)
        write_state(sweep, job.id, state)

    try:
        if job.trial is not None and before.run and _is_pruned(output_dir / "runs" / before.run):
            state.status, state.error = "pruned", "stopped before: other trials were better by then."
            return
        config = _config(sweep, job, output_dir)
        earlier = _unfinished(output_dir, job, before)
        more: dict[str, Any] = {} if job.trial is None else {"prune": (job_folder(sweep, job.id) / PRUNE).exists}
        if earlier is not None and run is None:
            from headstart.experiment import resume

            announce(earlier)
            resume(earlier, alone=True, **more)
        else:
            if run is None:
                from headstart.experiment import run as run_experiment

                run = run_experiment
            expected = job.key if job.needs is None else None
            run(config, command=command, launched_by=sweep.name, announce=announce, expected_key=expected, **more)
        state.status = "completed"
    except (KeyboardInterrupt, SystemExit):
        state.status = "interrupted"
    except RunPruned as error:
        state.status, state.error = "pruned", str(error)
    except OutOfMemory as error:
        state.status, state.kind, state.error = "failed", "memory", str(error)
    except DiskTrouble as error:
        state.status, state.kind, state.error = "failed", "disk", str(error)
    except RunFailed as error:
        state.status, state.kind, state.error = "failed", "diverged", str(error)
    except HeadstartError as error:
        state.status, state.kind, state.error = "failed", "mistake", str(error)
    except BaseException as error:
        traceback.print_exc()
        state.status, state.kind = "failed", "memory" if ran_out_of_memory(error) else "exception"
        state.error = redact("".join(traceback.format_exception_only(error)).strip())


def _is_pruned(run: Path) -> bool:
    try:
        return read_record(run).status == "pruned"
    except RecordError:
        return False


def _lighten(run: Path, sweep: str, *, keep: bool) -> None:
    """Free what a trial's run holds beside its record, unless another began it: hundreds would fill a disk."""
    from headstart.training.checkpoints import FOLDER
    from headstart.training.engine import finish_checkpoints

    finish_checkpoints(run)
    if not keep and read_record(run).launched_by == sweep:
        shutil.rmtree(run / FOLDER, ignore_errors=True)


def _config(sweep: Path, job: SweepJob, output_dir: Path) -> Config:
    """The frozen config, with the run of the job that it needs in its place."""
    config = read_config(job_folder(sweep, job.id) / CONFIG)
    if job.needs is None:
        return config
    stage = read_state(sweep, job.needs)
    if stage.status != "completed" or stage.run is None:
        raise RecordError("the job whose weights it needs has not completed.")
    path = str((output_dir / "runs" / stage.run).absolute())
    return replace(config, weights=replace(config.weights, path=path))  # type: ignore[call-arg]


def _unfinished(output_dir: Path, job: SweepJob, before: JobState) -> Path | None:
    """The run with this key that may go on from where it stopped: nothing was wrong with the job itself."""
    name = run_of(output_dir, job.key)
    folder = output_dir / "runs" / name if name else None
    if folder is None:
        return None
    try:
        record = read_record(folder)
    except RecordError:
        return None
    if record.status == "pruned":  # another search's: this job has its own history
        return None
    by_itself = record.status == "failed" and not (before.run == name and before.kind in RETRIABLE)
    return None if by_itself or record.status == "completed" else folder


@contextmanager
def _alone(output_dir: Path, key: str) -> Iterator[bool]:
    """Whether this process is the only one at the job; the lock goes with the process, however it ends."""
    folder = index_folder(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{key[:40]}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def perform_in(sweep: str, job_id: str, output_dir: str) -> Result:
    """`perform`, with what a process can be handed; what it prints is kept, so secrets are taken out of it."""
    with redacted_output():
        try:
            return perform(Path(sweep), job_id, output_dir=Path(output_dir))
        except Exception as error:
            show_traceback(error)
            # whoever called prints what it gets, too
            raise RunFailed(redact(f"{type(error).__name__}: {error}")) from None
