"""Records of older versions of `run.json`, brought up to the present one; those of newer ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.errors import RecordError

SCHEMA_VERSION = 2


def migrated(value: Any) -> dict[str, Any]:
    """A record as plain data of the present version; `value` is left as it is.

    Raises RecordError where it is no record, or was written by a version of Headstart that came later.
    """
    if not isinstance(value, dict):
        raise RecordError("is not a record")
    version = value.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise RecordError("has no schema_version")
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"has schema {version}, and this version of Headstart reads up to {SCHEMA_VERSION}: upgrade to "
            f"{_writer(value)}"
        )
    if version < 1:
        raise RecordError(f"has schema {version}, which no version of Headstart wrote")
    kept = dict(value)
    for older in range(version, SCHEMA_VERSION):
        kept = _STEPS[older](kept)
        kept["schema_version"] = older + 1
    return kept


def _writer(value: dict[str, Any]) -> str:
    environment = value.get("environment")
    packages = environment.get("packages") if isinstance(environment, dict) else None
    version = packages.get("headstart") if isinstance(packages, dict) else None
    return f"headstart {version} or later, which wrote it" if isinstance(version, str) else "the one that wrote it"


def _from_1(value: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no digests of the final weights and of the files, and no reproductions.

    They stay unknown; what reads them says so.
    """
    return {"reproduces": None, "final_weights": {}, "files": {}, **value}


_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
