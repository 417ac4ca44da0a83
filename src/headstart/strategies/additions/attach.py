"""Putting additions into a backbone, and folding into its weights those that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headstart.config.schema.strategy import (
    AdapterConfig,
    LoraConfig,
    SsfConfig,
    StrategyConfig,
    VisualPromptsConfig,
)
from headstart.facts import LayerMap
from headstart.models.classifier import Classifier
from headstart.models.layer_groups import census, with_additions
from headstart.seeds import derive
from headstart.strategies.additions import adapters, lora, prompts, ssf

_ATTACH: dict[type, Callable[[nn.Module, Any], None]] = {
    SsfConfig: ssf.attach,
    AdapterConfig: adapters.attach,
    VisualPromptsConfig: prompts.attach,
}


def attaches(config: StrategyConfig) -> bool:
    """Whether a strategy puts something into the backbone."""
    return type(config) in _ATTACH or isinstance(config, LoraConfig)


def attach(
    config: StrategyConfig, model: Classifier, layers: LayerMap, *, shape: tuple[int, int, int], seed: int
) -> LayerMap:
    """Put what a strategy adds into the backbone; returns the map with it, or as it was where nothing is added.

    `shape` is that of an image: (channels, height, width). Initial values are drawn from `seed` and no other random
    state is touched. Raises ConfigError where the backbone has no place for it.
    """
    if not attaches(config):
        return layers
    put = _ATTACH.get(type(config))
    before = census(model, layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", "additions"))
        if isinstance(config, LoraConfig):
            lora.attach(model.backbone, config, shape)
        elif put:
            put(model.backbone, config)
    return with_additions(model, layers, before)


def fold(model: Classifier) -> None:
    """Fold LoRA and SSF into the weights they stand beside; the model computes the same, under its plain names."""
    lora.fold(model)
    ssf.fold(model)


def folded_state(model: Classifier) -> dict[str, torch.Tensor]:
    """The tensors that the model would have after `fold`, without touching it."""
    state = dict(model.state_dict())
    lora.fold_state(model, state)
    ssf.fold_state(model, state)
    return state
