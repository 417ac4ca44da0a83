"""One training from start to scores: `fit` is the contract that every engine keeps."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from headstart.data.datamodule import ImageDataModule
from headstart.training.checkpoints import (
    BEST,
    FOLDER,
    LAST,
    RESUME,
    BestWeights,
    load_weights,
    lower_is_better,
    save_weights,
)
from headstart.training.history import History
from headstart.training.loggers import RunLogger
from headstart.training.module import TransferModule
from headstart.training.progress import ProgressReport

_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # on a CPU none is what is fastest
    ".*The number of training batches.*",  # about Lightning's own logging interval, which is not used
    ".*Checkpoint directory .* exists and is not empty.*",  # after a resume it is
    ".*Detected call of `lr_scheduler.step\\(\\)` before.*",  # float16 may skip the first update
    ".*isinstance\\(treespec, LeafSpec\\).*",  # inside Lightning
    ".*GPU available but not used.*",
    ".*The `srun` command is available.*",
    ".*Trying to infer the `batch_size`.*",
)


@dataclass(frozen=True)
class Budget:
    """How long a run trains."""

    total_steps: int
    steps_per_epoch: int
    max_time: str | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Fitted:
    """What training came to; `scores` and `targets` are those of the test split, in its order."""

    metrics: dict[str, float]
    best: dict[str, Any]
    scores: torch.Tensor
    targets: torch.Tensor
    epochs: int
    steps: int
    stopped_by: str
    fit_seconds: float
    test_seconds: float


def fit(
    module: TransferModule,
    data: ImageDataModule,
    *,
    folder: Path,
    budget: Budget,
    accelerator: str,
    precision: str,
    deterministic: bool,
    gradient_clip_val: float | None,
    monitor: str,
    tested: str,
    progress: str,
    loggers: Sequence[RunLogger],
    every_n_steps: int | None,
    resume: bool = False,
) -> Fitted:
    """Train, choose by validation, test once.

    `tested` is `best` or `last`. With `resume`, training goes on from the last checkpoint in `folder`, if
    there is one. Raises RunFailed where a loss or score is not finite.
    """
    history = History(folder, steps_per_epoch=budget.steps_per_epoch, loggers=loggers, every_n_steps=every_n_steps)
    best = BestWeights(folder, monitor=monitor, steps_per_epoch=budget.steps_per_epoch)
    report = ProgressReport(
        style=progress,
        total_steps=budget.total_steps,
        steps_per_epoch=budget.steps_per_epoch,
        monitor=monitor,
    )
    callbacks: list[pl.Callback] = [history, best, report]
    if budget.patience is not None:
        mode = "min" if lower_is_better(monitor) else "max"
        callbacks.append(EarlyStopping(monitor, mode=mode, patience=budget.patience, check_finite=False))
    callbacks.append(
        ModelCheckpoint(
            dirpath=folder / FOLDER,
            filename=Path(RESUME).stem,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            deterministic=deterministic,
            gradient_clip_val=gradient_clip_val,
            max_steps=budget.total_steps,
            max_epochs=-1,
            max_time=budget.max_time,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            plugins=[LightningEnvironment()],  # or Lightning takes charge of a SLURM job's signals
        )
        began = time.monotonic()
        checkpoint = folder / FOLDER / RESUME
        resume_from = str(checkpoint) if resume and checkpoint.is_file() else None
        data.epoch = lambda: trainer.global_step // budget.steps_per_epoch
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
        module.stop_if_diverged()
        if history.last_step < trainer.global_step:  # stopped inside an epoch
            trainer.validate(module, datamodule=data, verbose=False)
        fit_seconds = time.monotonic() - began

        began = time.monotonic()
        save_weights(folder / FOLDER / LAST, module.model)
        if tested == "best":
            load_weights(folder / FOLDER / BEST, module.model)
        trainer.test(module, datamodule=data, verbose=False)
        test_seconds = time.monotonic() - began

    chosen = best.best if tested == "best" else {**_row(history, history.last_step, monitor)}
    row = next(row for row in history.rows if row["step"] == chosen["step"])
    metrics = {key: value for key, value in row.items() if key.startswith("val/")} | module.values
    return Fitted(
        metrics=metrics,
        best=chosen,
        scores=module.scores,
        targets=module.targets,
        epochs=int(history.rows[-1]["epoch"]),
        steps=trainer.global_step,
        stopped_by=_stopped_by(trainer, budget, callbacks),
        fit_seconds=fit_seconds,
        test_seconds=test_seconds,
    )


def finish_checkpoints(folder: Path) -> None:
    """Drop what only a resume needs; the weights stay."""
    (folder / FOLDER / RESUME).unlink(missing_ok=True)


def _row(history: History, step: int, monitor: str) -> dict[str, Any]:
    row = next(row for row in history.rows if row["step"] == step)
    return {"epoch": row["epoch"], "step": step, "monitor": monitor, "value": row[monitor]}


def _stopped_by(trainer: pl.Trainer, budget: Budget, callbacks: Sequence[pl.Callback]) -> str:
    if trainer.global_step >= budget.total_steps:
        return "budget"
    early = next((c for c in callbacks if isinstance(c, EarlyStopping)), None)
    return "early_stopping" if early is not None and early.stopped_epoch else "max_time"
