"""Whether a run came out as the one that it repeats: bit for bit, within a tolerance, or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.errors import RecordError
from headstart.records.schema import RunRecord
from headstart.records.tables import METRICS, read_rows
from headstart.reproduce.tolerance import MetricCheck, check_metrics

Kind = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True)
class Parting:
    """The first epoch in which two runs are not the same to the last bit."""

    epoch: int
    keys: tuple[str, ...]
    """What differs there, as metrics.csv calls it."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison of two runs came to."""

    kind: Kind
    metrics: tuple[MetricCheck, ...]
    parting: Parting | None
    compared: tuple[str, ...] = ()
    """What was compared bit for bit."""
    unknown: tuple[str, ...] = ()
    """What could not be compared, because the first run did not keep it."""


def judge(
    before: RunRecord,
    now: RunRecord,
    *,
    folder_before: Path | None,
    folder_now: Path,
    siblings: Sequence[RunRecord],
    weights_before: Mapping[str, str],
) -> Verdict:
    """Compare what came out of two runs.

    Identical: predictions and final weights are the same, bit for bit. `weights_before` are the digests of the
    first run's weights, empty where they are unknown.
    """
    metrics = check_metrics(before, now, siblings=siblings)
    parting = find_parting(folder_before, folder_now)
    unknown = []
    same = {}
    if before.predictions_sha256 is not None:
        same["predictions"] = before.predictions_sha256 == now.predictions_sha256
    elif before.config["trainer"].get("test", True):
        unknown.append("predictions")
    both = set(weights_before) & set(now.final_weights)
    if both:
        same["final weights"] = all(weights_before[name] == now.final_weights[name] for name in both)
    else:
        unknown.append("final weights")
    if not same:  # nothing but the metrics is known of it
        same["all metrics"] = parting is None and before.metrics == now.metrics
    if all(same.values()):
        kind: Kind = "identical"
    elif metrics and all(check.is_within for check in metrics):
        kind = "within tolerance"
    else:
        kind = "different"
    return Verdict(kind, metrics, parting if kind != "identical" else None, tuple(same), tuple(unknown))


def find_parting(folder_before: Path | None, folder_now: Path) -> Parting | None:
    """Where the metrics of two runs part; None where they do not, or one of them has no history."""
    try:
        old = read_rows(folder_before / METRICS) if folder_before else []
        new = read_rows(folder_now / METRICS)
    except RecordError:
        return None
    later = {_step(row): row for row in new}
    for row in old:
        other = later.get(_step(row))
        if other is None:
            return Parting(_epoch(row), ("its end",))
        keys = tuple(key for key in {**row, **other} if key != "seconds" and row.get(key) != other.get(key))
        if keys:
            return Parting(_epoch(row), keys)
    if old and len(new) > len(old):
        return Parting(_epoch(new[len(old)]), ("its end",))
    return None


def _step(row: Mapping[str, Any]) -> Any:
    return row.get("step")


def _epoch(row: Mapping[str, Any]) -> int:
    try:
        return int(row.get("epoch", 0))
    except (TypeError, ValueError):
        return 0
