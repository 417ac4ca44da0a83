"""From checked jobs to a sweep on disk: its name, what all its jobs share, and a frozen config per job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from headstart.config.plain import dumped, to_plain
from headstart.errors import ConfigError, RecordError
from headstart.records.atomic import write_text
from headstart.records.index import completed_run, completed_runs, note_run, run_of
from headstart.records.store import CONFIG, check_writable, now, slug
from headstart.records.studies import Study
from headstart.records.sweeps import (
    SWEEP,
    JobState,
    Sweep,
    SweepJob,
    job_folder,
    read_state,
    read_sweep,
    with_jobs,
    write_state,
    write_sweep,
)
from headstart.sweep.expand import Jobs
from headstart.sweep.preflight import Checked
from headstart.sweep.space import to_plain as space_to_plain
from headstart.sweep.studies import merged

_SHOWN_DIFFERENCES = 6
_LATER = ("trials", "keep_weights")
"""What of a search may be another the next time."""
_REPEATED = ("seed", "data.split_seed", "data.fold")


@dataclass(frozen=True)
class Planned:
    """A sweep that could be launched: its definition, and the resolved config of each job by its id."""

    sweep: Sweep
    configs: Mapping[str, dict[str, Any]]
    output_dir: Path

    @property
    def folder(self) -> Path:
        """Where it lies, or will."""
        return self.output_dir / "sweeps" / self.sweep.name


def plan_sweep(
    jobs: Jobs,
    checked: Sequence[Checked],
    *,
    command: Sequence[str],
    output_dir: Path,
    studies: tuple[Study, ...] = (),
) -> Planned:
    """Name the sweep and its jobs, or where it searches its studies; nothing is written."""
    fixed = fixed_part(jobs)
    fingerprints = {found.fingerprint for found in checked}
    if len(fingerprints) == 1:
        fixed["data (fingerprint)"] = fingerprints.pop()[:16]
    if jobs.tuned:
        fixed["search"] = {
            key: value for key, value in dataclasses.asdict(jobs.search).items() if key not in _LATER
        }
        fixed["tune"] = [space_to_plain(space) for space in dict.fromkeys(job.space for job in jobs.jobs)]
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    name = slug([jobs.asked_name]) if jobs.asked_name else f"{slug([jobs.name])}-{digest[:6]}"
    ids: list[str] = []
    seen: Counter[str] = Counter()
    for job, found in zip(jobs.jobs, checked, strict=True):
        words = [word.partition("=")[2] or word for word in job.varied] or ["run"]
        stem = f"{slug(words, longest=48)}-{found.key[:8]}"
        seen[stem] += 1
        ids.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    rows = tuple(
        SweepJob(
            id=ids[i],
            key=found.key,
            varied=" ".join(job.varied),
            overrides=job.overrides,
            name=job.name,
            needs=None if job.needs is None else ids[job.needs],
            trainable=found.trainable,
            steps=found.steps,
            together=found.together,
        )
        for i, (job, found) in enumerate(zip(jobs.jobs, checked, strict=True))
    )
    searched = bool(jobs.tuned)
    sweep = Sweep(
        name=name,
        command=tuple(command),
        started=now(),
        jobs=() if searched else rows,
        fixed=fixed,
        axes=jobs.axes,
        curve=jobs.curve,
        definition=jobs.definition,
        launcher=dataclasses.asdict(jobs.launcher),
        compared=tuple(key for key in jobs.axes if key not in (*_REPEATED, *jobs.tuned)),
        tuned=jobs.tuned,
        search=dataclasses.asdict(jobs.search) if searched else {},
        studies=studies,
    )
    # a job may run from another folder, on another machine
    configs = {ids[i]: {**found.config, "output_dir": str(output_dir)} for i, found in enumerate(checked)}
    return Planned(sweep, configs, output_dir)


def fixed_part(jobs: Jobs) -> dict[str, Any]:
    """What a launch must share with an earlier one to be the same sweep: the config without the axes."""
    plain = to_plain(jobs.jobs[0].config)
    for key in ("output_dir", "logger"):
        plain.pop(key)
    for key in (*jobs.axes, *jobs.tuned):
        *parents, last = key.split(".")
        node: Any = plain
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    flat = {key: value for key, value in _flat(plain) if key.partition(".")[2] != "path"}
    if "experiment" in jobs.axes or "sweep" in jobs.axes:  # which may set anything
        flat = {}
    return {"axes": sorted(jobs.axes), **flat}


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def open_sweep(planned: Planned, *, force_new: bool = False) -> tuple[Path, Sweep]:
    """Make the sweep's folder, or take up the one of that name; freeze the config of every job that is new to it.

    Raises ConfigError where the one of that name has another fixed part, naming what differs; with `force_new`
    a new one is made beside it. Several launches may do this at the same time.
    """
    check_writable(planned.output_dir)
    folder, sweep = planned.folder, planned.sweep
    folder.mkdir(parents=True, exist_ok=True)
    if force_new:
        for count in range(2, 10_000):
            if not (folder / SWEEP).exists():
                break
            folder = planned.folder.with_name(f"{planned.sweep.name}-{count}")
            folder.mkdir(exist_ok=True)
        sweep = replace(sweep, name=folder.name)
    with FileLock(folder / ".lock"):
        if (folder / SWEEP).exists():
            before = read_sweep(folder)
            _same_fixed_part(before, sweep)
            both = merged(before.studies, sweep.studies)
            sweep = replace(
                with_jobs(before, sweep.jobs), launcher=sweep.launcher, search=sweep.search, studies=both
            )
        by_key = {(job.key, job.name): planned.configs[job.id] for job in planned.sweep.jobs}
        for job in sweep.jobs:
            config = by_key.get((job.key, job.name))
            if config is not None:
                freeze(folder, job.id, config)
        write_sweep(folder, sweep)
    take_over(folder, planned.output_dir, sweep)
    return folder, sweep


def take_over(folder: Path, output_dir: Path, sweep: Sweep) -> None:
    """Bring the states in line with the runs that are there: made by whichever launch, or deleted since."""
    done = completed_runs(output_dir)
    for job in sweep.jobs:
        run = done.get(job.key) or completed_run(output_dir, job.key)
        if run and run_of(output_dir, job.key) != run:
            note_run(output_dir, job.key, run)
        settle(folder, job.id, run)


def settle(folder: Path, job_id: str, run: str | None) -> JobState:
    """The state of a job whose completed run is `run`, if there is one; written where it said otherwise."""
    state = read_state(folder, job_id)
    if run and state.status != "completed":
        state = JobState("completed", run, attempts=state.attempts, reused=run != state.run, finished=now())
    elif not run and state.status == "completed":
        state = JobState()
    else:
        return state
    write_state(folder, job_id, state)
    return state


def freeze(folder: Path, job_id: str, config: Mapping[str, Any]) -> None:
    """Write a job's config down, once: what is there stays."""
    place = job_folder(folder, job_id) / CONFIG
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, dumped(config))


