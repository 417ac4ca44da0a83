"""A row of the comparison: one arm, its value, its gain, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.arms import Arm, varies
from headstart.compare.results import Result
from headstart.compare.statistics.intervals import Estimate, estimate
from headstart.compare.statistics.paired import Paired


@dataclass(frozen=True)
class Row:
    """One arm of the comparison; metric values are as recorded, costs are means over its runs."""

    arm: str
    key: str
    method: str
    dataset: str
    train_examples: int | None
    n: int
    failed: int
    """Failed or interrupted runs, those that diverged among them."""
    diverged: int
    value: Estimate | None
    paired: Paired | None
    """Against the baseline; None without one, without pairs, and for the baseline itself."""
    is_baseline: bool
    baseline: str | None
    baseline_key: str | None
    varies: str
    """What the intervals vary: `seeds`, `splits`, `seeds and splits` or `nothing`."""
    pairs_vary: str
    """The same of the gain's pairs."""
    from_scratch: bool
    """Whether its baseline is training from scratch."""
    trainable: int | None
    """Parameters that were trained."""
    seconds: float | None
    gpu_hours: float | None
    peak_memory: int | None
    """Bytes, on the GPU where there was one."""
    drift: float | None
    """Debiased linear CKA of the final features with those at the start: 1 where nothing moved."""
    trials: int | None
    """With how many trials each tuned key was found."""
    searched: str
    """What its tuned keys were found to be, and of what."""
    improving: bool
    """Whether most of its runs were at their best in the last epoch of their budget."""

    @property
    def gain(self) -> Estimate | None:
        """Paired difference to the baseline; its `n` counts the pairs."""
        return self.paired.difference if self.paired else None

    @property
    def is_negative_transfer(self) -> bool:
        """Whether it is worse than its baseline beyond doubt; where that is training from scratch."""
        return self.from_scratch and self.paired is not None and self.paired.verdict == "worse"


def row_of(arm: Arm, baseline: Arm | None, paired: Paired | None, metric: str, *, is_baseline: bool) -> Row:
    """An arm's row, with what it came to beside its baseline."""
    known = [(value, run) for run in arm.runs if (value := run.metrics.get(metric)) is not None]
    records = [run.record for run in arm.runs if run.record]
    seconds = [record.seconds["total"] for record in records if "total" in record.seconds]
    on_gpu = [record for record in records if record.config["trainer"].get("accelerator") == "gpu"]
    memory = [
        held for record in records if (held := record.peak_memory.get("gpu") or record.peak_memory.get("cpu"))
    ]
    drifts = [cka for record in records if (cka := record.drift.get("linear_cka_debiased")) is not None]
    last = [_best_at_the_end(run) for run in arm.runs]
    example = arm.example.record
    partners = {run.pair for run in baseline.runs} if baseline else set()
    clusters = [(run.split_seed, run.fold) for _, run in known]
    return Row(
        arm=arm.label,
        key=arm.key,
        method=arm.method,
        dataset=arm.setting.dataset,
        train_examples=arm.setting.train_examples,
        n=len(known),
        failed=sum(run.status in ("failed", "interrupted") for run in arm.others),
        diverged=sum(_diverged(run) for run in arm.others),
        value=estimate([value for value, _ in known], clusters) if known else None,
        paired=paired,
        is_baseline=is_baseline,
        baseline=baseline.label if baseline else None,
        baseline_key=baseline.key if baseline else None,
        varies=arm.varies,
        pairs_vary=varies([run for run in arm.runs if run.pair in partners]),
        from_scratch=baseline is not None and baseline.example.is_scratch,
        trainable=example.parameters.get("trainable") if example else None,
        seconds=sum(seconds) / len(seconds) if seconds else None,
        gpu_hours=_gpu_hours(on_gpu),
        peak_memory=max(memory) if memory else None,
        drift=sum(drifts) / len(drifts) if drifts else None,
        trials=arm.example.trials,
        searched=arm.example.searched,
        improving=bool(last) and sum(last) * 2 > len(last),
    )


def _gpu_hours(records: Sequence[Any]) -> float | None:
    hours = [
        record.seconds["total"] * record.config["trainer"].get("devices", 1) / 3600
        for record in records
        if "total" in record.seconds
    ]
    return sum(hours) / len(hours) if hours else None


def _diverged(run: Result) -> bool:
    return run.status == "failed" and run.record is not None and "not finite" in (run.record.error or "")


def _best_at_the_end(run: Result) -> bool:
    record = run.record
    return (
        record is not None
        and record.stopped_by == "budget"
        and record.epochs > 1
        and record.best.get("epoch") == record.epochs
    )


def flat_row(row: Row, metric: str) -> dict[str, Any]:
    """Plain columns, for tables and files."""
    value, gain, paired = row.value, row.gain, row.paired
    return {
        "arm": row.arm,
        "dataset": row.dataset,
        "train_examples": row.train_examples,
        "n": row.n,
        "failed": row.failed,
        metric: value.mean if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "std": value.std if value else None,
        "varies": row.varies,
        "gain": gain.mean if gain else None,
        "gain_low": gain.low if gain else None,
        "gain_high": gain.high if gain else None,
        "pairs": gain.n if gain else 0,
        "verdict": paired.verdict if paired else None,
        "more_pairs": paired.more if paired else None,
        "p": paired.p if paired else None,
        "p_holm": paired.p_holm if paired else None,
        "effect_size": paired.effect_size if paired else None,
        "cliffs_delta": paired.cliffs_delta if paired else None,
        "superiority": paired.superiority.probability if paired else None,
        "superiority_low": paired.superiority.low if paired else None,
        "superiority_high": paired.superiority.high if paired else None,
        "baseline": row.baseline,
        "trainable_parameters": row.trainable,
        "seconds": row.seconds,
        "gpu_hours": row.gpu_hours,
        "peak_memory": row.peak_memory,
        "drift": row.drift,
        "trials": row.trials,
        "searched": row.searched,
        "still_improving": row.improving,
    }
