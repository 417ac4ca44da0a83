"""Stopping early, by phases."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


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
