"""Everything that a run needs, found, read, built and checked before anything is written."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace

import torch
from torch import nn

from headstart.config.paths import output_dir_of
from headstart.config.schema.root import Config
from headstart.config.schema.weights import LoadedConfig
from headstart.data import ImageDataModule, load_data
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.models.classifier import Built, build_classifier
from headstart.models.source_head import source_head
from headstart.models.weights import WeightsFile, locate_weights
from headstart.records.store import check_writable
from headstart.resolve import resolve, resolve_for_data, spec_of
from headstart.strategies import Timing, TrainingPlan, build_plan, resolve_strategy
from headstart.strategies.additions import attach
from headstart.strategies.penalties import Parts, build_penalties
from headstart.training.engine import Budget
from headstart.training.loggers import check_logger
from headstart.training.losses import build_loss
from headstart.training.schedules import Factor, build_run_factor


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing is on disk yet."""

    config: Config
    data: ImageDataModule
    built: Built
    plan: TrainingPlan
    penalties: nn.ModuleDict
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
        first_k=config.weights.first_k if isinstance(config.weights, LoadedConfig) else None,
    )
    per_epoch = data.steps_per_epoch
    total = config.trainer.max_steps or (config.trainer.max_epochs or 1) * per_epoch
    timing = Timing(total, per_epoch)
    start = copy.deepcopy(built.model.backbone) if config.regularizer else built.model.backbone
    built = replace(built, layers=attach(config.strategy, built.model, built.layers, seed=config.seed))
    config = replace(config, strategy=resolve_strategy(config.strategy, built.layers, timing))
    plan = build_plan(config.strategy, built.layers, timing)
    check_batches(built, plan, batch_size=config.data.batch_size)
    penalties = build_penalties(
        config.regularizer,
        Parts(
            model=built.model,
            layers=built.layers,
            plan=plan,
            facts=data.facts,
            reference=lambda: start.requires_grad_(False).eval(),
            source_head=lambda: source_head(
                weights, backbone=start, name=name, library=library, shape=(config.data.channels, *spec.size)
            ),
            backbone=name,
            batch_size=config.data.batch_size,
            seed=config.seed,
        ),
        strategy=config.strategy.name,
    )
    starts = [phase.start for phase in plan.phases]
    factor = build_run_factor(config.schedule, starts=starts, total_steps=total, steps_per_epoch=per_epoch)
    build_loss(config.loss, data.facts)  # a list of class weights of the wrong length is said now
    budget = Budget(total, per_epoch, config.trainer.max_time, config.trainer.early_stopping_patience)
    return Prepared(config, data, built, plan, penalties, factor, budget, weights)


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
    batch_norms = {group.name for group in built.layers.groups if group.batch_norms}
    for phase in plan.phases:
        training = {name for name in phase.rates if phase.runs_in_training_mode(name)}
        if phase.normalization != "eval" and training & batch_norms:
            raise ConfigError(
                "data.batch_size=1: batch normalisation trains on 2 images or more; raise it, or use "
                "strategy.normalization=eval."
            )
