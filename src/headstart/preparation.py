"""Everything that a run needs, found, read, built and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from headstart.config.schema.root import Config
from headstart.data import ImageDataModule, load_data
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
    check_writable(Path(config.output_dir).expanduser())
    check_logger(config.logger)
    config = resolve(config)
    threads = config.trainer.threads or 1
    torch.set_num_threads(threads)
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
    per_epoch = data.steps_per_epoch
    total = config.trainer.max_steps or (config.trainer.max_epochs or 1) * per_epoch
    factor = build_factor(config.schedule, total_steps=total, steps_per_epoch=per_epoch)
    build_loss(config.loss, data.facts)  # a list of class weights of the wrong length is said now
    budget = Budget(total, per_epoch, config.trainer.max_time, config.trainer.early_stopping_patience)
    return Prepared(config, data, built, plan, factor, budget, weights)
