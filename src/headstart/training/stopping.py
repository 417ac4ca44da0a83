"""Stopping early: by phases, or because a search asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from headstart.errors import RunPruned


class PatientInLastPhase(EarlyStopping):
    """Lightning's early stopping, whose patience counts from the step at which the last phase begins.

    A probe that no longer gets better is a reason to go on to what comes after it, not to end the run.
    """

    def __init__(self, monitor: str, *, begins: int, **options: Any) -> None:
        super().__init__(monitor, **options)
        self.begins = begins

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        if trainer.global_step > self.begins or self.begins == 0:
            super()._run_early_stopping_check(trainer)


class Pruning(pl.Callback):
    """Ends a trial after a validation when it is asked to."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise RunPruned if so."""
        if self.asked():
            raise RunPruned(f"stopped after step {trainer.global_step}: other trials were better by then.")