def _same_fixed_part(before: Sweep, now: Sweep) -> None:
    if before.fixed == now.fixed:
        return
    lines = []
    for key in sorted({*before.fixed, *now.fixed}):
        old, new = before.fixed.get(key, "not there"), now.fixed.get(key, "not there")
        if old != new:
            lines.append(f"  {key}: was {_short(old)}, is {_short(new)}")
    more = f"\n  ... and {len(lines) - _SHOWN_DIFFERENCES} more" if len(lines) > _SHOWN_DIFFERENCES else ""
    raise ConfigError(
        f"sweep {before.name}: there is one of that name with another fixed part; give sweep.name=..., or "
        "--force-new to begin another beside it.\n" + "\n".join(lines[:_SHOWN_DIFFERENCES]) + more
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."


def is_sweep_name(name: str) -> bool:
    """Whether a sweep of this name, which is no path, lies in the outputs."""
    from headstart.config.paths import default_output_dir

    try:
        return "/" not in name and (default_output_dir() / "sweeps" / name / SWEEP).is_file()
    except OSError:  # a name that none can have
        return False


def find_sweep(name: Path) -> Path:
    """The folder of a sweep, given as such or by its name; raises RecordError where there is none."""
    from headstart.config.paths import default_output_dir

    for folder in (name, default_output_dir() / "sweeps" / name):
        if (folder / SWEEP).is_file():
            return folder
    where = default_output_dir() / "sweeps"
    raise RecordError(f"{name}: is not the folder of a run or sweep, nor the name of a sweep in {where}.")
