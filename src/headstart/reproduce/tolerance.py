"""How far a metric may lie from the recorded one: the spread between seeds where it is known, else a default."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.records.schema import RunRecord
from headstart.records.store import find_runs

FEWEST_SEEDS = 3
SHARE, LOSS, CALIBRATION = 0.01, 0.02, 0.02
"""Defaults: of accuracies and their like; of losses and errors, a share of the value; of calibration."""


@dataclass(frozen=True)
class MetricCheck:
    """One metric of both runs."""

    name: str
    before: float | None
    now: float | None
    tolerance: float
    basis: str
    """Where the tolerance comes from, in words."""

    @property
    def difference(self) -> float | None:
        """now - before; None where one of them is no number."""
        return None if self.before is None or self.now is None else self.now - self.before

    @property
    def is_within(self) -> bool:
        """Whether they agree within the tolerance; a metric that neither has agrees."""
        if self.difference is None:
            return self.before == self.now
        return abs(self.difference) <= self.tolerance


def check_metrics(before: RunRecord, now: RunRecord, *, siblings: Sequence[RunRecord]) -> tuple[MetricCheck, ...]:
    """Each metric of the test split, or of validation where there was no test.

    The tolerance is one standard deviation between the `siblings`, runs of the same arm and split with other
    seeds, where there are three seeds with that of `before`; no less than what one test example is worth, and a
    tenth of the default.
    """
    names = [name for name in before.metrics if name.startswith("test/")] or [
        name for name in before.metrics if not name.endswith("/threshold")
    ]
    size = (before.data.get("sizes") or {}).get("test" if names and names[0].startswith("test/") else "val") or 0
    found = []
    for name in names:
        seeds = {record.seed: record.metrics.get(name) for record in (*siblings, before)}
        values = [value for value in seeds.values() if value is not None]
        least = 1 / size if size and _is_share(name) else 0.0
        if len(values) >= FEWEST_SEEDS:
            spread = statistics.stdev(values)
            least = max(least, _default(name, before.metrics) / 10)  # seeds may agree by chance
            tolerance, basis = max(spread, least), f"spread of {len(values)} seeds"
        else:
            tolerance, basis = max(_default(name, before.metrics), 2 * least), "default"
        found.append(MetricCheck(name, before.metrics.get(name), now.metrics.get(name), tolerance, basis))
    return tuple(found)


def _is_share(name: str) -> bool:
    return not name.endswith(("log_loss", "ece", "mse", "mae", "r2"))


def _default(name: str, metrics: Mapping[str, float | None]) -> float:
    value = metrics.get(name) or 0.0
    if name.endswith("log_loss"):
        return max(LOSS * abs(value), LOSS / 10)
    if name.endswith(("mse", "mae")):  # in the data's own units, so that no number is small by itself
        return LOSS * abs(value)
    if name.endswith("r2"):  # 1 - r2 is a squared error as well
        return max(SHARE, LOSS * abs(1 - value))
    return CALIBRATION if name.endswith("ece") else SHARE


def find_siblings(record: RunRecord, folder: Path | None) -> list[RunRecord]:
    """Completed runs beside a run's folder that differ from it in the seed alone."""
    if folder is None:
        return []
    runs, _ = find_runs([folder.resolve().parent]) if any(folder.resolve().parent.glob("*/run.json")) else ([], [])
    return [
        other
        for _, other in runs
        if other.arm == record.arm
        and other.status == "completed"
        and other.seed != record.seed
        and (other.split_seed, other.fold) == (record.split_seed, record.fold)
        and other.reproduces is None
    ]
