"""The second engine: heads on features that are computed once, any number of them at the same time.

Heads that train on the same split with the same batch size go in step, so that each batch is read once. Each has
its own seed, optimiser, schedule, budget and end, and leaves alone: what becomes of one never touches another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from headstart.data.datamodule import ImageDataModule
from headstart.features.course import Course, HeadFit, finite, load_state, state_of
from headstart.features.progress import HeadsProgress
from headstart.features.solved import solve_head
from headstart.features.stack import Stack, Standing, scores_of
from headstart.features.tables import Bank, Table, in_parts
from headstart.features.updates import Updates
from headstart.training.checkpoints import BEST, FOLDER, LAST, save_state
from headstart.training.drift import IMAGES, unmoved
from headstart.training.engine import Fitted
from headstart.training.metrics import THRESHOLD, evaluate

Done = Callable[[int, Fitted | Exception, Course], None]
"""Place of a fit among those asked for, what came of it, and its course."""


def fit_together(
    fits: Sequence[HeadFit], bank: Bank, *, device: torch.device, progress: str, live: bool, done: Done
) -> None:
    """Fit heads on the features of one backbone; `done` is called for each as soon as it is over.

    With `live` rows are written and handed to the loggers epoch by epoch; else metrics.csv is written at the end,
    and the loggers are left to `done`. `done` must not raise an Exception.
    """
    cohorts: dict[tuple[Any, ...], list[int]] = {}
    for place, fit in enumerate(fits):
        cohorts.setdefault(_cohort(fit), []).append(place)
    for places in cohorts.values():
        cohort = _Cohort([(place, fits[place]) for place in places], bank, device=device, live=live, done=done)
        cohort.run(progress)


def _cohort(fit: HeadFit) -> tuple[Any, ...]:
    """What fits share that go in step: the images they train on, in the same splits, and batches of one size."""
    data, facts = fit.data, fit.data.facts
    images = (facts.fingerprint, facts.split_fingerprint, facts.num_outputs, data.sampling, fit.views)
    # those that are solved take no batches, and come one by one
    return (images, None, False) if fit.solver else (images, data.batch_size, _is_small(fit))


_SMALL = 4_000_000
"""Multiplications of a head's largest product on a batch, up to which threads cost more than they bring."""


