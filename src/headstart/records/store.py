"""Run folders: making one, and reading many back."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from headstart.errors import ConfigError, RecordError
from headstart.records.atomic import write_json
from headstart.records.schema import RunRecord
from headstart.records.sweeps import SWEEP, read_sweep, states_of

RECORD = "run.json"
CONFIG = "config.yaml"
RUNS = "runs"
REPRODUCTIONS = "reproductions"
"""Where runs lie that repeat others: no comparison finds them there, as they would count twice."""


def now() -> str:
    """The present moment in UTC, to the second, as in every record."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slug(words: Sequence[str], *, longest: int = 60) -> str:
    """Short and readable, safe as a file name anywhere."""
    text = "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", word).strip("._") for word in words if word)
    return text[:longest].rstrip("-._") or "run"


def new_run_folder(output_dir: Path, *, words: Sequence[str], digest: str, kind: str = RUNS) -> Path:
    """Make and return `output_dir/runs/<utc>-<slug>-<hash8>`, one that no other launch has.

    `kind` is the folder in the place of `runs`. Raises ConfigError where `output_dir` cannot be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return _make(output_dir / kind, f"{stamp}-{slug(words)}-{digest[:8]}")


def _make(parent: Path, name: str) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for count in range(1, 10_000):
            folder = parent / (name if count == 1 else f"{name}-{count}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise ConfigError(f"output_dir: cannot write to {parent} ({error.strerror}); set another.") from error
    raise ConfigError(f"output_dir: {parent} has too many runs named {name}.")


def check_writable(output_dir: Path) -> None:
    """Raise ConfigError where no run folder could be made in `output_dir`; makes nothing."""
    folder = output_dir.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"output_dir={output_dir}: {folder} is a file, not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"output_dir={output_dir}: {folder} cannot be written; set another.")


def write_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json` of a run folder, whole or not at all."""
    write_json(folder / RECORD, vars(record))  # plain data in the order of its fields, without a copy


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run folder; raises RecordError that names the file and what is wrong with it."""
    path = folder / RECORD
    try:
        return RunRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RecordError(f"{folder}: is not a run folder (it has no {RECORD}).") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({type(error).__name__}).") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"{path}: is damaged ({type(error).__name__}).") from error
    except RecordError as error:
        raise RecordError(f"{path}: {error}.") from error


def metric_of(folder: Path, metric: str) -> float | None:
    """A metric of a run; None where it has none that is a finite number, or cannot be read."""
    try:
        value = read_record(folder).metrics.get(metric)
    except RecordError:
        return None
    return value if value is not None and math.isfinite(value) else None


def run_folders(path: Path, *, answers: bool = False) -> list[Path]:
    """Run folders that `path` stands for: a run, a sweep, an output folder or any folder above runs.

    Sorted by name, so by time. With `answers`, a sweep stands for what it is compared by alone. Raises
    RecordError where there is none.
    """
    if (path / RECORD).is_file():
        return [path]
    if (path / SWEEP).is_file():
        return _runs_of_sweep(path, answers=answers)
    if not path.is_dir():
        raise RecordError(f"{path}: there is no such folder.")
    below = sorted(found.parent for found in path.glob("*/" + RECORD))
    below = below or sorted(found.parent for found in path.glob("runs/*/" + RECORD))
    if not below:
        for sweep in sorted(path.glob("*/" + SWEEP)):
            below.extend(_runs_of_sweep(sweep.parent, answers=answers))
    if not below:
        raise RecordError(f"{path}: has no runs (no {RECORD} in it or in its runs/ folder).")
    return list(dict.fromkeys(below))


def _runs_of_sweep(path: Path, *, answers: bool) -> list[Path]:
    sweep = read_sweep(path)
    states = states_of(path, sweep.answers if answers else sweep.jobs)
    names = [Path(state.run).name for state in states.values() if state.run]
    folders = [path.parent.parent / "runs" / name for name in names]
    found = [folder for folder in folders if (folder / RECORD).is_file()]
    if not found:
        raise RecordError(f"{path}: none of the runs of this sweep is there.")
    return found


def find_runs(paths: Sequence[Path], *, answers: bool = False) -> tuple[list[tuple[Path, RunRecord]], list[str]]:
    """All runs that `paths` stand for, each once, and a line for each record that cannot be read.

    With `answers`, a sweep stands for the runs that are compared alone: not for the trials of its search.
    Raises RecordError where a path has no runs at all.
    """
    runs, damaged = [], []
    for folder in dict.fromkeys(
        folder.resolve() for path in paths for folder in run_folders(path, answers=answers)
    ):
        try:
            runs.append((folder, read_record(folder)))
        except RecordError as error:
            damaged.append(str(error))
    return runs, damaged
