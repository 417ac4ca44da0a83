"""What a sweep will cost, before it runs: time from one measured step per model, disk from its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.sweep.preflight import Checked

_START = 1.5
"""Seconds that a job spends on data, model and files, however little it trains."""
_FORWARD = 0.4
"""Share of a training step that evaluating as many images takes."""
_WEIGHTS, _TRAINING = 2, 3
"""Copies of the parameters that a finished run keeps, and that a running one has beside them (AdamW's)."""
_BYTES = 4


@dataclass(frozen=True)
class Forecast:
    """Of the jobs that are still to be run."""

    jobs: int
    seconds: float | None
    """Wall clock with all slots at work; None where no step was measured."""
    unmeasured: int
    """Jobs for which the mean of the others stands in."""
    kept: int
    """Bytes on disk when all is done."""
    beside: int
    """Bytes more while jobs run."""


def forecast(checked: Sequence[Checked], *, slots: int) -> Forecast:
    """Add up what the jobs will cost."""
    known = [job_seconds(job) for job in checked if job.step_seconds is not None]
    mean = sum(known) / len(known) if known else None
    unmeasured = len(checked) - len(known)
    total = None if mean is None else sum(known) + unmeasured * mean
    sizes = sorted((job.parameters * _BYTES for job in checked), reverse=True)
    return Forecast(
        jobs=len(checked),
        seconds=None if total is None else max(total / slots, max(known)),
        unmeasured=unmeasured if known else 0,
        kept=sum(sizes) * _WEIGHTS,
        beside=sum(sizes[:slots]) * _TRAINING,
    )


def job_seconds(job: Checked) -> float:
    """How long a job takes alone, from the time of one of its steps."""
    assert job.step_seconds is not None
    per_image = job.step_seconds / job.batch_size
    evaluated = job.epochs * job.val_images + job.test_images
    return _START + job.steps * job.step_seconds + evaluated * per_image * _FORWARD


def size_in_words(count: int) -> str:
    """Bytes as a person says them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
