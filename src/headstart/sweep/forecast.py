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
    """Jobs whose step was not measured: the mean of the others' stands in."""
    kept: int
    """Bytes on disk when all is done."""
    beside: int
    """Bytes more while jobs run."""


def forecast(checked: Sequence[Checked], *, slots: int) -> Forecast:
    """Add up what the jobs will cost."""
    known = [job.step_seconds for job in checked if job.step_seconds is not None]
    step = sum(known) / len(known) if known else None
    each = [] if step is None else [job_seconds(job, step=step) for job in checked]
    sizes = sorted((job.parameters * _BYTES for job in checked), reverse=True)
    return Forecast(
        jobs=len(checked),
        seconds=max(sum(each) / slots, max(each)) if each else None,
        unmeasured=len(checked) - len(known) if known else 0,
        kept=sum(sizes) * _WEIGHTS,
        beside=sum(sizes[:slots]) * _TRAINING,
    )


def job_seconds(job: Checked, *, step: float | None = None) -> float:
    """How long a job takes alone, from the time of one of its steps; `step` stands in where none was measured."""
    seconds = job.step_seconds if job.step_seconds is not None else step
    assert seconds is not None
    evaluated = job.epochs * job.val_images + job.test_images
    return _START + job.steps * seconds + evaluated * seconds / job.batch_size * _FORWARD


def size_in_words(count: int) -> str:
    """Bytes as a person says them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
