"""What a reader of the table must know beside its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headstart.compare.abroad import of_different_data
from headstart.compare.arms import Arm
from headstart.records.evaluations import data_at

if TYPE_CHECKING:
    from headstart.compare.rows import Row

FROM_IMAGENET = (
    "imagenette",
    "imagewoof",
    "tiny-imagenet",
    "tiny_imagenet",
    "imagenet",
    "stanford_dogs",
    "stanforddogs",
    "cub_200",
    "cub200",
    "cub-200",
)
"""Parts of names of data sets whose images or classes are ImageNet's, or overlap with them."""


def notes_of(
    arms: Sequence[Arm],
    rows: Sequence[Row],
    *,
    named: str | None,
    references: Mapping[str, Mapping[str, float]],
    metric: str,
) -> list[str]:
    """Lines below the table: failures, lone runs, what is missing, what the numbers do not show."""
    notes = []
    for arm, row in zip(arms, rows, strict=True):
        states = [run.status for run in arm.others]
        if states:
            counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            diverged = f", {row.diverged} of them diverged" if row.diverged else ""
            notes.append(f"{arm.label}: {counted}{diverged} (not in its mean).")
        if row.n < len(arm.runs):
            notes.append(f"{arm.label}: {len(arm.runs) - row.n} completed runs lack {metric}.")
        if arm.repeats:
            notes.append(f"{arm.label}: {arm.repeats} earlier runs of the same seeds left out; the latest count.")
        if row.gain and row.gain.n < row.n:
            notes.append(f"{arm.label}: {row.gain.n} of {row.n} runs have a partner in the baseline.")
        if row.gain and 1 < row.gain.units < row.gain.n:
            notes.append(
                f"{arm.label}: {row.gain.n} pairs on {row.gain.units} splits; those of a split are averaged first."
            )
    for name in of_different_data(arms):
        notes.append(f"{name}: the runs were scored on different data under this name; it is left out.")
    improving = [row.arm for row in rows if row.improving]
    if improving:
        notes.append(
            f"{'; '.join(improving)}: still improving at the last epoch; a longer budget may change the order."
        )
    at_chance = [
        arm.label
        for arm, row in zip(arms, rows, strict=True)
        if _at_chance(arm, row, references.get(arm.setting.key, {}), metric)
    ]
    if at_chance:
        notes.append(f"{'; '.join(at_chance)}: no better than chance.")
    lone = [row.arm for row in rows if not row.is_baseline and row.baseline is None]
    if not any(row.is_baseline for row in rows):
        notes.append("no baseline (weights=scratch strategy=full) among these runs: no gains.")
    elif lone:
        held = "the same data" if named else "the same backbone, head and data"
        notes.append(f"no baseline of {held} for: {'; '.join(lone)}.")
    if any(row.n == 1 for row in rows) and all(row.n <= 1 for row in rows):
        notes.append("one seed: nothing is known of the spread between runs, so no gain is decided.")
    overlapping = dict.fromkeys(
        arm.setting.dataset for arm in arms if any(name in arm.setting.dataset.lower() for name in FROM_IMAGENET)
    )
    if overlapping and any(arm.example.config.get("weights", {}).get("source") == "pretrained" for arm in arms):
        notes.append(
            f"{', '.join(overlapping)}: images or classes overlap with ImageNet's; with weights from there this is "
            "not transfer."
        )
    return notes


def _at_chance(arm: Arm, row: Row, beside: Mapping[str, float], metric: str) -> bool:
    """Whether its mean is within what guessing gets: chance plus two standard errors of so many test images."""
    known = [beside[name] for name in ("chance", "majority class", "majority classes") if name in beside]
    record = arm.example.record
    if not known or row.value is None or record is None or not metric.rpartition("/")[2].startswith("accuracy"):
        return False
    sizes = data_at(record.data, record.evaluations, metric).get("sizes") or {}
    images = sizes.get(metric.partition("/")[0]) or 0
    guess = max(known)
    error = math.sqrt(guess * (1 - guess) / images) if images else 0.0
    return row.value.mean <= guess + 2 * error