def _is_small(fit: HeadFit) -> bool:
    """Whether one thread fits a head, whatever the number of the run is: it must follow from the head alone."""
    largest = max((parameter.numel() for parameter in fit.head.parameters()), default=0)
    return largest * fit.data.batch_size <= _SMALL


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """With so many threads inside an operation; before and after as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Cohort:
    """Heads that go in step."""

    def __init__(
        self, fits: Sequence[tuple[int, HeadFit]], bank: Bank, *, device: torch.device, live: bool, done: Done
    ) -> None:
        fits = sorted(fits, key=lambda pair: pair[1].loss)
        self.bank, self.device, self.done = bank, device, done
        self.usual = torch.get_num_threads()
        self.threads = 1 if _is_small(fits[0][1]) else self.usual
        self.places = [place for place, _ in fits]
        self.courses = [Course(fit, live or fit.prune is not None) for _, fit in fits]
        self.live = live
        self.facts, self.per_epoch = fits[0][1].data.facts, fits[0][1].budget.steps_per_epoch
        self.feeds: list[ImageDataModule] = list({fit.seed: fit.data for _, fit in fits}.values())
        self.train: list[Table] = []
        self._losses: list[torch.Tensor] = []
        self._first = 0
        """The step that the present epoch began with."""
        self.seeds = [data.seed for data in self.feeds]
        self._tested: Table | None = None
        self._testing = 0
        """How many heads are to be tested."""
        self._read_test = 0.0
        """The share that each of these has in having the features of the test."""
        self._drift: dict[str, Any] | None = None
        self._told: set[int] = set()
        """Places of those that are over."""

    def run(self, progress: str) -> None:
        """Fit them all."""
        first, began = self.courses[0].fit, time.monotonic()
        try:
            self._read(first.views)
        except Exception as error:  # what one of them cannot have, none can
            self._end_all(error)
            return
        for course in self.courses:
            course.fit.head.to(self.device)
            course.began = time.monotonic()
            course.reading = (course.began - began) / len(self.courses)
        self._testing = sum(fit.test for fit in self._fits())
        try:
            if first.solver:
                self._solve(progress)
            else:
                self._train(first, progress)
        except Exception as error:  # other heads, in step with others, go on
            self._end_all(error)
        except BaseException:
            for course in self.courses:
                with suppress(OSError):
                    course.keep_rows()
            raise

    def _end_all(self, error: Exception) -> None:
        """Let all that are left come to nothing."""
        for place, course in zip(tuple(self.places), tuple(self.courses), strict=True):
            if place not in self._told:
                self._tell(place, error, course)

    def _tell(self, place: int, outcome: Fitted | Exception, course: Course) -> None:
        self._told.add(place)
        self.done(place, outcome, course)

    def _solve(self, progress: str) -> None:
        """Solve each head by itself."""
        for i, course in enumerate(self.courses):
            train = self.train[self.seeds.index(course.fit.seed)]
            outcome: Fitted | Exception
            try:
                solve_head(course, train, self.val, device=self.device, progress=progress)
                outcome = self._finished(course)
            except Exception as error:
                outcome = error
            self._tell(self.places[i], outcome, course)
            if len(self.courses) > 1:  # a bank of neighbours is as large as the features
                course.best_state = {}
                course.fit.head.to("meta")

    def _train(self, first: HeadFit, progress: str) -> None:
        """Train them all in step."""
        self.stack = Stack(
            [Standing(f.head, f.terms, f.loss, f.seed, self.seeds.index(f.seed)) for f in self._fits()],
            outputs=self.facts.num_outputs,
            batch_size=first.data.batch_size,
            device=self.device,
        )
        self.updates = Updates([fit.optimizer for fit in self._fits()], self.stack.parameters)
        shown = HeadsProgress(self.courses, style=progress, steps_per_epoch=self.per_epoch)
        try:
            step = 0
            while self.courses:
                with _threads(self.threads):
                    step = self._epoch(step, shown)
        finally:
            shown.stop()

    def _fits(self) -> list[HeadFit]:
        return [course.fit for course in self.courses]

    def _read(self, views: int | None) -> None:
        """Have the features of what is trained and validated on; those of the test wait until there is a test."""
        # augmented versions are a seed's own
        feeds = self.feeds if views else self.feeds[:1]
        train = [self.bank.tables(data, ["train"], views=views)["train"] for data in feeds]
        self.train = train if views else train * len(self.feeds)
        self.val = self.bank.tables(self.feeds[0], ["val"])["val"]
        self.targets = self.feeds[0].targets("train").to(self.device)

    def _epoch(self, step: int, shown: HeadsProgress) -> int:
        """One epoch, or what the budgets and clocks leave of it, and its validation; returns the steps by then."""
        self._first, self._losses = step, []
        epoch = step // self.per_epoch
        batches = [data.training_batches(epoch) for data in self.feeds]
        view = epoch % (self.courses[0].fit.views or 1)
        end = step + self.per_epoch
        self._plan(step, end)
        began = time.monotonic()
        while step < end and self.courses:
            places = [batch[step - self._first] for batch in batches]
            features = [table.rows(at, view=view) for table, at in zip(self.train, places, strict=True)]
            targets = [self.targets[at.to(self.device)] for at in places]
            self._losses.append(self.stack.step(features, targets, step=step))
            for i, course in enumerate(self.courses):
                if course.fit.clip is not None:
                    self.stack.clip(i, course.fit.clip)
            self.updates.step(step - self._first, self.stack.gradients)
            step += 1
            shown.move(step)
            whole = step == end
            ending = {i for i, c in enumerate(self.courses) if whole or step >= c.fit.budget.total_steps or c.late}
            if ending:
                self._validate(step, ending, began, shown if whole else None)
                began = time.monotonic()
                if self.courses and not whole:
                    self._plan(self._first, end)
        return step

    def _plan(self, first: int, end: int) -> None:
        self.updates.plan([tuple(fit.rate(step) for step in range(first, end)) for fit in self._fits()])

    def _validate(self, step: int, ending: set[int], began: float, shown: HeadsProgress | None) -> None:
        """Score the heads that end an epoch; those that are over leave."""
        parts: dict[int, list[torch.Tensor]] = {i: [] for i in ending}
        for features in in_parts(self.val):
            for i, own in parts.items():
                own.append(scores_of(self.courses[i].fit.head, features))
        losses = torch.stack(self._losses, dim=1).tolist()
        errors: dict[int, Exception] = {}
        for i, own in parts.items():
            course = self.courses[i]
            try:
                course.end_epoch(step, first=self._first, losses=losses[i], scores=torch.cat(own))
            except Exception as error:
                errors[i] = error
        if shown is not None:
            shown.epoch(step, [sum(row) / len(row) for row in losses])
        share = (time.monotonic() - began) / len(self.courses)
        for course in self.courses:
            course.seconds += share
        leaving = {i for i in ending if i in errors or self.courses[i].stopped_by}
        for i in sorted(leaving):
            course = self.courses[i]
            self._tell(self.places[i], errors[i] if i in errors else self._finish(course), course)
        if leaving:
            self._leave(leaving)

    def _leave(self, leaving: set[int]) -> None:
        """Go on without some."""
        stay = [i for i in range(len(self.courses)) if i not in leaving]
        self.courses[:] = [self.courses[i] for i in stay]
        self.places = [self.places[i] for i in stay]
        self._losses = [losses[stay] for losses in self._losses]
        if stay:
            self.stack, self.updates = self.stack.without(leaving), self.updates.without(leaving)

    def _finish(self, course: Course) -> Fitted | Exception:
        """Keep a head's weights, test it, and say what it came to."""
        try:
            return self._finished(course)
        except Exception as error:
            return error

    def _finished(self, course: Course) -> Fitted:
        fit, began = course.fit, time.monotonic()
        if not course.live and not fit.solver:
            course.write()
        (fit.folder / FOLDER).mkdir(exist_ok=True)
        if course.best_state:
            save_state(fit.folder / FOLDER / BEST, course.best_state)
        save_state(fit.folder / FOLDER / LAST, state_of(fit.head))
        if fit.tested == "best":
            load_state(fit.head, course.best_state)
        row = course.rows[-1]
        if fit.tested == "best":
            row = next(row for row in course.rows if row["step"] == course.best["step"])
        threshold = float(row.get(THRESHOLD, course.threshold))
        metrics = {key: value for key, value in row.items() if key.startswith(f"{fit.validation}/")}
        scores: torch.Tensor | None = None
        if fit.test:
            table = self._test_table(fit.data)
            course.reading += self._read_test
            began = time.monotonic()
            scores = torch.cat([scores_of(fit.head, part) for part in in_parts(table)])
            scores = finite(scores, "test", row["step"])
            targets, task = fit.data.targets("test"), self.facts.task
            metrics |= evaluate(scores, targets, task=task, split="test", threshold=threshold)
        return Fitted(
            metrics=metrics,
            best=course.best,
            scores=scores,
            targets=fit.data.targets("test") if fit.test else None,
            threshold=threshold,
            epochs=int(course.rows[-1]["epoch"]),
            steps=int(course.rows[-1]["step"]),
            stopped_by=course.stopped_by,
            fit_seconds=course.seconds,
            test_seconds=time.monotonic() - began,
            drift=self._unmoved() if fit.drift else {},
        )

    def _test_table(self, data: ImageDataModule) -> Table:
        if self._tested is None:
            began = time.monotonic()
            with _threads(self.usual):
                self._tested = self.bank.tables(data, ["test"])["test"]
            self._read_test = (time.monotonic() - began) / self._testing
        return self._tested

    def _unmoved(self) -> dict[str, Any]:
        """What the record says of features that did not move; of all heads of the cohort the same."""
        if self._drift is None:
            places = np.linspace(0, len(self.val) - 1, min(IMAGES, len(self.val))).round().astype(int)
            self._drift = unmoved(self.val.rows(torch.from_numpy(places)))
        return self._drift
