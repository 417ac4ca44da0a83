"""Running the jobs of a sweep on this machine: one after another, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from headstart.config.paths import output_dir_of
from headstart.config.plain import from_plain, to_plain
from headstart.config.schema.root import Config
from headstart.errors import HeadstartError, RecordError
from headstart.records.atomic import write_json
from headstart.records.store import SWEEP, new_sweep_folder, now, read_record, write_record
from headstart.sweep.expand import Job, Jobs
from headstart.sweep.preflight import check_jobs

SCHEMA_VERSION = 1


@dataclass
class Outcome:
    """What became of a job."""

    overrides: list[str]
    varied: str
    name: str = ""
    job_key: str = ""
    needs: int | None = None
    """Place in the table of the job whose weights it starts from."""
    status: str = "waiting"
    run: str | None = None
    error: str | None = None


def run_jobs(jobs: Jobs, *, command: Sequence[str], say: Callable[[str], None]) -> tuple[Path, list[Outcome]]:
    """Check all jobs, then run them; one that fails does not touch the others.

    Returns the sweep's folder and an outcome per job. Raises ConfigError where a job could not start, and
    KeyboardInterrupt where it was stopped; the run that was under way is then marked as interrupted.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment"])
    say("checking the jobs ...")
    keys = check_jobs(jobs.jobs, context)
    output_dir = output_dir_of(jobs.jobs[0].config)
    folder = new_sweep_folder(output_dir, name=jobs.name)
    outcomes = [
        Outcome(list(job.overrides), " ".join(job.varied), job.name, key, job.needs)
        for job, key in zip(jobs.jobs, keys, strict=True)
    ]
    started = now()

    def write() -> None:
        table = [asdict(outcome) for outcome in outcomes]
        value = {
            "schema_version": SCHEMA_VERSION,
            "name": folder.name,
            "command": list(command),
            "started": started,
            "curve": list(jobs.curve),
            "jobs": table,
        }
        write_json(folder / SWEEP, value)

    write()
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        for i, (job, outcome) in enumerate(zip(jobs.jobs, outcomes, strict=True), start=1):
            say(f"[{i}/{len(outcomes)}] {outcome.varied or 'one run'}")
            outcome.status = "running"
            write()
            try:
                config = _with_stage(job, outcomes)
                if config is None:
                    outcome.status, outcome.error = "failed", "the job whose weights it needs has not completed"
                else:
                    _run_apart(config, outcome, context, command=command, sweep=folder.name)
            except KeyboardInterrupt:
                outcome.status = "interrupted"
                write()
                raise
            write()
            if outcome.error:
                say(f"  failed: {outcome.error.strip().splitlines()[-1]}")
    finally:
        signal.signal(signal.SIGTERM, before)
    return folder, outcomes


def _with_stage(job: Job, outcomes: Sequence[Outcome]) -> Config | None:
    """The job's config with the run of the job that it needs in its place; None where that has not completed."""
    if job.needs is None:
        return job.config
    stage = outcomes[job.needs]
    if stage.status != "completed" or stage.run is None:
        return None
    path = str((output_dir_of(job.config) / "runs" / stage.run).absolute())
    return replace(job.config, weights=replace(job.config.weights, path=path))  # type: ignore[call-arg]


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run_apart(config: Config, outcome: Outcome, context: Any, *, command: Sequence[str], sweep: str) -> None:
    """One job in a fresh process; what it says through the pipe fills `outcome`."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work,
        args=(to_plain(config), list(command), sweep, theirs),
        name=f"headstart {outcome.varied}",
    )
    process.start()
    theirs.close()
    output_dir = output_dir_of(config)
    try:
        while True:
            try:
                key, value = ours.recv()
            except EOFError:
                break
            setattr(outcome, key, value)
        process.join()
    except BaseException:
        process.terminate()
        process.join(30)
        if process.is_alive():
            process.kill()
        raise
    finally:
        ours.close()
    if outcome.status == "running":  # it died without a word
        how = f"killed by signal {-process.exitcode}" if process.exitcode < 0 else f"exit status {process.exitcode}"
        outcome.status, outcome.error = "failed", f"the process ended without a result ({how})"
        if outcome.run:
            with suppress(RecordError, OSError):
                run = output_dir / "runs" / outcome.run
                record = read_record(run)
                record.status, record.error, record.finished = "failed", outcome.error, now()
                write_record(run, record)


def _work(plain: dict[str, Any], command: list[str], sweep: str, pipe: Connection) -> None:
    """In the job's own process: run it and say what became of it."""
    from headstart.experiment import run

    def tell(key: str, value: Any) -> None:
        pipe.send((key, value))

    try:
        run(
            from_plain(plain),
            command=command,
            launched_by=sweep,
            announce=lambda folder: tell("run", folder.name),
        )
        tell("status", "completed")
    except KeyboardInterrupt:
        tell("status", "interrupted")
    except HeadstartError as error:
        tell("error", str(error))
        tell("status", "failed")
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        tell("error", "".join(traceback.format_exception_only(error)).strip())
        tell("status", "failed")
    finally:
        pipe.close()
