"""Heads that are solved, one at a time, on the features that the other heads are fitted on."""

from __future__ import annotations

import time

import torch

from headstart.features.course import Course, state_of
from headstart.features.solvers import solve
from headstart.features.tables import Table, in_parts
from headstart.training.progress import Display


def solve_head(course: Course, train: Table, val: Table, *, device: torch.device, progress: str) -> None:
    """Solve a head for each of its candidates, and leave it with the numbers of the one that is kept.

    `course` has a row for each afterwards. Raises RunFailed where features or scores are not finite.
    """
    fit, solver, began = course.fit, course.fit.solver, time.monotonic()
    assert solver is not None
    given = solver.config.neighbors if solver.config.solver == "knn" else solver.config.penalties
    display = Display(style=progress, total_steps=max(1, len(given or ())), steps_per_epoch=1)
    display.start(0)
    try:
        solved = solve(
            solver.config,
            fit.head,
            train=_examples(train, fit.data.targets("train"), device),
            val=_examples(val, fit.data.targets("val"), device),
            task=fit.data.facts.task,
            weights=solver.weights,
            smoothing=solver.smoothing,
            monitor=fit.monitor,
            threshold=fit.threshold,
            refit=fit.refit,
            seen=lambda done: display.move(done, f"{solver.config.solver}: candidates"),
        )
    finally:
        display.stop()
    course.seconds = time.monotonic() - began
    course.rows = [{**row, "seconds": round(course.seconds, 3)} for row in solved.rows]
    course.best, course.threshold, course.stopped_by = solved.best, solved.threshold, "solved"
    fit.head.load_state_dict(solved.state)
    course.about = solved.about
    course.best_state = {} if fit.refit else state_of(fit.head)
    course.write()
    course.tell_all()


def _examples(table: Table, targets: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat(list(in_parts(table))), targets.to(device)
