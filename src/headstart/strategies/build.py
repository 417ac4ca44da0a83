"""The closed registry of strategies: from a config and a model's layer groups to a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from headstart.config.schema.strategy import GradualConfig, StrategyConfig
from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.plugins import plugin_strategies
from headstart.strategies import selection, unfreezing
from headstart.strategies.plan import HEAD, Phase, Timing, TrainingPlan
from headstart.strategies.rates import multiples
from headstart.strategies.stage import Stage

Strategy = Callable[[Any, LayerMap, Timing], list[Stage]]

STRATEGIES: dict[str, Strategy] = {
    "full": selection.full,
    "linear_probe": selection.linear_probe,
    "last_k": selection.last_k,
    "first_k": selection.first_k,
    "freeze_first_k": selection.freeze_first_k,
    "groups": selection.groups,
    "gradual": unfreezing.gradual,
    "lp_ft": unfreezing.lp_ft,
    "phases": unfreezing.phases,
    "norm_only": selection.norm_only,
    "bitfit": selection.bitfit,
    "auto_rgn": selection.full,
    "lora": selection.added,
    "ssf": selection.added,
    "adapter": selection.added,
    "visual_prompts": selection.added,
}


def resolve_strategy(config: StrategyConfig, layers: LayerMap, timing: Timing) -> StrategyConfig:
    """The config with everything said that depends on the backbone's depth and the run's length."""
    if isinstance(config, GradualConfig):
        config = unfreezing.resolve_gradual(config, layers, timing)
    momentum = config.batch_norm_momentum
    if momentum == "by_epoch":
        momentum = min(0.1, 10 / timing.steps_per_epoch)
    policies = _policies(config, len(stages_of(config, layers, timing)))
    return replace(config, normalization=policies, batch_norm_momentum=momentum)


def build_plan(config: StrategyConfig, layers: LayerMap, timing: Timing) -> TrainingPlan:
    """The plan that `config` asks for; raises ConfigError where it does not fit the backbone or the budget."""
    stages = stages_of(config, layers, timing)
    rates = multiples(config, layers)
    policies = _policies(config, len(stages))
    phases = tuple(
        Phase(
            start=stage.start,
            rates={name: rates[name] * stage.multiples.get(name, 1.0) for name in stage.groups},
            kinds=stage.kinds,
            normalization=stage.normalization or policy,
        )
        for stage, policy in zip(stages, policies, strict=True)
    )
    plan = TrainingPlan(phases, adapts_rates=config.name == "auto_rgn", stochnorm_p=config.stochnorm_p)
    _check_normalization(plan, layers)
    return plan


def stages_of(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """What the strategy itself says."""
    build = STRATEGIES.get(config.name) or plugin_strategies()[config.name].stages
    return build(config, layers, timing)


def _policies(config: StrategyConfig, phases: int) -> list[str]:
    given = config.normalization
    policies = [given] * phases if isinstance(given, str) else list(given)
    if len(policies) != phases:
        raise ConfigError(
            f"strategy.normalization={policies}: {len(policies)} policies, {phases} phases; give one, or one each."
        )
    return policies


def _check_normalization(plan: TrainingPlan, layers: LayerMap) -> None:
    """StochNorm mixes running statistics with the batch's: there must be some."""
    batch_norms = {group.name for group in layers.groups if group.batch_norms}
    asked = [phase for phase in plan.phases if phase.normalization == "stochnorm"]
    if asked and not batch_norms:
        raise ConfigError(
            "strategy.normalization=stochnorm: is for batch normalisation, and this backbone has none."
        )
    for phase in asked:
        training = {name for name in phase.rates if phase.runs_in_training_mode(name)}
        if training - {HEAD} and not training & batch_norms:
            raise ConfigError(
                "strategy.normalization=stochnorm: is for batch normalisation, and none of the groups that train "
                "has any."
            )
