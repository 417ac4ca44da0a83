"""In which config keys an arm differs from its baseline, and what kind of key each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.compare.arms import Arm
from headstart.compare.fairness import COMPARED, TUNED, unequal, value_words

_SHOWN_NOWHERE = ("logger", "output_dir", "seed")
_REPEATED = ("data.split_seed", "data.fold")


@dataclass(frozen=True)
class Differences:
    """(key, arm's value, baseline's value, `compared`, `tuned`, `should be equal` or `has no part`) of an arm."""

    arm: str
    rows: tuple[tuple[str, str, str, str], ...]


def differences(arm: Arm, baseline: Arm) -> Differences | None:
    """All of them; None for rows of a table, or where there are none."""
    a, b = arm.example, baseline.example
    if a.record is None or b.record is None:
        return None
    should = {one.key for one in unequal(arm, baseline)}
    declared = a.declared | b.declared
    rows = []
    mine, other = _flat(a.config), _flat(b.config)
    for key in dict.fromkeys([*mine, *other]):
        if mine.get(key) == other.get(key) or key.partition(".")[0] in _SHOWN_NOWHERE or key in _REPEATED:
            continue
        group = key.partition(".")[0]
        kind = "has no part"
        if key in should:
            kind = "should be equal"
        elif group in COMPARED or key in declared:
            kind = "compared"
        elif group in TUNED:
            kind = "tuned"
        rows.append((key, value_words(mine.get(key)), value_words(other.get(key)), kind))
    return Differences(arm.label, tuple(rows)) if rows else None


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
