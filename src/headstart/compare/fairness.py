"""What an arm and its baseline should share and do not; fair by construction, or said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.arms import Arm, short_list
from headstart.compare.results import IDENTITY, PLACE, SUBSET
from headstart.errors import RecordError

COMPARED = ("backbone", "weights", "strategy", "regularizer", "head")
"""Groups in which arms may differ: what is compared."""
TUNED = ("optimizer", "schedule")
"""Groups that each arm may have its own values of."""
_NO_PART = {
    *(("data", key) for key in (*PLACE, *IDENTITY, *SUBSET)),
    *(("trainer", key) for key in ("progress", "pictures", "threads", "accelerator", "devices", "deterministic")),
    *((group, None) for group in ("seed", "output_dir", "logger", *COMPARED, *TUNED)),
}
"""What says where and on what a run ran, or is compared, tuned or a repeat."""


@dataclass(frozen=True)
class Unequal:
    """Something that should be held equal and is not."""

    arm: str
    baseline: str
    key: str
    value: str
    baseline_value: str

    def __str__(self) -> str:
        return f"{self.arm}: {self.key} is {self.value}, its baseline's {self.baseline_value}."


def unequal(arm: Arm, baseline: Arm) -> list[Unequal]:
    """What should be held equal between an arm and its baseline and is not; empty for rows of a table.

    Config keys but for those that are compared or tuned, by nature or because a sweep says so; the preprocessing
    as built; the split of each pair; the number of images; the number of trials that tuned either.
    """
    return [
        Unequal(arm.label, baseline.label, key, value_words(mine), value_words(other))
        for key, mine, other in _differences(arm, baseline)
    ]


def check_strict(found: Sequence[Unequal]) -> None:
    """Raise RecordError where anything is unequal, naming the first."""
    if found:
        more = f" ({len(found) - 1} more; without --strict, --details lists them)" if len(found) > 1 else ""
        raise RecordError(f"--strict: {found[0]}{more}")


def distance(arm: Arm, baseline: Arm) -> int:
    """In how many keys that should be held equal two arms differ."""
    return sum(1 for _ in _config_differences(arm, baseline))


def _differences(arm: Arm, baseline: Arm) -> Iterator[tuple[str, Any, Any]]:
    a, b = arm.example, baseline.example
    yield from _config_differences(arm, baseline)
    if a.record is None or b.record is None:
        return
    mine, other = a.record.data, b.record.data
    for part in ("train", "eval"):
        built = (mine.get("transform") or {}).get(part), (other.get("transform") or {}).get(part)
        if built[0] != built[1]:
            yield f"preprocessing ({part})", *built
    if mine.get("sizes") != other.get("sizes"):
        yield "number of images", mine.get("sizes"), other.get("sizes")
    splits = {run.pair: run.record.data.get("split_fingerprint") for run in baseline.runs if run.record}
    for run in arm.runs:
        own = run.record.data.get("split_fingerprint") if run.record else None
        if run.pair in splits and splits[run.pair] != own:
            yield f"split of seed {run.seed}", str(own)[:8], str(splits[run.pair])[:8]
            break
    if a.trials != b.trials:
        yield "number of tuning trials", a.trials or 0, b.trials or 0


def _config_differences(arm: Arm, baseline: Arm) -> Iterator[tuple[str, Any, Any]]:
    a, b = arm.example, baseline.example
    if a.record is None or b.record is None:
        return
    declared = a.declared | b.declared
    if _is_solved(a.config) or _is_solved(b.config):
        declared |= {"trainer.max_epochs", "trainer.max_steps"}
    for group in dict.fromkeys([*a.config, *b.config]):
        if (group, None) in _NO_PART:
            continue
        mine, other = a.config.get(group), b.config.get(group)
        if not isinstance(mine, dict) or not isinstance(other, dict):
            continue
        for name in dict.fromkeys([*mine, *other]):
            key = f"{group}.{name}"
            if (group, name) in _NO_PART or key in declared or group in declared:
                continue
            if mine.get(name) != other.get(name):
                yield key, mine.get(name), other.get(name)


def _is_solved(config: Mapping[str, Any]) -> bool:
    """Whether a head was solved at once, so that it has no budget that could be equal to another's."""
    return (config.get("head") or {}).get("solver", "gradient") != "gradient"


def value_words(value: Any) -> str:
    """A config value as text."""
    return value if isinstance(value, str) else short_list(value) or json.dumps(value, ensure_ascii=False)
