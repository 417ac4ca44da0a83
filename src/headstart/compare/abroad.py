"""Runs on further test sets beside their own test: the values and gains of each arm, evaluation by evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.arms import Arm
from headstart.compare.statistics.intervals import Estimate, estimate
from headstart.compare.statistics.paired import Paired, decide
from headstart.config.checks import lower_is_better
from headstart.records.evaluations import CORRUPTED, CORRUPTIONS, evaluated_in, metric_name, spoilt_as

Pairing = Callable[[Arm, Arm | None, str], Paired | None]


@dataclass(frozen=True)
class Abroad:
    """One evaluation, over all arms; by key of the arm."""

    name: str
    metric: str
    values: Mapping[str, Estimate]
    """Mean over the runs of the arm that have it, with its interval."""
    paired: Mapping[str, Paired]
    """Against the baseline there; verdicts are after Holm's correction over the arms of this evaluation."""

    @property
    def words(self) -> str:
        """`on stl10`, `under fog`, `on corrupted copies`."""
        if self.name == CORRUPTED:
            return "on corrupted copies"
        return f"under {self.name}" if self.name in CORRUPTIONS or spoilt_as(self.name) else f"on {self.name}"


def abroad_of(arms: Sequence[Arm], against: Mapping[str, Arm], metric: str, pairing: Pairing) -> tuple[Abroad, ...]:
    """Every evaluation that a completed run of the arms has by a metric of its own test; else none.

    `against` is each arm's baseline, `pairing` compares an arm with it by a metric.
    """
    split, _, name = metric.partition("/")
    if split != "test":
        return ()
    runs = [run for arm in arms for run in arm.runs]
    apart = of_different_data(arms)
    names = dict.fromkeys(found for run in runs for key in run.metrics if (found := evaluated_in(key)))
    columns = []
    for evaluation in sorted(names, key=_order):
        key = metric_name(evaluation, name)
        values = {arm.key: value for arm in arms if (value := _value(arm, key))}
        if not values or evaluation in apart:
            continue
        decided = decide(
            [pairing(arm, against.get(arm.key), key) for arm in arms],
            controls=[arm.example.is_random_features for arm in arms],
            lower_is_better=lower_is_better(key),
        )
        paired = {arm.key: one for arm, one in zip(arms, decided, strict=True) if one is not None}
        columns.append(Abroad(evaluation, key, values, paired))
    return tuple(columns)


def of_different_data(arms: Sequence[Arm]) -> list[str]:
    """Names under which the runs of the arms were scored on different data; spoilt copies are each run's own."""
    seen: dict[str, set[str]] = {}
    records = [run.record for arm in arms for run in arm.runs if run.record is not None]
    for record in records:
        for name, one in record.evaluations.items():
            data = one.get("data") if isinstance(one, dict) else None
            corruption, _ = spoilt_as(name) or (name, 0)
            if isinstance(data, dict) and corruption not in (*CORRUPTIONS, CORRUPTED):
                seen.setdefault(name, set()).add(str(data.get("fingerprint")))
    return sorted(name for name, fingerprints in seen.items() if len(fingerprints) > 1)


def _order(name: str) -> tuple[int, int, int, str]:
    """Other data first, then the mean over corruptions, then corruption by corruption."""
    if name == CORRUPTED:
        return 1, 0, 0, name
    corruption, severity = spoilt_as(name) or (name, 0)
    if corruption in CORRUPTIONS:
        return 2, CORRUPTIONS.index(corruption), severity, name
    return 0, 0, 0, name


def _value(arm: Arm, metric: str) -> Estimate | None:
    known = [(value, run) for run in arm.runs if (value := run.metrics.get(metric)) is not None]
    clusters = [(run.split_seed, run.fold) for _, run in known]
    return estimate([value for value, _ in known], clusters) if known else None


def summed_up(columns: Sequence[Abroad]) -> list[Abroad]:
    """Corruptions as one column where there is a mean over all of them, else as one per corruption that has one."""
    names = {column.name for column in columns}

    def is_in_another(name: str) -> bool:
        corruption, severity = spoilt_as(name) or (name, 0)
        if corruption not in CORRUPTIONS:
            return False
        return CORRUPTED in names or (severity > 0 and corruption in names)

    return [column for column in columns if not is_in_another(column.name)]


def flat_abroad(columns: Sequence[Abroad], arm: str) -> dict[str, Any]:
    """Plain columns of an arm, for tables and files."""
    row: dict[str, Any] = {}
    for column in columns:
        value, paired = column.values.get(arm), column.paired.get(arm)
        gain = paired.difference if paired else None
        row |= {
            column.metric: value.mean if value else None,
            f"low@{column.name}": value.low if value else None,
            f"high@{column.name}": value.high if value else None,
            f"gain@{column.name}": gain.mean if gain else None,
            f"gain_low@{column.name}": gain.low if gain else None,
            f"gain_high@{column.name}": gain.high if gain else None,
            f"verdict@{column.name}": paired.verdict if paired else None,
        }
    return row
