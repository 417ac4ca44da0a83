"""One training from start to scores: `fit` is the contract that every engine keeps."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy

from headstart.config.checks import lower_is_better
from headstart.data.datamodule import ImageDataModule
from headstart.errors import RunFailed
from headstart.strategies.additions import fold
from headstart.training.checkpoints import (
    BEST,
    FOLDER,
    LAST,
    RESUME,
    BestWeights,
    WholeCheckpoints,
    load_weights,
    read_checkpoint,
    save_weights,
)
from headstart.training.distributed import rank_of
from headstart.training.drift import moved_since, start_of
from headstart.training.history import History
from headstart.training.loggers import RunLogger
from headstart.training.metrics import THRESHOLD
from headstart.training.module import TransferModule
from headstart.training.progress import ProgressReport
from headstart.training.stopping import PatientInLastPhase, Pruning

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
    ".*find_unused_parameters=True was specified.*",  # it is right in some phases only
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


@dataclass(frozen=True)
class Fitted:
    """What training came to; `scores` and `targets` are those of the test split, in its order, if it was tested."""

    metrics: dict[str, float]
    best: dict[str, Any]
    scores: torch.Tensor | None
    targets: torch.Tensor | None
    threshold: float
    """That of the test, where labels have one."""
    epochs: int
    steps: int
    stopped_by: str
    fit_seconds: float
    test_seconds: float
    drift: dict[str, Any]
    """How far the features have moved, where that was asked for."""


def fit(
    module: TransferModule,
    data: ImageDataModule,
    *,
    folder: Path,
    budget: Budget,
    machine: Machine,
    gradient_clip_val: float | None,
    monitor: str,
    tested: str,
    test: bool,
    progress: str,
    loggers: Sequence[RunLogger],
    every_n_steps: int | None,
    resume: bool = False,
    prune: Callable[[], bool] | None = None,
    drift: bool = False,
) -> Fitted:
    """Train, choose by validation, test once, or with `test` false not at all.

    `prune` is asked after each validation whether to end with RunPruned.
    `tested` is `best` or `last`; the best is only looked for where there is a validation. With `resume`, training
    goes on from the last checkpoint in `folder`, if there is one. With `drift`, features are compared with those
    at the start. Raises RunFailed where a loss or score is not finite.
    """
    history = History(folder, steps_per_epoch=budget.steps_per_epoch, loggers=loggers, every_n_steps=every_n_steps)
    best = BestWeights(folder, monitor=monitor, steps_per_epoch=budget.steps_per_epoch)
    report = ProgressReport(
        folder=folder,
        style=progress,
        total_steps=budget.total_steps,
        steps_per_epoch=budget.steps_per_epoch,
        monitor=monitor.replace("val/", f"{module.validation}/"),
    )
    stopping = _stopping(folder, budget, monitor=monitor)
    chooses = module.validation == "val"
    callbacks: list[pl.Callback] = [history, *([best] if chooses else []), report, *stopping]
    if prune is not None:
        callbacks.append(Pruning(prune))
    checkpoint = folder / FOLDER / RESUME
    state = read_checkpoint(checkpoint) if resume and checkpoint.is_file() else None
    start = start_of(module.model, data, gpu=machine.accelerator == "gpu") if drift else None
    began = time.monotonic()
    with _quiet():
        if state:
            history.restore(int(state["global_step"]))
        if state and _has_ended(state, budget):  # Lightning would train on, or fail, from its own last step
            module.load_state_dict(state["state_dict"])
            best.load_state_dict(_state_of(state, BestWeights))
            steps, early = (
                int(state["global_step"]),
                bool(_state_of(state, PatientInLastPhase).get("stopped_epoch")),
            )
        else:
            trainer = _trainer(
                data, budget, machine, callbacks, gradient_clip_val, several_phases=len(module.plan.phases) > 1
            )
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if state else None, weights_only=True)
            module.stop_if_diverged()
            steps = trainer.global_step
            early = any(isinstance(c, PatientInLastPhase) and c.stopped_epoch for c in callbacks)
            if not steps:
                raise RunFailed("trainer.max_time ended before the first step; allow more time.")
            if history.last_step < steps:  # stopped inside an epoch
                _alone(trainer, data, budget, machine, callbacks).validate(module, datamodule=data, verbose=False)
        fit_seconds = history.seconds_before + time.monotonic() - began

        began = time.monotonic()
        save_weights(folder / FOLDER / LAST, module.model)
        fold(module.model)
        if tested == "best":
            load_weights(folder / FOLDER / BEST, module.model)
        tested_step = best.best["step"] if tested == "best" else history.last_step
        row = next(row for row in history.rows if row["step"] == tested_step)
        module.threshold = row.get(THRESHOLD, module.threshold)
        if test:
            _alone(None, data, budget, machine, []).test(module, datamodule=data, verbose=False)
        test_seconds = time.monotonic() - began
        moved = moved_since(start, module.model) if start else {}

    metrics = {key: value for key, value in row.items() if key.startswith(f"{module.validation}/")}
    if test:
        metrics |= module.values
    return Fitted(
        metrics=metrics,
        best=best.best,
        scores=module.scores if test else None,
        targets=module.targets if test else None,
        threshold=module.threshold,
        epochs=int(history.rows[-1]["epoch"]),
        steps=steps,
        stopped_by="budget" if steps >= budget.total_steps else "early_stopping" if early else "max_time",
        fit_seconds=fit_seconds,
        test_seconds=test_seconds,
        drift=moved,
    )


def fit_along(
    module: TransferModule,
    data: ImageDataModule,
    *,
    folder: Path,
    budget: Budget,
    machine: Machine,
    gradient_clip_val: float | None,
    monitor: str,
    resume: bool,
) -> None:
    """The part in `fit` of every process but the first: train along, write nothing, and be done."""
    checkpoint = folder / FOLDER / RESUME
    state = read_checkpoint(checkpoint) if resume and checkpoint.is_file() else None
    if state and _has_ended(state, budget):
        return
    with _quiet():
        callbacks = _stopping(folder, budget, monitor=monitor)
        trainer = _trainer(
            data, budget, machine, callbacks, gradient_clip_val, several_phases=len(module.plan.phases) > 1
        )
        trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if state else None, weights_only=True)


def _stopping(folder: Path, budget: Budget, *, monitor: str) -> list[pl.Callback]:
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


def _trainer(
    data: ImageDataModule,
    budget: Budget,
    machine: Machine,
    callbacks: list[pl.Callback],
    gradient_clip_val: float | None,
    *,
    several_phases: bool,
) -> pl.Trainer:
    """Lightning's trainer, with all that it would do by itself switched off."""
    rank, world = rank_of() if machine.devices > 1 else (0, 1)
    data.rank = rank
    trainer = pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        # a phase leaves out parameters that another trains
        strategy=DDPStrategy(find_unused_parameters=several_phases) if world > 1 else "auto",
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
    data.epoch = lambda: trainer.global_step // budget.steps_per_epoch
    return trainer


def _alone(
    trainer: pl.Trainer | None,
    data: ImageDataModule,
    budget: Budget,
    machine: Machine,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    """What evaluates in this process alone: `trainer` itself where it trained alone."""
    if trainer is not None and machine.devices == 1:
        return trainer
    return _trainer(data, budget, replace(machine, devices=1), callbacks, None, several_phases=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Lightning says of things that are meant."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def finish_checkpoints(folder: Path) -> None:
    """Drop what only a resume needs; the weights stay."""
    (folder / FOLDER / RESUME).unlink(missing_ok=True)


def _has_ended(state: dict[str, Any], budget: Budget) -> bool:
    """Whether a checkpoint is that of a training that was over: only the test was still to come."""
    stopped = _state_of(state, PatientInLastPhase).get("stopped_epoch")
    return int(state["global_step"]) >= budget.total_steps or bool(stopped)


def _state_of(state: dict[str, Any], callback: type[pl.Callback]) -> dict[str, Any]:
    """What a callback left in a checkpoint; its key there is the class's name and perhaps arguments."""
    found = (value for key, value in state["callbacks"].items() if key.startswith(callback.__qualname__))
    return next(found, {})
