"""The closed registry of regularisers: from their configs to penalties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from headstart.config.schema.regularizer import RegularizerConfig
from headstart.errors import ConfigError
from headstart.plugins import plugin_regularizers
from headstart.strategies.penalties.base import Parts, Penalty
from headstart.strategies.penalties.bss import Bss
from headstart.strategies.penalties.co_tuning import CoTuning
from headstart.strategies.penalties.delta import Delta
from headstart.strategies.penalties.l2_sp import L2Sp

PENALTIES: dict[str, Callable[[Any, Parts], Penalty]] = {
    "l2_sp": L2Sp,
    "delta": Delta,
    "bss": Bss,
    "co_tuning": CoTuning,
}


def build_penalties(configs: Mapping[str, RegularizerConfig], parts: Parts, *, strategy: str) -> nn.ModuleDict:
    """The penalties that were asked for, by name.

    Raises ConfigError where one has nothing to work on under the plan.
    """
    built = {}
    for name, config in configs.items():
        if name in PENALTIES and not parts.plan.moves_the_features:
            raise ConfigError(f"regularizer={name}: is for a backbone that trains; {strategy} trains none of it.")
        if name == "l2_sp" and not parts.plan.trains_the_backbone:
            raise ConfigError(
                f"regularizer=l2_sp: holds the backbone's weights near their start; {strategy} leaves them there."
            )
        build = PENALTIES.get(name) or plugin_regularizers()[name].build
        built[name] = build(config, parts)
    return nn.ModuleDict(built)
