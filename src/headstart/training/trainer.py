"""Lightning's trainer, with all that it would do by itself switched off."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint

from headstart.config.checks import lower_is_better
from headstart.data.datamodule import ImageDataModule
from headstart.training.checkpoints import FOLDER, RESUME, WholeCheckpoints
from headstart.training.distributed import rank_of
from headstart.training.loop import shorten
from headstart.training.ranks import PhasedDDP
from headstart.training.stopping import PatientInLastPhase

_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # on a CPU none is what is fastest
    ".*The number of training batches.*",  # about Lightning's own logging interval, which is not used
    ".*Checkpoint directory .* exists and is not empty.*",  # after a resume it is
    ".*Detected call of `lr_scheduler.step\\(\\)` before.*",  # float16 may skip the first update
    ".*isinstance\\(treespec, LeafSpec\\).*",  # inside Lightning
    ".*GPU available but not used.*",
    ".*The `srun` command is available.*",
    ".*Trying to infer the `batch_size`.*",
    ".*It is recommended to use `.*sync_dist=True.*",  # each process has scored the whole split
)


@dataclass(frozen=True)
class Budget:
    """How long a run trains."""

    total_steps: int
    steps_per_epoch: int
    max_time: str | None = None
    patience: int | None = None
    patient_from: int = 0
    """The step from which patience counts: that at which the last phase begins."""


@dataclass(frozen=True)
class Machine:
    """What a run trains on, and how exactly."""

    accelerator: str
    devices: int
    precision: str
    deterministic: bool


def stopping(folder: Path, budget: Budget, *, monitor: str) -> list[pl.Callback]:
    """What every process has: early stopping, where it is asked for, and the checkpoint of each epoch."""
    callbacks: list[pl.Callback] = []
    if budget.patience is not None:
        mode = "min" if lower_is_better(monitor) else "max"
        callbacks.append(
            PatientInLastPhase(
                monitor,
                mode=mode,
                patience=budget.patience,
                check_finite=False,
                begins=budget.patient_from,
            )
        )
    callbacks.append(
        ModelCheckpoint(
            dirpath=folder / FOLDER,
            filename=Path(RESUME).stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    return callbacks


def build_trainer(
    data: ImageDataModule,
    budget: Budget,
    machine: Machine,
    callbacks: list[pl.Callback],
    gradient_clip_val: float | None,
) -> pl.Trainer:
    """Lightning's trainer, with all that it would do by itself switched off."""
    rank, world = rank_of() if machine.devices > 1 else (0, 1)
    data.rank = rank
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        strategy=PhasedDDP(init_sync=False) if world > 1 else "auto",
        precision=machine.precision,  # type: ignore[arg-type]
        deterministic=machine.deterministic,
        gradient_clip_val=gradient_clip_val,
        max_steps=budget.total_steps,
        max_epochs=-1,
        max_time=budget.max_time,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # or Lightning takes charge of a SLURM job's signals
        plugins=[LightningEnvironment(), WholeCheckpoints()],
    )
    shorten(trainer)
    data.epoch = lambda: trainer.global_step // budget.steps_per_epoch
    data.ended = lambda: max(0, trainer.global_step - 1) // budget.steps_per_epoch
    return trainer


def alone(
    trainer: pl.Trainer | None,
    data: ImageDataModule,
    budget: Budget,
    machine: Machine,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    """What evaluates in this process alone: `trainer` itself where it trained alone."""
    if trainer is not None and machine.devices == 1:
        return trainer
    return build_trainer(data, budget, replace(machine, devices=1), callbacks, None)


def set_global_step(trainer: pl.Trainer, step: int) -> None:
    """Let a trainer that only evaluates know after which step it does."""
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning says of things that are meant."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield
