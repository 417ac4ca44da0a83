"""A run that lies in W&B, brought here: `wandb:entity/project/run`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.records.examples import EXAMPLES
from headstart.records.store import CONFIG, RECORD
from headstart.records.tables import METRICS
from headstart.records.wandb_api import open_api, reason_of

PREFIX = "wandb:"
_NAME = r"[A-Za-z0-9_.\-]+"
_ADDRESS = re.compile(rf"wandb:({_NAME})/({_NAME})/({_NAME})")
WANTED = (RECORD, CONFIG, METRICS, EXAMPLES)
"""The files of a run's artifact that are fetched; nothing else in it is."""


def fetch(address: str, *, into: Path) -> Path:
    """Bring the record, the config and the metrics of a run below `into`; returns their folder.

    Raises RecordError where there is no key, no such run, or W&B does not have the files of it.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise RecordError(f"{address}: must be wandb:entity/project/run, with the run's id or name.")
    entity, project, name = match.groups()
    api = open_api(address)
    try:
        run = _find(api, f"{entity}/{project}", name)
        artifact = next((one for one in run.logged_artifacts() if one.type == "run"), None) if run else None
    except Exception as error:
        raise RecordError(f"{address}: {reason_of(error)}") from error
    if run is None:
        raise RecordError(f"{address}: W&B has no such run there, or none that this key may see.")
    if artifact is None:
        raise RecordError(
            f"{address}: W&B has no files of this run (its artifact of type run); `headstart sync` sends them."
        )
    folder = into / re.sub(r"[^A-Za-z0-9_.\-]", "_", f"{entity}-{project}-{run.id}")
    folder.mkdir(parents=True, exist_ok=True)
    there = set(artifact.manifest.entries)
    try:
        for wanted in WANTED:
            (folder / wanted).unlink(missing_ok=True)
            if wanted in there:
                artifact.get_entry(wanted).download(root=str(folder))
    except Exception as error:
        raise RecordError(f"{address}: {reason_of(error)}") from error
    return folder


def _find(api: Any, project: str, name: str) -> Any:
    """The run with this id, or else the newest that is called so."""
    try:
        return api.run(f"{project}/{name}")
    except Exception as error:
        if "could not find run" not in str(error).lower():
            raise
    return next(iter(api.runs(project, filters={"displayName": name}, order="-created_at", per_page=1)), None)
