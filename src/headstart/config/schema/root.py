"""The whole config, and what each of its groups may be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from headstart.config.schema import (
    backbone,
    data,
    features,
    head,
    launcher,
    logger,
    optimizer,
    regularizer,
    schedule,
    search,
    strategy,
    sweep,
    trainer,
    weights,
)
from headstart.config.schema.option import option
from headstart.plugins import plugin_regularizers, plugin_sources, plugin_strategies, without_clash


@dataclass
class Config:
    """One experiment."""

    backbone: backbone.BackboneConfig = MISSING
    weights: weights.WeightsConfig = MISSING
    strategy: strategy.StrategyConfig = MISSING
    regularizer: dict[str, regularizer.RegularizerConfig] = field(default_factory=dict)
    head: head.HeadConfig = MISSING
    data: data.DataConfig = MISSING
    loss: trainer.LossConfig = field(default_factory=trainer.LossConfig)
    features: features.FeaturesConfig = field(default_factory=features.FeaturesConfig)
    optimizer: optimizer.OptimizerConfig = MISSING
    schedule: schedule.ScheduleConfig = MISSING
    trainer: trainer.TrainerConfig = MISSING
    logger: logger.LoggerConfig = MISSING
    seed: int = option(0, "Initial weights, order, augmentation and dropout are drawn from it.", least=0)
    measured: dict[str, Any] = option(
        {}, "What short measurements at the start of a run have chosen; filled in, so that the run can be repeated."
    )
    output_dir: str | None = option(
        None, "Where runs and sweeps are written.", auto="$HEADSTART_OUTPUTS, else ./outputs"
    )
    launcher: launcher.LauncherConfig = MISSING
    search: search.SearchConfig = MISSING
    sweep: sweep.SweepConfig = field(default_factory=sweep.SweepConfig)


GROUPS: dict[str, dict[str, type]] = {
    "backbone": dict(backbone.OPTIONS),
    "weights": dict(weights.OPTIONS),
    "strategy": dict(strategy.OPTIONS),
    "head": dict(head.OPTIONS),
    "data": dict(data.OPTIONS),
    "optimizer": dict(optimizer.OPTIONS),
    "schedule": dict(schedule.OPTIONS),
    "trainer": dict(trainer.OPTIONS),
    "logger": dict(logger.OPTIONS),
    "launcher": dict(launcher.OPTIONS),
    "search": dict(search.OPTIONS),
}
"""The closed registries: group -> kind -> dataclass. A config names entries of these and nothing else."""

LAUNCH = ("launcher", "search", "sweep")
"""Parts that say which jobs there are and how they are launched: they belong to a sweep and to no run's config."""

DISCRIMINATORS = {
    "weights": "source",
    "strategy": "name",
    "head": "name",
    "data": "source",
    "optimizer": "name",
    "schedule": "name",
    "logger": "name",
    "launcher": "name",
    "search": "name",
}
"""The key in each group with several kinds that says which kind it is."""


def kinds_of(group: str) -> dict[str, type]:
    """Kinds of a group by name, those of installed plugins included."""
    own: dict[str, type] = {}
    if group == "strategy":
        own = {name: plugin.config for name, plugin in plugin_strategies().items()}
    elif group == "data":
        own = {name: plugin.config for name, plugin in plugin_sources().items()}
    without_clash(GROUPS[group], own, group)
    return own | GROUPS[group]


def regularizer_kinds() -> dict[str, type]:
    """Regularisers by name, those of installed plugins included."""
    own = {name: plugin.config for name, plugin in plugin_regularizers().items()}
    without_clash(regularizer.OPTIONS, own, "regularizer")
    return own | regularizer.OPTIONS


def schema_of(group: str, node: dict[str, Any]) -> type:
    """The dataclass that a saved node of `group` belongs to; KeyError where its kind is unknown."""
    if group not in DISCRIMINATORS:
        return next(iter(GROUPS[group].values()))
    return kinds_of(group)[node[DISCRIMINATORS[group]]]


def metadata_of(cls: type) -> dict[str, dataclasses.Field[Any]]:
    """Fields of a schema dataclass by name."""
    return {f.name: f for f in dataclasses.fields(cls)}
