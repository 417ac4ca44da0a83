"""What a sweep leaves on disk: its definition, a frozen config per job, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.records.atomic import write_json
from headstart.records.studies import Chosen, Study

SWEEP = "sweep.json"
JOBS = "jobs"
STATE = "state.json"
LOG = "log.txt"
PRUNE = "prune"
"""A file beside a job's state that asks it to stop: its trial is no good."""
SCHEMA_VERSION = 4
READABLE = (2, 3, 4)
DONE = ("completed", "pruned")
"""States of jobs that nothing is left to do for."""
ENDED = (*DONE, "failed")
RETRIABLE = ("killed", "memory", "timeout", "lost", "disk")
"""Kinds of failure that say nothing of the job itself."""


@dataclass(frozen=True)
class SweepJob:
    """One job as it was planned."""

    id: str
    """Its folder in the sweep's `jobs`: short, readable, unique."""
    key: str
    """The job key by which it is known to have been done already."""
    varied: str
    """What tells it from the other jobs."""
    overrides: tuple[str, ...] = ()
    name: str = ""
    needs: str | None = None
    """Id of the job whose weights it starts from."""
    trainable: int = 0
    steps: int = 0
    study: str | None = None
    """Id of the study that it is a part of, in a sweep that searches."""
    trial: int | None = None
    """Its number there; None for a run of what was found."""
    tuned: dict[str, Any] = field(default_factory=dict)
    """Its values of the tuned keys."""
    together: str = ""
    """What it shares with the jobs that are fitted with it, in one process; empty where it has one of its own."""


@dataclass
class JobState:
    """What became of a job: `waiting`, `running`, `completed`, `failed`, `interrupted` or `pruned`."""

    status: str = "waiting"
    run: str | None = None
    """Id of its run."""
    error: str | None = None
    kind: str | None = None
    """Of a failure: `mistake`, `diverged`, `exception`, `stage`, or one of `RETRIABLE`."""
    attempts: int = 0
    reused: bool = False
    """Whether the run had been made before, by another launch."""
    started: str | None = None
    finished: str | None = None


@dataclass(frozen=True)
class Sweep:
    """The definition of a sweep: what it was asked for with, and its jobs in order."""

    name: str
    command: tuple[str, ...]
    started: str
    jobs: tuple[SweepJob, ...]
    fixed: dict[str, Any] = field(default_factory=dict)
    """What all jobs share: a launch with another fixed part is another sweep."""
    axes: tuple[str, ...] = ()
    curve: tuple[str, ...] = ()
    definition: dict[str, Any] = field(default_factory=dict)
    """The sweep file's own part, as it was read."""
    launcher: dict[str, Any] = field(default_factory=dict)
    """How it was launched last."""
    compared: tuple[str, ...] = ()
    """Keys in which arms differ, and that are compared."""
    tuned: tuple[str, ...] = ()
    """Keys that are searched, for each arm by the same number of trials."""
    search: dict[str, Any] = field(default_factory=dict)
    """How, as it was launched last."""
    studies: tuple[Study, ...] = ()
    chosen: dict[str, Chosen] = field(default_factory=dict)
    """What was found, by study."""

    @property
    def answers(self) -> tuple[SweepJob, ...]:
        """The jobs that are compared: no trials, and no runs of what has been found worse since."""
        return tuple(
            job
            for job in self.jobs
            if job.study is None
            or (job.trial is None and job.study in self.chosen and job.tuned == self.chosen[job.study].tuned)
        )

    @property
    def current(self) -> tuple[SweepJob, ...]:
        """All jobs but runs of what has been found worse since."""
        answers = {job.id for job in self.answers}
        return tuple(
            job for job in self.jobs if job.trial is not None or job.id in answers or job.study not in self.chosen
        )

    @property
    def is_answered(self) -> bool:
        """Whether everything that was searched has been found, by trials that all did what they should."""
        found = [self.chosen.get(study.id) for study in self.studies]
        return all(chosen is not None and chosen.trial is not None and not chosen.failed for chosen in found)

    @property
    def to_come(self) -> int:
        """Jobs that a search has yet to ask for, at most."""
        seeds = len(self.search.get("seeds", ()))
        count = 0
        for study in self.studies:
            if study.id not in self.chosen:
                numbers = [job.trial for job in self.jobs if job.study == study.id]
                there = sum(number is not None and number < study.trials for number in numbers)
                count += max(0, study.trials * seeds + len(study.seeds) - there)
        return count


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write `sweep.json`, whole or not at all."""
    write_json(folder / SWEEP, {"schema_version": SCHEMA_VERSION, **asdict(sweep)})


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep's definition; raises RecordError that names the file and what is wrong with it."""
    path = folder / SWEEP
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["schema_version"] not in READABLE:
            raise RecordError(f"{path}: has schema version {value['schema_version']}, not {SCHEMA_VERSION}.")
        _check_shapes(value)
        parts: dict[str, Any] = {
            "jobs": tuple(SweepJob(**_tuples(job)) for job in value["jobs"]),
            "studies": tuple(Study(**_tuples(study)) for study in value.get("studies", ())),
            "chosen": {id: Chosen(**_tuples(chosen)) for id, chosen in value.get("chosen", {}).items()},
        }
        known = {f.name for f in fields(Sweep)} - set(parts)
        return Sweep(**parts, **_tuples({key: item for key, item in value.items() if key in known}))
    except FileNotFoundError as error:
        raise RecordError(f"{folder}: is not a sweep's folder (it has no {SWEEP}).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path}: is damaged ({type(error).__name__}).") from error


def _check_shapes(value: dict[str, Any]) -> None:
    """Raise TypeError or ValueError where a part is of another kind than it must be, or an id is a path."""
    seeds = value.get("search", {}).get("seeds", [])
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise TypeError
    for study in value.get("studies", ()):
        parts = (study["space"], study["config"], study["trial_config"], study["config"]["trainer"])
        if not all(isinstance(part, dict) for part in parts) or not isinstance(study["trials"], int):
            raise TypeError
    for job in value["jobs"]:
        if Path(job["id"]).name != job["id"] or job["id"] == "..":
            raise ValueError


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


def job_folder(folder: Path, job_id: str) -> Path:
    """Where a job's frozen config, state and log lie."""
    return folder / JOBS / Path(job_id).name


def write_state(folder: Path, job_id: str, state: JobState) -> None:
    """Write what became of a job, whole or not at all."""
    write_json(job_folder(folder, job_id) / STATE, asdict(state))


def read_state(folder: Path, job_id: str) -> JobState:
    """What became of a job; `waiting` where nothing has been written yet, or what was is damaged."""
    try:
        value = json.loads((job_folder(folder, job_id) / STATE).read_text(encoding="utf-8"))
        state = JobState(**value)
        state.run = Path(state.run).name if state.run else None
        return state
    except (OSError, ValueError, TypeError):
        return JobState()


def states_of(folder: Path, jobs: Iterable[SweepJob]) -> dict[str, JobState]:
    """What became of each job, by its id."""
    return {job.id: read_state(folder, job.id) for job in jobs}


def with_jobs(sweep: Sweep, jobs: Iterable[SweepJob]) -> Sweep:
    """The sweep with further jobs at its end; those that it has already keep their place and folder."""
    there = {(job.key, job.name): job.id for job in sweep.jobs}
    offered = tuple(jobs)
    ids = {job.id: there.get((job.key, job.name), job.id) for job in offered}
    fresh = [job for job in offered if (job.key, job.name) not in there]
    fresh = [replace(job, needs=ids[job.needs] if job.needs else None) for job in fresh]
    return replace(sweep, jobs=(*sweep.jobs, *fresh))
