"""What a person sees while a run trains: epoch, loss, metric and time left."""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from headstart.records import progress as on_disk
from headstart.records.progress import clock
from headstart.training.history import epoch_of
from headstart.training.module import TransferModule


def how(choice: str) -> str:
    """`bar`, `lines` or `none`, for a choice that may be `auto`."""
    return choice if choice != "auto" else ("bar" if sys.stderr.isatty() else "lines")


EVERY = 2.0
"""Seconds between two writings of the file."""


class Display:
    """A live bar over all steps, or a line per epoch, on the terminal."""

    def __init__(self, *, style: str, total_steps: int, steps_per_epoch: int) -> None:
        self.style = how(style)
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epoch_of(total_steps, steps_per_epoch)
        self._progress: Progress | None = None
        self._first = 0
        self._began = 0.0

    @property
    def has_bar(self) -> bool:
        """Whether a bar is shown at this moment."""
        return self._progress is not None

    def start(self, step: int) -> None:
        """Start the clock and, on a terminal, the bar."""
        self._first, self._began = step, time.monotonic()
        if self.style == "bar":
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[said]}"),
                console=Console(stderr=True),
                refresh_per_second=4,
                transient=True,
            )
            self._progress.add_task("", total=self.total_steps, completed=step, said="")
            self._progress.start()

    def time_left(self, step: int) -> float:
        """Seconds to the end of the budget at the pace so far."""
        done = step - self._first
        return (time.monotonic() - self._began) / done * (self.total_steps - step) if done else 0.0

    def move(self, step: int, said: str | None = None) -> None:
        """Move the bar; what it `said` before stays where nothing is said."""
        if self._progress is None:
            return
        task = self._progress.task_ids[0]
        if said is not None:
            self._progress.update(task, said=f"{said}  {clock(self.time_left(step))} left")
        epoch = f"epoch {epoch_of(step, self.steps_per_epoch)}/{self.epochs}"
        self._progress.update(task, completed=step, description=epoch)

    def epoch(self, step: int, said: str) -> None:
        """Print the line of an epoch."""
        if self.style == "lines":
            print(
                f"  epoch {epoch_of(step, self.steps_per_epoch)}/{self.epochs}  {said}  "
                f"{clock(time.monotonic() - self._began)}, {clock(self.time_left(step))} left",
                file=sys.stderr,
                flush=True,
            )

    def state(self, step: int, metric: str) -> on_disk.Progress:
        """What the file in a run's folder says."""
        epoch = epoch_of(step, self.steps_per_epoch)
        return on_disk.Progress(step, self.total_steps, epoch, self.epochs, metric, self.time_left(step))

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class ProgressReport(pl.Callback):
    """What is shown of a run; and a small file for whoever looks on."""

    def __init__(self, *, folder: Path, style: str, total_steps: int, steps_per_epoch: int, monitor: str) -> None:
        self.folder = folder
        self.display = Display(style=style, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
        self._wrote = -math.inf
        self.monitor = monitor
        self.metric = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and, on a terminal, the bar."""
        self.display.start(trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; the loss is read where that costs nothing, or a few times per epoch."""
        step = trainer.global_step
        if time.monotonic() > self._wrote + EVERY:
            self._wrote = time.monotonic()
            with suppress(OSError):  # a full disk is said where something is lost by it
                on_disk.write_progress(self.folder, self.display.state(step, self.metric.strip()))
        if self.display.has_bar:
            assert isinstance(pl_module, TransferModule)
            told = pl_module.device.type == "cpu" or batch_idx % 50 == 0
            self.display.move(step, f"loss {pl_module.mean_loss:.3f}{self.metric}" if told else None)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the metric of this epoch."""
        assert isinstance(pl_module, TransferModule)
        if trainer.sanity_checking or self.monitor not in pl_module.values:
            return
        self.metric = f"  {self.monitor} {pl_module.values[self.monitor]:.4f}"
        self.display.epoch(trainer.global_step, f"loss {pl_module.mean_loss:.3f}{self.metric}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self.display.stop()
        on_disk.forget_progress(self.folder)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the message stands alone."""
        self.display.stop()
