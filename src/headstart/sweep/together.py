"""Jobs of a sweep that share frozen features, done in one process: features once, all heads in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, RecordError
from headstart.records.schema import RunRecord
from headstart.records.store import now, read_record
from headstart.records.sweeps import DONE, LOG, PRUNE, JobState, Sweep, SweepJob, job_folder, read_state, read_sweep
from headstart.redaction import redact
from headstart.sweep.job import (
    Result,
    alone,
    announcer,
    begin,
    end,
    find_job,
    frozen_config,
    tell,
    unfinished,
    was_pruned,
)

MOST = 256
"""Jobs of one process: what is lost with it, and the locks that it holds, have a limit."""
NUMBERS = 50_000_000
"""Numbers that all heads of one process train: with their gradients, AdamW's state and the best so far, 1 GB."""
LEAST = 16
"""Jobs below which a group is not divided: reading the data and building the model is done once in each part."""

Together = Callable[[Sequence[Any]], "list[RunRecord | BaseException]"]


def partners(
    first: SweepJob, others: Iterable[SweepJob], *, room: int, most: Mapping[str, int], divides: bool
) -> tuple[str, ...]:
    """The jobs that go into one process with `first`, it included; `others` may start, too, in their order.

    They are those that share its features, as many as `most` allows each. Where dividing them is worth while they
    are dealt out evenly to the `room` that there is.
    """
    if not first.together:
        return (first.id,)
    alike = [first, *(job for job in others if job.together == first.together)]
    limits = [most.get(job.id, MOST) for job in alike]
    size = size_of_unit([job.trainable for job in alike], room=room if divides else 1, most=limits)
    return tuple(job.id for job in alike[:size])


def size_of_unit(trainable: Sequence[int], *, room: int, most: Sequence[int] = ()) -> int:
    """How many jobs that share their features go into the next process, of those that train so many numbers each.

    `most` limits the size for each of them; where none is below the usual, they are dealt out to `room` processes.
    """
    limit, numbers, size = MOST, 0, 0
    for own, count in zip(most or [MOST] * len(trainable), trainable, strict=True):
        numbers += count
        if size and (size >= min(limit, own) or numbers > NUMBERS):
            break
        limit, size = min(limit, own), size + 1
    if limit < MOST:
        return size
    parts = max(1, min(room, len(trainable) // LEAST))
    return min(size, -(-len(trainable) // parts))


@dataclass
class _Head:
    """A job at work."""

    job: SweepJob
    before: JobState
    state: JobState
    is_over: bool = False


def perform_together(
    sweep: Path, ids: Sequence[str], *, output_dir: Path, together: Together | None = None
) -> list[Result]:
    """Do several jobs that share their features, each as `perform` does it; what became of each is on disk then.

    Those that are done elsewhere are left out. `together` is what trains; by default the experiment's.
    """
    plan = read_sweep(sweep)
    jobs = [find_job(plan, id, where=sweep) for id in ids]
    heads: dict[str, _Head] = {}
    started = now()
    with ExitStack() as locks:
        for job in jobs:
            if not locks.enter_context(alone(output_dir, job.key)):
                continue
            before = read_state(sweep, job.id)
            state = begin(sweep, job, before, output_dir=output_dir, started=started)
            heads[job.id] = _Head(job, before, state, is_over=state.status == "completed")
        _attempt(sweep, plan, [head for head in heads.values() if not head.is_over], output_dir, together)
    return [heads[job.id].state.status if job.id in heads else "elsewhere" for job in jobs]


def _attempt(sweep: Path, plan: Sweep, heads: Sequence[_Head], output_dir: Path, together: Together | None) -> None:
    """Run them, those that were interrupted from their start; `state` of each says what came of it."""
    asked: list[tuple[_Head, Any]] = []
    try:
        for head in heads:
            try:
                if not was_pruned(head.job, head.before, output_dir=output_dir, state=head.state):
                    asked.append((head, _asked(sweep, plan, head, output_dir)))
                    continue
            except HeadstartError as error:
                tell(head.state, error)
            _over(sweep, plan, head, output_dir)
        if asked:
            if together is None:
                from headstart.experiment import run_together

                together = run_together
            outcomes = together([one for _, one in asked])
            for (head, _), outcome in zip(asked, outcomes, strict=True):
                _take_down(sweep, head, outcome)
                _over(sweep, plan, head, output_dir)
    except BaseException as error:  # of none of them: it ends them all
        for head in heads:
            if not head.is_over:
                if not _was_over(head, output_dir):
                    _take_down(sweep, head, error)
                _over(sweep, plan, head, output_dir)


def _asked(sweep: Path, plan: Sweep, head: _Head, output_dir: Path) -> Any:
    from headstart.experiment import Asked

    job = head.job
    return Asked(
        frozen_config(sweep, job, output_dir),
        command=plan.command,
        launched_by=sweep.name,
        announce=announcer(sweep, job, head.state, output_dir=output_dir),
        expected_key=job.key if job.needs is None else None,
        prune=None if job.trial is None else (job_folder(sweep, job.id) / PRUNE).exists,
        resumes=unfinished(output_dir, job, head.before),
    )


def _take_down(sweep: Path, head: _Head, outcome: RunRecord | BaseException) -> None:
    if not isinstance(outcome, BaseException):
        head.state.status = "completed"
        return
    tell(head.state, outcome)
    if head.state.status == "failed":
        with (job_folder(sweep, head.job.id) / LOG).open("a", encoding="utf-8") as log:
            log.write(f"failed: {redact(str(head.state.error))}\n")


def _over(sweep: Path, plan: Sweep, head: _Head, output_dir: Path) -> None:
    head.is_over = True
    end(sweep, plan, head.job, head.state, output_dir=output_dir)


def _was_over(head: _Head, output_dir: Path) -> bool:
    """Whether a run had come to its end before all of them were ended; `state` says so then."""
    try:
        record = read_record(output_dir / "runs" / str(head.state.run)) if head.state.run else None
    except RecordError:
        return False
    if record is None or record.status not in DONE:
        return False
    head.state.status, head.state.error = record.status, record.error
    return True
