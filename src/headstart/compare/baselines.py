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
    """Of several, those that differ least in what should be equal; then those with the same compared keys."""
    if len(candidates) == 1:
        return candidates[0]
    fewest = min(distance(arm, other) for other in candidates)
    candidates = [other for other in candidates if distance(arm, other) == fewest]
    if len(candidates) > 1:
        keys = [key for key in arm.example.declared if key.partition(".")[0] not in ("weights", "strategy")]
        most = max(_shared(arm, other, keys) for other in candidates)
        candidates = [other for other in candidates if _shared(arm, other, keys) == most]
    if len(candidates) > 1:
        listed = "; ".join(f"{other.label} ({other.runs[0].id})" for other in candidates)
        raise RecordError(
            f"several arms could be the baseline of {arm.label}: {listed}. Name one with --baseline, "
            "or give paths of fewer runs."
        )
    return candidates[0]


def _shared(arm: Arm, other: Arm, keys: Sequence[str]) -> int:
    return sum(_value(arm, key) == _value(other, key) for key in keys)


def _value(arm: Arm, key: str) -> Any:
    group, _, name = key.partition(".")
    node = arm.example.config.get(group)
    return node.get(name) if isinstance(node, dict) else None


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
        node = arm.example.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):  # a group: its kind
        node = node.get("source", node.get("name"))
    return (node if isinstance(node, str) else json.dumps(node).replace(" ", "")) == wanted
