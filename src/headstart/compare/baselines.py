"""Which arm is whose baseline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from headstart.compare.arms import Arm
from headstart.compare.fairness import distance
from headstart.errors import RecordError

_MOST_LISTED = 12


def baselines(arms: Sequence[Arm], named: str | None) -> dict[str, Arm]:
    """Key of an arm -> its baseline; arms that have none, and baselines themselves, are left out.

    Without a name it is the arm trained from scratch, whole, with the same backbone, head and data. `named` is an
    arm's label or digest, or overrides that it has (`weights=scratch strategy=linear_probe`); of those that fit,
    an arm's is the one on the same data. Raises RecordError where none fits, or several are as good.
    """
    candidates = [arm for arm in arms if is_baseline(arm, named)]
    if named is not None and not candidates:
        listed = "; ".join(dict.fromkeys(arm.label for arm in arms[:_MOST_LISTED]))
        more = f"; {len(arms) - _MOST_LISTED} more" if len(arms) > _MOST_LISTED else ""
        raise RecordError(f"--baseline {named}: no arm matches it. There are: {listed}{more}.")
    candidates = [arm for arm in candidates if arm.runs]
    keys = {arm.key for arm in candidates}
    by_ground: dict[str, list[Arm]] = {}
    for candidate in candidates:
        by_ground.setdefault(_ground(candidate, named), []).append(candidate)
    return {
        arm.key: _nearest(arm, near)
        for arm in arms
        if arm.key not in keys and (near := by_ground.get(_ground(arm, named)))
    }


def is_baseline(arm: Arm, named: str | None) -> bool:
    """Whether an arm is what others are measured against."""
    return arm.example.is_scratch if named is None else _matches(arm, named)


def _ground(arm: Arm, named: str | None) -> str:
    return arm.example.ground if named is None else arm.setting.key


def _nearest(arm: Arm, candidates: Sequence[Arm]) -> Arm:
    """Of several: the same architecture and head, the least difference in what should be equal, the same axes."""
    for closeness in (_likeness, lambda a, b: -distance(a, b), _shared):
        if len(candidates) == 1:
            break
        most = max(closeness(arm, other) for other in candidates)
        candidates = [other for other in candidates if closeness(arm, other) == most]
    if len(candidates) > 1:
        listed = "; ".join(f"{other.label} ({other.runs[0].id})" for other in candidates)
        raise RecordError(
            f"several arms could be the baseline of {arm.label}: {listed}. Name one with --baseline, "
            "or give paths of fewer runs."
        )
    return candidates[0]


def _likeness(arm: Arm, other: Arm) -> int:
    """How much an arm and a candidate share of what they are run on and with: of a table, its further columns."""
    if arm.example.record is None or other.example.record is None:
        mine, theirs = (one.example.config.get("row", {}) for one in (arm, other))
        keys = [key for key in mine if key not in ("arm", "weights", "strategy")]
        return sum(mine[key] == theirs.get(key) for key in keys)
    return int(arm.example.ground == other.example.ground)


def _shared(arm: Arm, other: Arm) -> int:
    """In how many of the keys that its sweep compares or tunes they agree."""
    keys = [key for key in arm.example.declared if key.partition(".")[0] not in ("weights", "strategy")]
    return sum(_value(arm, key) == _value(other, key) for key in keys)


def _value(arm: Arm, key: str) -> Any:
    node: Any = arm.example.config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _matches(arm: Arm, named: str) -> bool:
    if named in (arm.label, arm.method, arm.example.name) or (len(named) >= 6 and arm.key.startswith(named)):
        return True
    words = named.split()
    return bool(words) and all(_has(arm, word) for word in words)


def _has(arm: Arm, word: str) -> bool:
    key, equals, wanted = word.partition("=")
    if not equals:
        return False
    node: Any = arm.example.config.get("row", {}).get(key)
    if node is None:
        node = _value(arm, key)
    if isinstance(node, dict):  # a group: its kind
        node = node.get("source", node.get("name"))
    text = node if isinstance(node, str) else json.dumps(node).replace(" ", "")
    tagless = key in ("backbone", "backbone.name") and text.partition(".")[0] == wanted
    return text == wanted or tagless
