"""Short measurements of this machine, kept in the cache folder for the next run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.caches import MEASUREMENTS
from headstart.records.atomic import write_json


def kept(cache: Path, key: Mapping[str, Any], names: Sequence[str]) -> dict[str, float] | None:
    """The seconds under `names` that were measured of what `key` says; None where there are none to be believed."""
    try:
        seconds = json.loads(_path(cache, key).read_text(encoding="utf-8"))["seconds"]
        return {name: float(seconds[name]) for name in names}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(cache: Path, key: Mapping[str, Any], seconds: Mapping[str, float], *, of: Mapping[str, Any]) -> None:
    """Keep a measurement, with what it is `of` for people; where that cannot be, the next run measures again."""
    path = _path(cache, key)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"of": dict(of), "seconds": dict(seconds)})


def _path(cache: Path, key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / MEASUREMENTS / f"{digest[:32]}.json"
