"""Which run has which job key: how a sweep knows what is done already, without reading every record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headstart.errors import RecordError
from headstart.records.atomic import write_json
from headstart.records.store import RECORD, read_record

FOLDER = ".jobs"


def index_folder(output_dir: Path) -> Path:
    """Where the index lies; it may be deleted while nothing runs, and is made anew from the records."""
    return output_dir / FOLDER


def note_run(output_dir: Path, key: str, run: str) -> None:
    """Remember the run of a job key, the last one that began."""
    index_folder(output_dir).mkdir(parents=True, exist_ok=True)
    write_json(index_folder(output_dir) / f"{key[:40]}.json", {"key": key, "run": run})


def run_of(output_dir: Path, key: str) -> str | None:
    """The run that was noted last for a job key, if it is still there."""
    try:
        value = json.loads((index_folder(output_dir) / f"{key[:40]}.json").read_text(encoding="utf-8"))
        run = Path(str(value["run"])).name
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run if value["key"] == key and (output_dir / "runs" / run / RECORD).is_file() else None


def completed_run(output_dir: Path, key: str) -> str | None:
    """The completed run of a job key."""
    run = run_of(output_dir, key)
    with suppress(RecordError):
        if run and read_record(output_dir / "runs" / run).status == "completed":
            return run
    return None


def completed_runs(output_dir: Path) -> Mapping[str, str]:
    """Job key -> run of every completed run, from the records themselves; damaged ones are left out."""
    found = {}
    for path in sorted((output_dir / "runs").glob(f"*/{RECORD}")):
        with suppress(RecordError):
            record = read_record(path.parent)
            if record.status == "completed":
                found[record.job_key] = record.id
    return found
