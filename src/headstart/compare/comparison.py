"""The comparison: each arm's metric with its interval, and its paired gain over the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headstart.compare.arms import Arm, group_arms, pair_key
from headstart.compare.intervals import Estimate, estimate
from headstart.config.checks import METRICS, lower_is_better
from headstart.errors import RecordError, did_you_mean
from headstart.records.schema import RunRecord

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METRIC = {"multiclass": "test/accuracy_micro", "multilabel": "test/map_macro"}


@dataclass(frozen=True)
class Row:
    """One arm of the comparison; metric values are as recorded, seconds are means over its runs."""

    arm: str
    key: str
    n: int
    failed: int
    value: Estimate | None
    gain: Estimate | None
    """Paired difference to the baseline; its `n` counts the pairs."""
    is_baseline: bool
    baseline: str | None
    trainable: int | None
    seconds: float | None
    improving: bool
    """Whether most of its runs were at their best in the last epoch of their budget."""


@dataclass(frozen=True)
class Comparison:
    """What `headstart compare` shows."""

    metric: str
    task: str
    rows: tuple[Row, ...]
    references: dict[str, float]
    """What needs no images: chance, and always saying the majority class of the training split."""
    varies: str
    """What the intervals vary: `seeds`, `splits`, or `seeds and splits`."""
    notes: list[str] = field(default_factory=list)

    @property
    def lower_is_better(self) -> bool:
        """Whether a negative gain is good."""
        return lower_is_better(self.metric)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @property
    def arms(self) -> pd.DataFrame:
        """A row per arm, with plain columns."""
        import pandas as pd

        return pd.DataFrame(self.flat_rows())

    def flat_rows(self) -> list[dict[str, Any]]:
        """A flat row per arm, for tables and files."""
        flat = []
        for row in self.rows:
            value, gain = row.value, row.gain
            flat.append(
                {
                    "arm": row.arm,
                    "n": row.n,
                    "failed": row.failed,
                    self.metric: value.mean if value else None,
                    "low": value.low if value else None,
                    "high": value.high if value else None,
                    "std": value.std if value else None,
                    "gain": gain.mean if gain else None,
                    "gain_low": gain.low if gain else None,
                    "gain_high": gain.high if gain else None,
                    "pairs": gain.n if gain else 0,
                    "baseline": row.baseline,
                    "trainable_parameters": row.trainable,
                    "seconds": row.seconds,
                    "still_improving": row.improving,
                }
            )
        return flat


def compare_runs(
    records: Sequence[RunRecord], *, metric: str | None = None, notes: Sequence[str] = ()
) -> Comparison:
    """Group runs into arms and compare each with its baseline, paired by seed, split seed and fold.

    Raises RecordError where no run has completed, the metric does not exist, the tasks differ, or an arm
    has several candidates for its baseline.
    """
    tested = [record for record in records if not _is_trial(record)]
    if tested and len(tested) < len(records):
        notes = [*notes, f"{len(records) - len(tested)} runs without a test left out (trainer.test=false: trials)."]
        records = tested
    arms = group_arms(records)
    completed = [record for arm in arms for record in arm.runs]
    if not completed:
        states = ", ".join(sorted({record.status for record in records})) or "none found"
        raise RecordError(f"no run has completed yet ({len(records)} runs: {states}).")
    task = _task(completed)
    chosen = metric or DEFAULT_METRIC[task]
    known = [f"{split}/{name}" for split in ("test", "val") for name in METRICS[task]]
    if chosen not in known:
        hint = did_you_mean(chosen, known) or f" There are {', '.join(known)}."
        raise RecordError(f"--metric {chosen}: there is no such metric.{hint}")
    rows = tuple(_row(arm, _baseline_of(arm, arms), chosen) for arm in arms)
    return Comparison(
        metric=chosen,
        task=task,
        rows=rows,
        references=_references(completed, chosen, task),
        varies=_varies(completed),
        notes=[*notes, *_notes(arms, rows)],
    )


def _is_trial(record: RunRecord) -> bool:
    return record.config["trainer"].get("test") is False


def _task(records: Sequence[RunRecord]) -> str:
    tasks = sorted({str(record.data.get("task")) for record in records})
    if len(tasks) > 1:
        raise RecordError(f"these runs have different tasks ({', '.join(tasks)}): compare them apart.")
    return tasks[0]


def _baseline_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    if arm.is_baseline:
        return None
    candidates = [other for other in arms if other.is_baseline and other.runs and other.ground == arm.ground]
    if len(candidates) > 1:
        listed = "; ".join(f"{other.label} ({other.runs[0].id})" for other in candidates)
        raise RecordError(f"several arms could be the baseline, give paths of fewer runs: {listed}.")
    return candidates[0] if candidates else None


def _row(arm: Arm, baseline: Arm | None, metric: str) -> Row:
    values = {pair_key(record): record.metrics.get(metric) for record in arm.runs}
    known = {key: value for key, value in values.items() if value is not None}
    gain = None
    if baseline is not None:
        against = {pair_key(record): record.metrics.get(metric) for record in baseline.runs}
        pairs = [value - other for key, value in known.items() if (other := against.get(key)) is not None]
        gain = estimate(pairs) if pairs else None
    last = [_best_at_the_end(record) for record in arm.runs]
    seconds = [record.seconds["total"] for record in arm.runs if "total" in record.seconds]
    return Row(
        arm=arm.label,
        key=arm.key,
        n=len(known),
        failed=sum(record.status in ("failed", "interrupted") for record in arm.others),
        value=estimate(list(known.values())) if known else None,
        gain=gain,
        is_baseline=arm.is_baseline,
        baseline=baseline.label if baseline else None,
        trainable=(arm.runs or arm.others)[0].parameters.get("trainable"),
        seconds=sum(seconds) / len(seconds) if seconds else None,
        improving=bool(last) and sum(last) * 2 > len(last),
    )


def _best_at_the_end(record: RunRecord) -> bool:
    return record.stopped_by == "budget" and record.epochs > 1 and record.best.get("epoch") == record.epochs


def _references(records: Sequence[RunRecord], metric: str, task: str) -> dict[str, float]:
    """Chance and majority class, mean over runs, where all have the same classes and the metric such a value."""
    if len({str(record.data.get("class_names")) for record in records}) != 1:
        return {}
    found = [_references_of(record.data, metric, task) for record in records]
    return {name: sum(values[name] for values in found) / len(found) for name in found[0]}


def _references_of(data: dict[str, Any], metric: str, task: str) -> dict[str, float]:
    split, _, name = metric.partition("/")
    of_split, of_train = data["class_counts"][split], data["class_counts"]["train"]
    classes = len(of_split)
    if task == "multilabel":
        return {"chance": sum(of_split) / (classes * data["sizes"][split])} if name == "map_macro" else {}
    if name == "accuracy_micro":
        majority = of_train.index(max(of_train))
        return {"chance": 1 / classes, "majority class": of_split[majority] / sum(of_split)}
    return {"chance": 1 / classes, "majority class": 1 / classes} if name == "accuracy_macro" else {}


def _varies(records: Sequence[RunRecord]) -> str:
    seeds, splits = {r.seed for r in records}, {(r.split_seed, r.fold) for r in records}
    if len(splits) > 1:
        return "seeds and splits" if len(seeds) > 1 else "splits"
    return "seeds"


def _notes(arms: Sequence[Arm], rows: Sequence[Row]) -> list[str]:
    notes = []
    for arm, row in zip(arms, rows, strict=True):
        states = [record.status for record in arm.others]
        if states:
            counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            notes.append(f"{arm.label}: {counted} (not in its mean).")
        if arm.repeats:
            notes.append(f"{arm.label}: {arm.repeats} earlier runs of the same seeds left out; the latest count.")
        if row.improving:
            notes.append(f"{arm.label}: still improving at its last epoch; a longer budget may change its place.")
        if row.gain and row.gain.n < row.n:
            notes.append(f"{arm.label}: {row.gain.n} of {row.n} runs have a partner in the baseline.")
    if not any(arm.is_baseline for arm in arms):
        notes.append("no baseline (weights=scratch strategy=full) among these runs: no gains.")
    elif lone := [row.arm for row in rows if not row.is_baseline and row.baseline is None]:
        notes.append(f"no baseline of the same backbone, head and data for: {'; '.join(lone)}.")
    return notes
