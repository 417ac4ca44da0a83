"""Where results come from: run folders, sweeps, somebody's CSV file, W&B."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.compare.csv_results import read_csv_results
from headstart.compare.results import Result, result_of_run
from headstart.compare.wandb_results import PREFIX, read_wandb_results
from headstart.errors import RecordError
from headstart.records.store import find_runs
from headstart.records.studies import overrides_of
from headstart.records.sweeps import SWEEP, read_sweep, states_of

MOST_NAMED = 5
"""Damaged records that are named one by one; the rest is counted."""


@dataclass
class _Said:
    """What sweeps say of a run."""

    declared: set[str] = field(default_factory=set)
    trials: int | None = None
    searched: str = ""
    name: str = ""


def find_results(paths: Sequence[Path], *, metric: str | None = None) -> tuple[list[Result], list[str]]:
    """All results that `paths` stand for, each once, and a line for each record that cannot be read.

    A path is a run, a sweep (without the trials of its search), a folder above runs, a CSV file, or
    `wandb:entity/project[/group]`. Raises RecordError where a path has no results at all.
    """
    tables = [path for path in paths if path.suffix.lower() == ".csv"]
    addresses = [str(path) for path in paths if str(path).startswith(PREFIX)]
    folders = [path for path in paths if path not in tables and str(path) not in addresses]
    results = [result for path in tables for result in read_csv_results(path, metric=metric)]
    notes: list[str] = []
    for address in addresses:
        found, left_out = read_wandb_results(address)
        results += found
        notes += left_out
    if folders:
        runs, damaged = find_runs(folders, answers=True)
        said = _said_by_sweeps(folders, [(folder, record.launched_by) for folder, record in runs])
        for folder, record in runs:
            about = said.get(folder.name, _Said())
            results.append(
                replace(
                    result_of_run(folder, record),
                    declared=frozenset(about.declared),
                    trials=about.trials,
                    searched=about.searched,
                    job_name=about.name,
                )
            )
        notes += [f"left out: {line}" for line in damaged[:MOST_NAMED]]
        if len(damaged) > MOST_NAMED:
            notes.append(f"left out: {len(damaged) - MOST_NAMED} more records that cannot be read.")
    if not results and notes:
        raise RecordError(f"no record can be read: {notes[0].removeprefix('left out: ')}")
    return results, notes


def _said_by_sweeps(paths: Sequence[Path], runs: Sequence[tuple[Path, str | None]]) -> dict[str, _Said]:
    """Run id -> which of its keys are compared or tuned, by how many trials, and its name, in its sweeps."""
    sweeps = dict.fromkeys(path.resolve() for path in paths if (path / SWEEP).is_file())
    members: dict[Path, list[str]] = {}
    for folder, sweep in runs:
        if sweep:
            home = folder.parent.parent / "sweeps" / Path(sweep).name
            members.setdefault(home, []).append(folder.name)
    found: dict[str, _Said] = {}
    for home in dict.fromkeys([*sweeps, *members]):
        with suppress(RecordError):  # the runs are what counts
            sweep_file = read_sweep(home)
            keys = {*sweep_file.compared, *sweep_file.tuned}
            spaces = {study.id: study.space for study in sweep_file.studies}
            names = set(members.get(home, ()))
            if home in sweeps or sweep_file.studies or any(job.name for job in sweep_file.jobs):
                states = states_of(home, sweep_file.jobs)
                names |= {Path(state.run).name for state in states.values() if state.run}
                for job in sweep_file.jobs:
                    run = states[job.id].run
                    if run is None or job.trial is not None:
                        continue
                    about = found.setdefault(Path(run).name, _Said())
                    about.name = about.name or job.name
                    chosen = sweep_file.chosen.get(job.study or "")
                    if chosen:
                        about.trials = chosen.trials
                        about.searched = _searched(job.tuned, spaces.get(job.study or "", {}))
            for name in names:
                found.setdefault(name, _Said()).declared |= keys
    return found


def _searched(tuned: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """`optimizer.lr=0.01 of [0.001,0.01,0.1]`."""
    words = overrides_of(tuned)
    of = [json.dumps(space.get(key)).replace('"', "").replace(" ", "") for key in tuned]
    return "; ".join(f"{word} of {found}" for word, found in zip(words, of, strict=True))
