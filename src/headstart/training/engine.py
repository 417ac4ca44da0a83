"""One training from start to scores: `fit` is the contract that every engine keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from headstart.data.datamodule import ImageDataModule
from headstart.errors import RunFailed
from headstart.strategies.additions import fold
from headstart.training.checkpoints import (
    BEST,
    FOLDER,
    LAST,
    RESUME,
    BestWeights,
    load_weights,
    read_checkpoint,
    save_weights,
)
from headstart.training.drift import moved_since, start_of
from headstart.training.history import History
from headstart.training.loggers import RunLogger
from headstart.training.metrics import THRESHOLD
from headstart.training.module import TransferModule
from headstart.training.progress import ProgressReport
from headstart.training.stopping import PatientInLastPhase, Pruning
from headstart.training.trainer import Budget, Machine, alone, build_trainer, quiet, set_global_step, stopping


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
    features: dict[str, Any] = field(default_factory=dict)
    """What was computed once and kept in the place of frozen layers."""


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
    ends = stopping(folder, budget, monitor=monitor)
    chooses = module.validation == "val"
    callbacks: list[pl.Callback] = [history, *([best] if chooses else []), report, *ends]
    if prune is not None:
        callbacks.append(Pruning(prune))
    checkpoint = folder / FOLDER / RESUME
    state = read_checkpoint(checkpoint) if resume and checkpoint.is_file() else None
    start = start_of(module.model, data, gpu=machine.accelerator == "gpu") if drift else None
    began = time.monotonic()
    module.begins_at = int(state["global_step"]) if state else 0
    with quiet():
        if state:
            history.restore(int(state["global_step"]))
        if state and _has_ended(state, budget):  # Lightning would train on, or fail, from its own last step
            module.load_state_dict(state["state_dict"])
            best.load_state_dict(_state_of(state, BestWeights))
            steps = int(state["global_step"])
            early = bool(_state_of(state, PatientInLastPhase).get("stopped_epoch"))
        else:
            trainer = build_trainer(data, budget, machine, callbacks, gradient_clip_val)
            trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if state else None, weights_only=True)
            module.stop_if_diverged()
            steps = trainer.global_step
            early = any(isinstance(c, PatientInLastPhase) and c.stopped_epoch for c in callbacks)
            if not steps:
                raise RunFailed("trainer.max_time ended before the first step; allow more time.")
            if history.last_step < steps:  # stopped inside an epoch
                last = alone(trainer, data, budget, machine, callbacks)
                set_global_step(last, steps)
                last.validate(module, datamodule=data, verbose=False)
        fit_seconds = history.seconds_before + time.monotonic() - began

        began = time.monotonic()
        if module.average is not None:
            module.average.settle(module.model)
        save_weights(folder / FOLDER / LAST, module.model)
        fold(module.model)
        if tested == "best":
            load_weights(folder / FOLDER / BEST, module.model)
        tested_step = best.best["step"] if tested == "best" else history.last_step
        row = next(row for row in history.rows if row["step"] == tested_step)
        module.threshold = row.get(THRESHOLD, module.threshold)
        if test:
            alone(None, data, budget, machine, []).test(module, datamodule=data, verbose=False)
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
        features=module.shortcut.about() if module.shortcut is not None else {},
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
    with quiet():
        callbacks = stopping(folder, budget, monitor=monitor)
        trainer = build_trainer(data, budget, machine, callbacks, gradient_clip_val)
        trainer.fit(module, datamodule=data, ckpt_path=str(checkpoint) if state else None, weights_only=True)


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
