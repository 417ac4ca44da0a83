"""The history of a run: a row per epoch in metrics.csv, the same rows to the loggers, single steps as asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from headstart.records.tables import METRICS, read_rows, write_rows
from headstart.training.loggers import RunLogger
from headstart.training.module import TransferModule


def epoch_of(step: int, steps_per_epoch: int) -> int:
    """The epoch that the last of `step` steps belongs to, from 1; Lightning's own count is one ahead at times."""
    return -(-step // steps_per_epoch)


class History(pl.Callback):
    """Writes metrics.csv after every validation, whole each time."""

    def __init__(
        self, folder: Path, *, steps_per_epoch: int, loggers: Sequence[RunLogger], every_n_steps: int | None
    ) -> None:
        self.path = folder / METRICS
        self.steps_per_epoch = steps_per_epoch
        self.loggers = loggers
        self.every_n_steps = every_n_steps
        self.rows: list[dict[str, Any]] = []
        self.seconds_before = 0.0
        """How long training had gone on before a resume."""
        self._began = time.monotonic()

    def restore(self, step: int) -> None:
        """Read back what an interrupted run had written up to the step of its checkpoint."""
        if self.path.is_file():
            self.rows = [row for row in read_rows(self.path) if row["step"] <= step]
        if self.rows:
            self.seconds_before = float(self.rows[-1]["seconds"])
        for logger in self.loggers:
            logger.replay(self.rows)

    @property
    def last_step(self) -> int:
        """Global step of the last validation, 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, where the part before a resume left it."""
        self._began = time.monotonic() - self.seconds_before

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand a single step to the loggers, now and then: reading the loss waits for the device."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            assert isinstance(pl_module, TransferModule)
            row: dict[str, Any] = {"step": trainer.global_step, "train/step_loss": float(pl_module.step_loss)}
            row |= {f"lr/{group}": rate for group, rate in pl_module.rates.items()}
            for logger in self.loggers:
                logger.step(row)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of this validation."""
        if not trainer.sanity_checking:
            self.add(trainer, pl_module)

    def add(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write down the present epoch: losses, metrics, rate per layer group, seconds since the start."""
        assert isinstance(module, TransferModule)
        row: dict[str, Any] = {
            "epoch": epoch_of(trainer.global_step, self.steps_per_epoch),
            "step": trainer.global_step,
            "train/loss": module.mean_loss,
            **{f"train/{name}": value for name, value in module.mean_losses.items() if name != "loss"},
            **module.values,
            **{f"lr/{group}": rate for group, rate in module.rates.items()},
            "seconds": round(time.monotonic() - self._began, 3),
        }
        self.rows.append(row)
        write_rows(self.path, self.rows)
        for logger in self.loggers:
            logger.epoch(row)
