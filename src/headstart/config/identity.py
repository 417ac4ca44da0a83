"""Which experiments are the same: hashes over what changes a result and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from headstart.config.plain import to_plain
from headstart.config.schema.root import Config

CODE_VERSION = 3
"""Raised when the training code changes in a way that changes results; part of `job_key`."""

DATA_PLACE = ("path", "root", "split_file", "num_workers", "download", "cache", "cache_gb")
"""Keys of the data that say where it lies and how fast it comes, and not what it is."""

# what says where a run lies, how it is shown or how fast its images come, but not what comes out
_VOLATILE = {
    "output_dir": None,
    "logger": None,
    "data": DATA_PLACE,
    "weights": ("path",),
    "trainer": ("progress", "pictures"),
    "features": ("cache", "cache_gb"),
    "measured": None,
}
_REPEATS = {"seed": None, "data": ("split_seed", "fold")}
"""What may differ between the experiments of one arm."""


def config_hash(config: Config) -> str:
    """SHA-256 hex digest over the config without what cannot change its result."""
    return _digest(_without(to_plain(config), _VOLATILE))


def arm_hash(config: Config, *, data_fingerprint: str, weights_identity: str) -> str:
    """Digest that runs share when they differ in seed, split seed and fold alone.

    `weights_identity` is the digest of the weights, or the arm of the run they came from: seeds of one
    chain of runs then belong to one arm.
    """
    plain = _without(_without(to_plain(config), _VOLATILE), _REPEATS)
    return _digest([plain, data_fingerprint, weights_identity])


def job_key(config: Config, *, data_fingerprint: str, weights_sha256: str) -> str:
    """Digest by which a job is known to have been done already."""
    return _digest([config_hash(config), data_fingerprint, weights_sha256, CODE_VERSION])


def _without(plain: dict[str, Any], drop: Mapping[str, tuple[str, ...] | None]) -> dict[str, Any]:
    kept = dict(plain)
    for group, keys in drop.items():
        if keys is None:
            kept.pop(group, None)
        else:
            kept[group] = {key: value for key, value in kept[group].items() if key not in keys}
    return kept


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
