"""What a sweep that searches leaves on disk beside its jobs: what is searched for each arm, and what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def overrides_of(tuned: Mapping[str, Any]) -> list[str]:
    """Values of tuned keys, as one would write them as overrides."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}".replace('"', "") for key, value in tuned.items()]


@dataclass(frozen=True)
class Study:
    """The search for one arm: what differs in more than the tuned keys and the seed has a study of its own."""

    id: str
    varied: str
    """What tells it from the other studies."""
    name: str
    """Of its entry in the sweep's list."""
    space: dict[str, Any]
    """Tuned keys with their values or ranges."""
    config: dict[str, Any]
    """What the runs share that are tested, plain and resolved; the tuned keys hold their first values."""
    trial_config: dict[str, Any]
    """The same of its trials: they are not tested, and have fewer images where what is found is trained on all."""
    trials: int
    seeds: tuple[int, ...]
    """With which what was found is run and tested."""
    fingerprint: str = ""
    """Of the data."""
    weights: str = ""
    """Digest of the weights."""
    trainable: int = 0
    steps: int = 0
    together: str = ""
    """What its runs share with the jobs that they are fitted together with; empty where each is alone."""
    trials_together: str = ""
    """The same of its trials."""
    drawn: bool = False
    """Whether the frozen features depend on the seed: then only runs of one seed share them."""


@dataclass(frozen=True)
class Chosen:
    """What a study has found when all its trials are over: the best of them."""

    trial: int | None
    """Its number, from 0; None where none has completed."""
    tuned: dict[str, Any]
    value: float | None
    """The metric's mean over the search's seeds."""
    metric: str
    trials: int
    """How many there were, those included that failed or were stopped early."""
    failed: int = 0
    pruned: int = 0
    at_edge: tuple[str, ...] = field(default=())
    """Tuned keys whose best value is the smallest or largest there was."""
