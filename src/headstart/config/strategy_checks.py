"""What is wrong with a strategy or a set of regularisers, as far as the config alone can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.config.schema.regularizer import DeltaConfig
from headstart.config.schema.root import Config
from headstart.config.schema.strategy import (
    NORMALIZATIONS,
    GradualConfig,
    GroupsConfig,
    PhasesConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError, did_you_mean

_DEPTHS = ("layer_decay", "discriminative", "lr_span")
_PHASE_KEYS = ("start", "end", "groups", "lr_mult", "normalization")
_EXCLUDE = (("l2_sp", "delta", "both decide what becomes of weight decay and of the head"),)
_HOLD = {
    "l2_sp": "it holds the backbone near its start",
    "delta": "it holds feature maps near those of the start",
    "co_tuning": "it goes on training the source's classifier",
}


def check_strategy(config: StrategyConfig) -> None:
    """Raise ConfigError for options that exclude each other, or lists that cannot be."""
    several = [name for name in _DEPTHS if getattr(config, name) is not None]
    if len(several) > 1:
        raise ConfigError(f"strategy.{several[0]} and strategy.{several[1]} are both set; choose one.")
    if config.layer_decay is None and config.layer_decay_min:
        raise ConfigError("strategy.layer_decay_min: needs strategy.layer_decay.")
    if not isinstance(config.normalization, str | list) or config.normalization == []:
        raise ConfigError(f"strategy.normalization={config.normalization}: must be a policy, or one per phase.")
    momentum = config.batch_norm_momentum
    if momentum not in (None, "by_epoch") and (isinstance(momentum, bool) or not isinstance(momentum, int | float)):
        raise ConfigError(f"strategy.batch_norm_momentum={momentum}: must be a number up to 1, or by_epoch.")
    if config.stochnorm_p != StrategyConfig.stochnorm_p and not uses_stochnorm(config):
        raise ConfigError("strategy.stochnorm_p: needs strategy.normalization=stochnorm.")
    match config:
        case GroupsConfig(groups=[]):
            raise ConfigError(
                "strategy.groups=[]: names no layer group; strategy=linear_probe trains the head alone."
            )
        case GradualConfig():
            when = config.milestones
            if when is None and config.unit != GradualConfig.unit:
                raise ConfigError("strategy.unit: says what strategy.milestones count; give those as well.")
            if when is not None and (not when or sorted(set(when)) != list(when)):
                raise ConfigError(f"strategy.milestones={when}: must be a rising list, such as [2,4,6].")
        case PhasesConfig():
            _check_phases(config)


def uses_stochnorm(config: StrategyConfig) -> bool:
    """Whether any phase normalises stochastically."""
    given = [config.normalization] if isinstance(config.normalization, str) else list(config.normalization)
    if isinstance(config, PhasesConfig) and isinstance(config.phases, list):
        given += [phase.get("normalization") for phase in config.phases if isinstance(phase, dict)]
    return "stochnorm" in given


def _check_phases(config: PhasesConfig) -> None:
    phases = config.phases
    if not isinstance(phases, list) or not phases or not all(isinstance(phase, dict) for phase in phases):
        raise ConfigError("strategy.phases: must be a list such as [{start: 0, groups: [head]}].")
    before: float | None = None
    for i, phase in enumerate(phases):
        key = f"strategy.phases[{i}]"
        for name in phase:
            if name not in _PHASE_KEYS:
                hint = did_you_mean(str(name), _PHASE_KEYS) or f" It has {', '.join(_PHASE_KEYS)}."
                raise ConfigError(f"{key}.{name}: there is no such key.{hint}")
        start = _number(phase.get("start"), f"{key}.start")
        if i == 0 and start != 0:
            raise ConfigError(f"{key}.start={start:g}: the first phase starts at 0.")
        if before is not None and start <= before:
            raise ConfigError(f"{key}.start={start:g}: phases go forward; the one before starts at {before:g}.")
        end = phase.get("end")
        following = phases[i + 1].get("start") if i + 1 < len(phases) else None
        if end is not None and _number(end, f"{key}.end") <= start:
            raise ConfigError(f"{key}.end={end}: a phase ends after its start.")
        if end is not None and isinstance(following, int | float) and end > following:
            raise ConfigError(f"{key}.end={end:g}: overlaps the next phase, which starts at {following:g}.")
        before = start
        _check_groups(phase.get("groups"), key)
        _positive(phase.get("lr_mult", 1.0), f"{key}.lr_mult")
        policy = phase.get("normalization")
        if policy is not None and policy not in NORMALIZATIONS:
            raise ConfigError(f"{key}.normalization={policy}: must be one of {', '.join(NORMALIZATIONS)}.")


def _check_groups(groups: Any, key: str) -> None:
    if not isinstance(groups, list | dict) or not groups or not all(isinstance(name, str) for name in groups):
        raise ConfigError(
            f"{key}.groups: must be names of layer groups, such as [head] or {{head: 1, block.*: 0.1}}."
        )
    for name, rate in groups.items() if isinstance(groups, Mapping) else ():
        _positive(rate, f"{key}.groups.{name}")


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigError(f"{key}={value}: must be a number, 0 or more.")
    return float(value)


def _positive(value: Any, key: str) -> None:
    if _number(value, key) <= 0:
        raise ConfigError(f"{key}={value}: must be above 0; a group that is left out of the phase is frozen.")


def check_regularizers(config: Config) -> None:
    """Raise ConfigError for regularisers that exclude each other, or have nothing to hold."""
    for one, other, why in _EXCLUDE:
        if one in config.regularizer and other in config.regularizer:
            raise ConfigError(f"regularizer=[{one},{other}]: exclude each other ({why}); choose one.")
    for name, what in _HOLD.items():
        if name in config.regularizer and config.weights.source == "scratch":
            raise ConfigError(f"regularizer={name}: {what}, and weights=scratch has none worth it.")
    delta = config.regularizer.get("delta")
    for name in ("attention_epochs", "attention_batches"):
        if (
            isinstance(delta, DeltaConfig)
            and not delta.attention
            and getattr(delta, name) != getattr(DeltaConfig, name)
        ):
            raise ConfigError(f"regularizer.delta.{name}: needs regularizer.delta.attention=true.")
