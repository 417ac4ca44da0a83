"""The learning-rate range test: a short run whose rate rises, and the rate that its losses speak for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl

from headstart.assembly import machine_of, module_of
from headstart.config.schema.head import LinearHeadConfig
from headstart.errors import ConfigError, RunFailed
from headstart.preparation import Prepared
from headstart.strategies.plan import TrainingPlan
from headstart.training.module import TransferModule
from headstart.training.trainer import Budget, build_trainer, quiet

LOWEST, HIGHEST = 1e-6, 10.0
"""Base rates of the first and the last step."""
STEPS = 100
_SMOOTHING = 0.9
"""How much of the smoothed loss each step keeps: about the last ten steps, of 14 per factor of ten, are in it."""
_DIVERGED = 4.0
"""Times the lowest smoothed loss, above which the test ends (Smith 2017 goes on until accuracy falls)."""
_UNSETTLED = 10
"""First steps whose smoothed loss is a mean over too few to be the lowest or the steepest."""
_FELL = 0.97
"""A lowest loss above this share of that of the first steps has not fallen."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw: per step the base rate, the loss of its batch and the smoothed loss."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool
    phase: int
    """The phase of the plan that was tried, counted from 1."""
    phases: int

    @property
    def lowest(self) -> float | None:
        """The rate at which the smoothed loss was lowest; None where no rate made it fall."""
        if len(self.smoothed) <= _UNSETTLED:
            return None
        settled = self.smoothed[_UNSETTLED:]
        if min(settled) > _FELL * self.smoothed[_UNSETTLED - 1]:
            return None
        return self.rates[_UNSETTLED + settled.index(min(settled))]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss fell fastest per logarithm of the rate, before it was lowest."""
        if self.lowest is None:
            return None
        end = self.rates.index(self.lowest) + 1
        if end - _UNSETTLED < 2:
            return self.lowest
        slopes = np.gradient(self.smoothed[_UNSETTLED:end], np.log(self.rates[_UNSETTLED:end]))
        return self.rates[_UNSETTLED + int(slopes.argmin())]

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate of the lowest loss, in two digits: the loss is lowest shortly before it runs away."""
        return None if self.lowest is None else float(f"{self.lowest / 10:.1e}")


def rate_at(step: int, *, steps: int) -> float:
    """The base rate of a step: from `LOWEST` to `HIGHEST` in equal factors."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1)))


def find_rate(
    prepared: Prepared, *, steps: int = STEPS, progress: Callable[[int], None] = lambda count: None
) -> RangeTest:
    """Train a prepared run for a few steps at rising rates, its model used up (Smith 2017, section 3.3).

    All is as in the run but for the schedule: strategy, optimiser, loss, penalties, mixing, augmentation, order
    of the images and draws. Of a plan with phases the one with most to train is tried, from the weights that the
    run starts with. Nothing is written. `progress` is told how many steps are done. Raises ConfigError where
    nothing trains by a rate.
    """
    head = prepared.config.head
    if isinstance(head, LinearHeadConfig) and head.solver != "gradient":
        raise ConfigError(
            f"--find lr: head.solver={head.solver} has no learning rate; head.solver=gradient has one."
        )
    place = _phase_with_most(prepared)
    phase = replace(prepared.plan.phases[place], start=0)
    base = prepared.config.optimizer.lr
    tried = replace(
        prepared,
        plan=TrainingPlan((phase,), prepared.plan.adapts_rates, prepared.plan.stochnorm_p),
        factor=lambda step: rate_at(step, steps=steps) / base,
    )
    watch = _Watch(progress)
    budget = Budget(steps, prepared.budget.steps_per_epoch)
    machine = replace(machine_of(prepared.config), devices=1)
    clip = prepared.config.trainer.gradient_clip_val
    prepared.data.world = 1
    module = module_of(tried)
    module.shortcut = None  # no activations are kept for so few steps
    with quiet():
        trainer = build_trainer(prepared.data, budget, machine, [watch], clip)
        trainer.limit_val_batches = 0
        try:
            trainer.fit(module, datamodule=prepared.data)
        except RunFailed:  # the loss was not finite
            watch.diverged = True
    rates = tuple(rate_at(step, steps=steps) for step in range(len(watch.losses)))
    return RangeTest(
        rates,
        tuple(watch.losses),
        tuple(watch.smoothed),
        watch.diverged,
        phase=place + 1,
        phases=len(prepared.plan.phases),
    )


def _phase_with_most(prepared: Prepared) -> int:
    """Place of the phase that trains most numbers, the last of those alike."""
    groups = prepared.built.layers.groups
    counts = [
        sum(p.size for group in groups for p in group.parameters if phase.trains(group.name, p.kind))
        for phase in prepared.plan.phases
    ]
    return max(range(len(counts)), key=lambda place: (counts[place], place))


class _Watch(pl.Callback):
    """Keeps each step's loss, smooths it, and ends the test when it has grown out of hand."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.diverged = False
        self._progress = progress
        self._mean = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss of the step that is done, of all its pieces."""
        assert isinstance(pl_module, TransferModule)
        loss = float(pl_module.step_loss)
        if not math.isfinite(loss):
            self.diverged = trainer.should_stop = True
            return
        self.losses.append(loss)
        # an exponential mean, corrected for beginning at 0 (Kingma and Ba 2015, section 3)
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        self.smoothed.append(self._mean / (1 - _SMOOTHING ** len(self.losses)))
        self._progress(len(self.losses))
        if len(self.smoothed) > _UNSETTLED and self.smoothed[-1] > _DIVERGED * min(self.smoothed):
            self.diverged = trainer.should_stop = True
