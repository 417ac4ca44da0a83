"""A run's record as it lies in W&B: the config is W&B's own, the rest is JSON in the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headstart.errors import RecordError
from headstart.records.atomic import plain_json
from headstart.records.schema import RunRecord

RECORD_KEY = "headstart_record"
"""The summary key that holds it."""
CONFIG_KEY = "headstart"
ARM_KEY = "arm"
"""Further keys of W&B's config, which are no part of the run's: where the run lies, and what its arm is called."""
MOST_CLASSES = 100
"""Above it the confusion counts stay at home: a summary is no place for millions of numbers."""
_LEFT_OUT = ("config", "plan", "environment", "determinism", "error", "command")
"""What `run.json` has, and a comparison does not need."""


def record_as_summary(record: RunRecord) -> dict[str, str]:
    """The summary entry for a record."""
    kept = {key: value for key, value in record.to_dict().items() if key not in _LEFT_OUT}
    if len(record.data.get("class_names") or []) > MOST_CLASSES:
        kept.pop("confusion", None)
    return {RECORD_KEY: json.dumps(plain_json(kept), separators=(",", ":"), allow_nan=False)}


def record_from_wandb(config: Mapping[str, Any], summary: Mapping[str, Any]) -> RunRecord:
    """The record of a run, from W&B's config and summary; raises RecordError where it is none of Headstart's."""
    text = summary.get(RECORD_KEY)
    if not isinstance(text, str):
        raise RecordError("was not logged by Headstart, or not to its end")
    try:
        kept = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"has a damaged record ({type(error).__name__})") from error
    if not isinstance(kept, dict):
        raise RecordError("has a damaged record")
    own = {key: value for key, value in config.items() if key not in (CONFIG_KEY, ARM_KEY)}
    return RunRecord.from_dict({**kept, "config": own, "command": []})
