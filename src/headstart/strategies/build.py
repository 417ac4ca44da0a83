"""The closed registry of strategies: from a config and a model's layer groups to a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.config.schema.strategy import LastKConfig, StrategyConfig
from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.strategies.plan import Phase, TrainingPlan


def build_plan(config: StrategyConfig, layers: LayerMap) -> TrainingPlan:
    """The plan that `config` asks for; raises ConfigError where it does not fit the backbone."""
    return STRATEGIES[config.name](config, layers)


def full(config: StrategyConfig, layers: LayerMap) -> TrainingPlan:
    """Every layer group trains."""
    return _constant(layers.names)


def linear_probe(config: StrategyConfig, layers: LayerMap) -> TrainingPlan:
    """The head alone trains."""
    return _constant(("head",))


def last_k(config: LastKConfig, layers: LayerMap) -> TrainingPlan:
    """The head and the k layer groups below it train.

    Raises ConfigError where the groups have no order, or there are not k of them.
    """
    if layers.prefix_problem:
        raise ConfigError(f"strategy=last_k: {layers.prefix_problem}; use full or linear_probe.")
    groups = [group.name for group in layers.backbone]
    if config.k > len(groups):
        raise ConfigError(
            f"strategy.k={config.k}: the backbone has {len(groups)} layer groups ({groups[0]} ... {groups[-1]})."
        )
    return _constant((*groups[-config.k :], "head"))


def _constant(groups: tuple[str, ...]) -> TrainingPlan:
    return TrainingPlan((Phase(start=0, rates=dict.fromkeys(groups, 1.0)),))


STRATEGIES: dict[str, Callable[[Any, LayerMap], TrainingPlan]] = {
    "full": full,
    "linear_probe": linear_probe,
    "last_k": last_k,
}
