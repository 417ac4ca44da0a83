"""One job of a sweep: done once, whoever asks, and whenever it was interrupted."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
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
    Sweep,
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
    job = find_job(plan, job_id, where=sweep)
    with alone(output_dir, job.key) as is_alone:
        if not is_alone:
            return "elsewhere"
        before = read_state(sweep, job_id)
        state = begin(sweep, job, before, output_dir=output_dir, started=now())
        if state.status == "completed":
            return "completed"
        _attempt(sweep, plan.command, job, before, state, output_dir=output_dir, run=run)
        end(sweep, plan, job, state, output_dir=output_dir)
        return state.status


def find_job(plan: Sweep, job_id: str, *, where: Path) -> SweepJob:
    """A job of a sweep; raises RecordError where there is none of that id."""
    job = next((job for job in plan.jobs if job.id == job_id), None)
    if job is None:
        raise RecordError(f"{where}: has no job {job_id}.")
    return job


def begin(sweep: Path, job: SweepJob, before: JobState, *, output_dir: Path, started: str) -> JobState:
    """Write down that a job runs now, or that it is completed: a run with its key was made before, by whomever."""
    done = completed_run(output_dir, job.key)
    if done:
        state = JobState("completed", done, attempts=before.attempts, reused=done != before.run)
        state = replace(state, started=before.started, finished=now())
    else:
        state = JobState("running", before.run, attempts=before.attempts + 1, started=started)
    write_state(sweep, job.id, state)
    return state


def end(sweep: Path, plan: Sweep, job: SweepJob, state: JobState, *, output_dir: Path) -> None:
    """Write down what became of a job; of a trial's run little is kept."""
    state.finished = now()
    write_state(sweep, job.id, state)
    if job.trial is not None and state.run and state.status in ("completed", "pruned"):
        _lighten(output_dir / "runs" / state.run, plan.name, keep=bool(plan.search.get("keep_weights")))


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
    announce = announcer(sweep, job, state, output_dir=output_dir)
    try:
        if was_pruned(job, before, output_dir=output_dir, state=state):
            return
        config = frozen_config(sweep, job, output_dir)
        earlier = unfinished(output_dir, job, before)
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
    except BaseException as error:
        tell(state, error)


def announcer(sweep: Path, job: SweepJob, state: JobState, *, output_dir: Path) -> Callable[[Path], None]:
    """What is told the folder of a job's run as soon as there is one."""

    def announce(folder: Path) -> None:
        state.run = folder.name
        note_run(output_dir, job.key, folder.name)
        write_state(sweep, job.id, state)

    return announce


def tell(state: JobState, error: BaseException) -> None:
    """Into the state of a job: what ended it."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        state.status = "interrupted"
    elif isinstance(error, RunPruned):
        state.status, state.error = "pruned", str(error)
    elif isinstance(error, HeadstartError):
        kinds = ((OutOfMemory, "memory"), (DiskTrouble, "disk"), (RunFailed, "diverged"))
        state.kind = next((kind for cls, kind in kinds if isinstance(error, cls)), "mistake")
        state.status, state.error = "failed", str(error)
    else:
        traceback.print_exception(error)
        state.status, state.kind = "failed", "memory" if ran_out_of_memory(error) else "exception"
        state.error = redact("".join(traceback.format_exception_only(error)).strip())


def was_pruned(job: SweepJob, before: JobState, *, output_dir: Path, state: JobState) -> bool:
    """Whether a trial was stopped by an earlier launch; `state` says so then."""
    if job.trial is None or not before.run or not _is_pruned(output_dir / "runs" / before.run):
        return False
    state.status, state.error = "pruned", "stopped before: other trials were better by then."
    return True


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


def frozen_config(sweep: Path, job: SweepJob, output_dir: Path) -> Config:
    """The frozen config, with the run of the job that it needs in its place."""
    config = read_config(job_folder(sweep, job.id) / CONFIG)
    if job.needs is None:
        return config
    stage = read_state(sweep, job.needs)
    if stage.status != "completed" or stage.run is None:
        raise RecordError("the job whose weights it needs has not completed.")
    path = str((output_dir / "runs" / stage.run).absolute())
    return replace(config, weights=replace(config.weights, path=path))  # type: ignore[call-arg]


def unfinished(output_dir: Path, job: SweepJob, before: JobState) -> Path | None:
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
def alone(output_dir: Path, key: str) -> Iterator[bool]:
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


def perform_in(sweep: str, jobs: Sequence[str], output_dir: str) -> list[Result]:
    """Do the jobs of a process, with what one can be handed; what it prints is kept, so secrets are taken out."""
    with redacted_output():
        try:
            if len(jobs) == 1:
                return [perform(Path(sweep), jobs[0], output_dir=Path(output_dir))]
            from headstart.sweep.together import perform_together

            return perform_together(Path(sweep), jobs, output_dir=Path(output_dir))
        except Exception as error:
            show_traceback(error)
            # whoever called prints what it gets, too
            raise RunFailed(redact(f"{type(error).__name__}: {error}")) from None
