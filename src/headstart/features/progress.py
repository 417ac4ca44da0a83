"""What a person sees while heads are fitted: for one what any run shows, for many one line for them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from headstart.config.checks import lower_is_better
from headstart.features.course import Course
from headstart.records.progress import forget_progress, write_progress
from headstart.training.progress import EVERY, Display


class HeadsProgress:
    """A bar or lines for the heads of a cohort, and the small file of each for whoever looks on."""

    def __init__(self, courses: Sequence[Course], *, style: str, steps_per_epoch: int) -> None:
        """`courses` are those that are still fitted, whoever leaves."""
        self.courses = courses
        total = max(course.fit.budget.total_steps for course in courses)
        self.display = Display(style=style, total_steps=total, steps_per_epoch=steps_per_epoch)
        self.display.start(0)
        self._folders = [course.fit.folder for course in courses]
        self._wrote = time.monotonic()
        self._said = ""

    def move(self, step: int) -> None:
        """Move the bar and, now and then, write the files."""
        self.display.move(step, self._said)
        if time.monotonic() < self._wrote + EVERY * (1 + len(self.courses) / 10):  # many files take their time
            return
        for course in self.courses:
            with suppress(OSError):
                write_progress(course.fit.folder, self.display.state(step, _metric(course)))
        self._wrote = time.monotonic()

    def epoch(self, step: int, losses: Sequence[float]) -> None:
        """Show the epoch of heads with these mean losses: one's own, or the best of many."""
        first = self.courses[0].fit
        if len(self.courses) == 1:
            self._said = f"loss {losses[0]:.3f}  {_metric(self.courses[0])}"
        else:
            monitor = _monitor(first.monitor, first.validation)
            values = [
                course.rows[-1][monitor] for course in self.courses if course.rows and monitor in course.rows[-1]
            ]
            best = (min if lower_is_better(monitor) else max)(values, default=float("nan"))
            self._said = f"{len(self.courses)} heads  loss {min(losses):.3f}  {monitor} {best:.4f}"
        self.display.epoch(step, self._said)

    def stop(self) -> None:
        """Take away the bar and the files."""
        self.display.stop()
        for folder in self._folders:
            with suppress(OSError):
                forget_progress(folder)


def _monitor(name: str, validation: str) -> str:
    return name.replace("val/", f"{validation}/")


def _metric(course: Course) -> str:
    """The monitored metric and its last value, in words."""
    name = _monitor(course.fit.monitor, course.fit.validation)
    return f"{name} {course.rows[-1][name]:.4f}" if course.rows and name in course.rows[-1] else ""
