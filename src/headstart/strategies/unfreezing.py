"""What trains when: gradual unfreezing, linear probing then fine-tuning, and the user's own phases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headstart.config.schema.strategy import GradualConfig, LpFtConfig, PhasesConfig
from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.strategies.plan import HEAD, Timing
from headstart.strategies.selection import matching, ordered
from headstart.strategies.stage import Stage


def resolve_gradual(config: GradualConfig, layers: LayerMap, timing: Timing) -> GradualConfig:
    """Milestones and groups per step where they were left open.

    Open milestones are the epochs of the run's first half; open groups per step are as few as have the whole
    backbone training from the last milestone on. Raises ConfigError for a run too short for that.
    """
    depth = len(ordered(config, layers))
    milestones, unit = config.milestones, config.unit
    if milestones is None:
        epochs = timing.total_steps // timing.steps_per_epoch
        if epochs < 2:
            raise ConfigError(
                "strategy.milestones: a run of less than two epochs has no epoch to unfreeze at; give "
                "strategy.milestones and strategy.unit=step, or a longer budget."
            )
        needed = math.ceil(depth / (config.groups_per_step or 1))
        unit, milestones = "epoch", [float(epoch) for epoch in range(1, epochs // 2 + 1)][:needed]
    per_step = config.groups_per_step or math.ceil(depth / len(milestones))
    return replace(config, milestones=milestones, unit=unit, groups_per_step=per_step)


def gradual(config: GradualConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """From the top: the head alone, then up to `groups_per_step` more layer groups at each milestone.

    Howard and Ruder 2018, section 3.3. Every milestone adds one at least. Raises ConfigError for a milestone
    outside the run, or more of them than it takes.
    """
    config = resolve_gradual(config, layers, timing)
    names = ordered(config, layers)
    milestones, per_step = config.milestones, config.groups_per_step
    assert milestones is not None
    assert per_step is not None
    needed = math.ceil(len(names) / per_step)
    # as few per step as do it may be fewer still at the last milestones; more than that is a mistake
    if (len(milestones) > needed and per_step > math.ceil(len(names) / len(milestones))) or len(milestones) > len(
        names
    ):
        raise ConfigError(
            f"strategy.milestones={milestones}: with {per_step} groups per step all {len(names)} layer groups "
            f"train after {needed} of them; leave out the rest."
        )
    stages = [Stage(0, (HEAD,))]
    for i, milestone in enumerate(milestones, start=1):
        count = min(i * per_step, len(names) - (len(milestones) - i))
        start = _step_of(milestone, config.unit, timing, key=f"strategy.milestones={milestones}")
        stages.append(Stage(start, (*names[-count:], HEAD)))
    return stages


def lp_ft(config: LpFtConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """A linear probe for `probe_share` of the budget, then everything, from the probed head (Kumar et al. 2022)."""
    start = round(config.probe_share * timing.total_steps)
    if not 0 < start < timing.total_steps:
        raise ConfigError(
            f"strategy.probe_share={config.probe_share}: leaves one part of {timing.total_steps} steps empty."
        )
    multiples = dict.fromkeys(layers.names, config.finetune_lr_mult)
    return [Stage(0, (HEAD,)), Stage(start, layers.names, multiples=multiples)]


def phases(config: PhasesConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The user's own list.

    Raises ConfigError for a phase outside the run, phases that overlap, go back or leave a gap, and patterns
    that match nothing or give one layer group two rates.
    """
    stages: list[Stage] = []
    ends: float | None = None
    for i, phase in enumerate(config.phases):
        key = f"strategy.phases[{i}]"
        start = _step_of(phase["start"], config.unit, timing, key=f"{key}.start={phase['start']}", zero=i == 0)
        if stages and start <= stages[-1].start:
            raise ConfigError(f"{key}.start={phase['start']}: begins in the same step as the phase before.")
        if ends is not None and ends != phase["start"]:
            raise ConfigError(f"{key}.start={phase['start']}: the phase before ends at {ends:g}.")
        ends = phase.get("end")
        wanted = phase["groups"]
        rates = _rates(wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted, 1.0), layers, key=key)
        factor = float(phase.get("lr_mult", 1.0))
        stages.append(
            Stage(
                start,
                tuple(name for name in layers.names if name in rates),
                multiples={name: rate * factor for name, rate in rates.items()},
                normalization=phase.get("normalization"),
            )
        )
    if ends is not None:
        last = round(ends * (timing.steps_per_epoch if config.unit == "epoch" else 1))
        if last != timing.total_steps:
            raise ConfigError(
                f"strategy.phases[{len(stages) - 1}].end={ends:g}: the run ends at step {timing.total_steps}, "
                f"not {last}; leave out the last end."
            )
    if not any(HEAD in stage.groups for stage in stages):
        raise ConfigError("strategy.phases: the head trains in no phase; add head to the groups of one.")
    return stages


def _rates(wanted: Mapping[str, Any], layers: LayerMap, *, key: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    said: dict[str, str] = {}
    for pattern, rate in wanted.items():
        for name in matching([pattern], layers, key=f"{key}.groups"):
            if name in rates and rates[name] != rate:
                raise ConfigError(
                    f"{key}.groups: {name} is matched by {said[name]!r} and {pattern!r}, at different rates."
                )
            rates[name], said[name] = float(rate), pattern
    return rates


def _step_of(when: float, unit: str, timing: Timing, *, key: str, zero: bool = False) -> int:
    """The global step of a milestone; raises ConfigError where it is not inside the run."""
    step = round(when * (timing.steps_per_epoch if unit == "epoch" else 1))
    if step >= timing.total_steps:
        raise ConfigError(
            f"{key}: {when:g} {unit}s lie past the budget: the run has {timing.total_steps} steps, "
            f"{timing.total_steps / timing.steps_per_epoch:g} epochs."
        )
    if step <= 0 and not zero:
        raise ConfigError(f"{key}: {when:g} {unit}s are less than one step after the start.")
    return step
