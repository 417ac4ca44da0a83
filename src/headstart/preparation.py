"""Everything that a run needs, found, read, built and checked before anything is written."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.config.paths import output_dir_of
from headstart.config.schema.root import Config
from headstart.data import ImageDataModule, load_data
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.models.classifier import Built, build_classifier
from headstart.models.weights import WeightsFile, locate_weights
from headstart.records.store import check_writable
from headstart.resolve import resolve, resolve_for_data, spec_of
from headstart.strategies import TrainingPlan, build_plan
from headstart.training.engine import Budget
from headstart.training.loggers import check_logger
from headstart.training.losses import build_loss
from headstart.training.schedules import Factor, build_factor


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing is on disk yet."""

    config: Config
    data: ImageDataModule
    built: Built
    plan: TrainingPlan
    factor: Factor
    budget: Budget
    weights: WeightsFile | None

    @property
    def facts(self) -> DataFacts:
        """What the data says of itself."""
        return self.data.facts


def prepare(config: Config) -> Prepared:
    """Find the weights, read the data, build the model and the plan.

    Raises a HeadstartError for any mistake that a person could have made; leaves nothing behind.
    """
    check_writable(output_dir_of(config))
    check_logger(config.logger)
    config = resolve(config)
    threads = config.trainer.threads or 1
    torch.set_num_threads(threads)
    set_determinism(config.trainer.deterministic)
    name, library = config.backbone.name, config.backbone.library
    weights = locate_weights(config.weights, name=name, library=library)
    spec = spec_of(config)
    data = load_data(config.data, spec, seed=config.seed, threads=threads, num_workers=config.data.num_workers or 0)
    config = resolve_for_data(config, data.facts)
    built = build_classifier(
        name=name,
        library=library,
        head=config.head,
        classes=data.facts.num_classes,
        channels=config.data.channels,
        size=spec.size,
        weights=weights,
        seed=config.seed,
    )
    plan = build_plan(config.strategy, built.layers)
    check_batches(built, plan, batch_size=config.data.batch_size)
    per_epoch = data.steps_per_epoch
    total = config.trainer.max_steps or (config.trainer.max_epochs or 1) * per_epoch
    factor = build_factor(config.schedule, total_steps=total, steps_per_epoch=per_epoch)
    build_loss(config.loss, data.facts)  # a list of class weights of the wrong length is said now
    budget = Budget(total, per_epoch, config.trainer.max_time, config.trainer.early_stopping_patience)
    return Prepared(config, data, built, plan, factor, budget, weights)


def set_determinism(wanted: bool) -> None:
    """Choose operations that give the same bits on a GPU, where wanted; before CUDA is first used."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = wanted
    torch.use_deterministic_algorithms(wanted)


def check_batches(built: Built, plan: TrainingPlan, *, batch_size: int) -> None:
    """Raise ConfigError where batch normalisation would train on single images: they have no spread."""
    if batch_size > 1:
        return
    group_of = built.layers.group_of()
    for name, module in built.model.named_modules():
        if isinstance(module, _BatchNorm) and group_of.get(f"{name}.weight") in plan.ever_trained:
            raise ConfigError("data.batch_size=1: batch normalisation trains on 2 images or more; raise it.")
