"""Results read back from W&B: `wandb:entity/project`, or one sweep of it, `wandb:entity/project/group`."""

from __future__ import annotations

import re
from typing import Any

from headstart.compare.results import Result, result_of_run
from headstart.errors import RecordError
from headstart.records.wandb_api import open_api, reason_of
from headstart.records.wandb_copy import record_from_wandb

PREFIX = "wandb:"
_NAME = r"[A-Za-z0-9_.\-]+"
_ADDRESS = re.compile(rf"wandb:({_NAME})/({_NAME})(?:/(.+))?")


def parse_address(text: str) -> tuple[str, str, str | None]:
    """Entity, project and group; raises RecordError for anything else."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise RecordError(f"{text}: must be wandb:entity/project or wandb:entity/project/group.")
    return match[1], match[2], match[3]


def read_wandb_results(address: str) -> tuple[list[Result], list[str]]:
    """The results of a project or group, and a line for what is left out.

    Raises RecordError where there is no key, the key is refused, the server does not answer, or there is no such
    project or group.
    """
    entity, project, group = parse_address(address)
    runs = runs_of(entity, project, group, said=address)
    results, left_out = [], 0
    for run in runs:
        try:
            record = record_from_wandb(run.config, dict(run.summary))
        except RecordError:
            left_out += 1
            continue
        results.append(result_of_run(None, record))
    if not results:
        what = (
            f"{left_out} runs there, none of them logged by Headstart to its end" if left_out else "no runs there"
        )
        raise RecordError(f"{address}: {what}.")
    results.sort(key=lambda result: (result.started, result.id))  # W&B's own order is not the same every time
    notes = [f"left out: {left_out} runs of {address} that were not logged by Headstart to their end."]
    return results, notes if left_out else []


def runs_of(entity: str, project: str, group: str | None, *, said: str) -> list[Any]:
    """W&B's runs; raises RecordError, with `said` for where, as above."""
    api = open_api(said)
    filters = {"group": group} if group else {}
    try:
        # not lazily: that is a request more for the config of each run
        return list(api.runs(f"{entity}/{project}", filters=filters, per_page=200, lazy=False))
    except Exception as error:
        raise RecordError(f"{said}: {reason_of(error)}") from error
