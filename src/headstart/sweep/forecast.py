"""What a sweep will cost, before it runs: time from one measured step per model, disk from its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.sweep.preflight import Checked
from headstart.sweep.together import size_of_unit

_START = 1.5
"""Seconds that a job spends on data, model and files, however little it trains."""
_FORWARD = 0.4
"""Share of a training step that evaluating as many images takes."""
_HEAD, _HEAD_STEP = 0.1, 1e-4
"""Seconds that a head on features takes, however little it trains: its records; and those of a step."""
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


def forecast(checked: Sequence[Checked], *, slots: int, divides: bool = True) -> Forecast:
    """Add up what the jobs will cost; where it `divides` them, those that go together are dealt to the slots."""
    known = [job.step_seconds for job in checked if job.step_seconds is not None]
    step = sum(known) / len(known) if known else None
    units = units_of(checked, slots=slots, divides=divides)
    each = [] if step is None else [unit_seconds(unit, step=step) for unit in units]
    sizes = sorted((job.parameters * _BYTES for job in checked), reverse=True)
    return Forecast(
        jobs=len(checked),
        seconds=max(sum(each) / slots, max(each)) if each else None,
        unmeasured=len(checked) - len(known) if known else 0,
        kept=sum(sizes) * _WEIGHTS,
        beside=sum(sizes[:slots]) * _TRAINING,
    )


def units_of(checked: Sequence[Checked], *, slots: int, divides: bool) -> list[list[Checked]]:
    """The jobs by the process that does them."""
    alike: dict[str, list[Checked]] = {}
    units = []
    for job in checked:
        if job.together:
            alike.setdefault(job.together, []).append(job)
        else:
            units.append([job])
    for jobs in alike.values():
        room = slots if divides else 1
        while jobs:
            size = size_of_unit([job.trainable for job in jobs], room=room)
            units.append(jobs[:size])
            jobs, room = jobs[size:], max(1, room - 1)
    return units


def job_seconds(job: Checked, *, step: float | None = None) -> float:
    """How long a job takes alone, from the time of one of its steps; `step` stands in where none was measured."""
    return unit_seconds([job], step=step)


def unit_seconds(jobs: Sequence[Checked], *, step: float | None = None) -> float:
    """How long the jobs of a process take; what is frozen in all of them runs once over each image."""
    job = jobs[0]
    seconds = job.step_seconds if job.step_seconds is not None else step
    assert seconds is not None
    if not job.together:
        evaluated = job.epochs * job.val_images + job.test_images
        return _START + job.steps * seconds + evaluated * seconds / job.batch_size * _FORWARD
    images = max(one.train_images * one.views + one.val_images + one.test_images for one in jobs)
    heads = sum(_HEAD + one.steps * _HEAD_STEP for one in jobs)
    return _START + images * seconds / job.batch_size + heads


def size_in_words(count: int) -> str:
    """Bytes as a person says them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
