"""The course of one head: its rows, its best weights, and when it is over; the same rules as in training/."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from headstart.config.checks import lower_is_better
from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.optimizer import OptimizerConfig
from headstart.data.datamodule import ImageDataModule
from headstart.errors import RunFailed, RunPruned
from headstart.records.tables import METRICS, write_rows
from headstart.training.history import epoch_of
from headstart.training.loggers import RunLogger
from headstart.training.losses import Terms
from headstart.training.metrics import DEFAULT_THRESHOLD, THRESHOLD, best_threshold, evaluate
from headstart.training.schedules import Factor
from headstart.training.trainer import Budget

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Solver:
    """How a head is solved that is not trained in steps."""

    config: LinearHeadConfig
    weights: torch.Tensor | None = None
    """Of the loss, per class."""
    smoothing: float = 0.0


@dataclass(frozen=True)
class HeadFit:
    """What it takes to fit one head, as `training.fit` takes it for a whole model."""

    head: nn.Sequential
    data: ImageDataModule
    terms: Terms
    loss: str
    """What names the loss: of two fits on the same data it is the same exactly where the loss is."""
    optimizer: OptimizerConfig
    factor: Factor
    multiple: Factor
    """Global step -> what the plan multiplies the rate of the head by."""
    budget: Budget
    clip: float | None
    seed: int
    refit: bool
    threshold: float | Literal["validation"] | None
    monitor: str
    tested: str
    test: bool
    folder: Path
    views: int | None = None
    loggers: Sequence[RunLogger] = ()
    every_n_steps: int | None = None
    prune: Callable[[], bool] | None = None
    drift: bool = False
    solver: Solver | None = None

    def rate(self, step: int) -> float:
        """Learning rate of a global step."""
        return self.optimizer.lr * (self.multiple(step) * self.factor(step))

    @property
    def validation(self) -> str:
        """How the metrics of the validation images are named: those that are trained on are no validation."""
        return "fit" if self.refit else "val"


@dataclass
class Course:
    """Where a head stands."""

    fit: HeadFit
    live: bool
    """Whether rows are written and logged as they come, or all at the end."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Rows of single steps that no logger has yet."""
    best: dict[str, Any] = field(default_factory=dict)
    best_state: State = field(default_factory=dict)
    threshold: float = DEFAULT_THRESHOLD
    seconds: float = 0.0
    """Its share of the time of all heads that were fitted at the same time."""
    reading: float = 0.0
    """Its share of the time that it took to have the features."""
    stopped_by: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    """What the record says of how it was solved."""
    began: float = field(default_factory=time.monotonic)
    _waited: int = 0
    _record: float | None = None

    def __post_init__(self) -> None:
        if self.fit.threshold not in (None, "validation"):
            self.threshold = float(cast(float, self.fit.threshold))

    @property
    def late(self) -> bool:
        """Whether its wall clock has run out."""
        limit = self.fit.budget.max_time
        return limit is not None and time.monotonic() - self.began >= seconds_of(limit)

    def end_epoch(self, step: int, *, first: int, losses: Sequence[float], scores: torch.Tensor) -> None:
        """Write down an epoch of the steps `first` to `step`, and see whether the head is done.

        `losses` are those of its steps, `scores` those of the validation images after it, in their order. Raises
        RunFailed where a loss or score is not finite, RunPruned where that is asked for.
        """
        self._step_rows(first, losses)
        bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            self._tell(None)
            raise diverged(first + bad, self.fit.optimizer.lr * self.fit.factor(first + bad))
        values = self._evaluate(scores, step)
        row: dict[str, Any] = {
            "epoch": epoch_of(step, self.fit.budget.steps_per_epoch),
            "step": step,
            "train/loss": math.fsum(losses) / max(1, len(losses)),
            **values,
            "lr/head": self.fit.rate(step - 1),
            "seconds": round(time.monotonic() - self.began, 3),
        }
        self.rows.append(row)
        if self.live:
            self.write()
        self._tell(row)
        self._keep_best(row)
        self._see_whether_over(row)
        if self.fit.prune is not None and self.fit.prune():
            raise RunPruned(f"stopped after step {step}: other trials were better by then.")

    def write(self) -> None:
        """Write metrics.csv."""
        write_rows(self.fit.folder / METRICS, self.rows)

    def keep_rows(self) -> None:
        """Write what there is of a head that came to nothing; raises OSError."""
        if self.rows and not self.live:
            self.write()

    def _tell(self, row: dict[str, Any] | None) -> None:
        """Hand the rows since the last time to the loggers that listen."""
        for logger in self.fit.loggers:
            for step in self.steps:
                logger.step(step)
            if row is not None:
                logger.epoch(row)
        if self.fit.loggers:
            self.steps = []

    def tell_all(self) -> None:
        """Hand all epochs to the loggers that listen."""
        for logger in self.fit.loggers:
            for row in self.rows:
                logger.epoch(row)

    def all_rows(self) -> list[dict[str, Any]]:
        """Rows of steps and epochs in the order in which they came about."""
        return sorted([*self.steps, *self.rows], key=lambda row: (row["step"], "epoch" in row))

    def _step_rows(self, first: int, losses: Sequence[float]) -> None:
        every = self.fit.every_n_steps
        for step, loss in enumerate(losses, start=first + 1) if every else ():
            if not math.isfinite(loss):
                break
            if every and step % every == 0:
                self.steps.append({"step": step, "train/step_loss": loss, "lr/head": self.fit.rate(step - 1)})

    def _evaluate(self, scores: torch.Tensor, step: int) -> dict[str, float]:
        fit = self.fit
        scores = finite(scores, fit.validation, step)
        targets = fit.data.targets("val")
        chosen: dict[str, float] = {}
        if fit.threshold == "validation" and not fit.refit:
            self.threshold = best_threshold(scores, targets)
            chosen[THRESHOLD] = self.threshold
        task = fit.data.facts.task
        return evaluate(scores, targets, task=task, split=fit.validation, threshold=self.threshold) | chosen

    def _keep_best(self, row: dict[str, Any]) -> None:
        if self.fit.refit:
            return
        monitor, value = self.fit.monitor, row[self.fit.monitor]
        if self.best and not _better(value, self.best["value"], monitor):
            return
        self.best = {"epoch": row["epoch"], "step": row["step"], "monitor": monitor, "value": value}
        self.best_state = state_of(self.fit.head)

    def _see_whether_over(self, row: dict[str, Any]) -> None:
        """The budget, and Lightning's early stopping: once per whole epoch, from where the last phase begins."""
        budget, step = self.fit.budget, row["step"]
        if budget.patience is not None and (step > budget.patient_from or budget.patient_from == 0):
            value = float(np.float32(row[self.fit.monitor]))  # as Lightning keeps it
            if self._record is None or _better(value, self._record, self.fit.monitor):
                self._record, self._waited = value, 0
            else:
                self._waited += 1
        if step >= budget.total_steps:
            self.stopped_by = "budget"
        elif budget.patience is not None and self._waited >= budget.patience:
            self.stopped_by = "early_stopping"
        elif self.late:
            self.stopped_by = "max_time"


def _better(value: float, before: float, monitor: str) -> bool:
    return value < before if lower_is_better(monitor) else value > before


def state_of(head: nn.Module) -> State:
    """A copy of a head's tensors, on the CPU, under the names that they have in the whole model."""
    return {f"head.{name}": value.detach().cpu().clone() for name, value in head.state_dict().items()}


def load_state(head: nn.Module, state: State) -> None:
    """Put back what `state_of` took."""
    head.load_state_dict({name.removeprefix("head."): copy.copy(value) for name, value in state.items()})


def finite(scores: torch.Tensor, split: str, step: int) -> torch.Tensor:
    """The scores on the CPU; raises RunFailed where one is not finite."""
    scores = scores.float().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise RunFailed(f"the scores of the {split} split are not finite at step {step}.")
    return scores


def diverged(step: int, rate: float) -> RunFailed:
    """What is said of a loss that is not finite."""
    return RunFailed(
        f"the loss was not finite at step {step}, learning rate {rate:.3g}; try a lower optimizer.lr, "
        "a warm-up or trainer.gradient_clip_val."
    )


def seconds_of(clock: str) -> float:
    """Seconds of DD:HH:MM:SS."""
    days, hours, minutes, seconds = map(int, clock.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
