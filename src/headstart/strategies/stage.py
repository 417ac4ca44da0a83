"""What a strategy says of one phase, before rates and normalisation are put to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.facts import ParameterKind


@dataclass(frozen=True)
class Stage:
    """From global step `start` on, `groups` train; `multiples` are on top of the strategy's own rates."""

    start: int
    groups: tuple[str, ...]
    kinds: frozenset[ParameterKind] | None = None
    multiples: Mapping[str, float] = field(default_factory=dict)
    """Per layer group; 1 where it says nothing."""
    normalization: str | None = None
    """Where it is the phase's own, in place of the strategy's."""
