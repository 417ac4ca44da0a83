"""Bottleneck adapters: small residual networks behind the layers of a frozen transformer block."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.config.schema.strategy import AdapterConfig
from headstart.errors import ConfigError

NAME = "headstart_adapter"
_LAST_LINEAR = {"attn": ("proj", "out_proj", "c_proj"), "mlp": ("fc2", "w3", "c_proj")}


class Adapter(nn.Module):
    """x -> x + up(gelu(down(x))) along the last axis (Houlsby et al. 2019); the identity at first."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, width)
        self.up = nn.Linear(width, features)
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., features) -> the same shape."""
        return x + self.up(nn.functional.gelu(self.down(x)))


def attach(backbone: nn.Module, config: AdapterConfig) -> None:
    """Behind the attention and MLP layers of every block, before they are added to the block's input.

    Raises ConfigError where the backbone has none whose outputs have their channels last.
    """
    found = 0
    for name, module in list(backbone.named_modules()):
        place = name.rpartition(".")[2]
        features = _features(module, place)
        if place in config.places and features:
            module.add_module(NAME, Adapter(features, config.width))
            module.register_forward_hook(_behind)
            found += 1
    if not found:
        raise ConfigError(
            f"strategy=adapter: this backbone has no {' or '.join(config.places)} layers to put adapters behind; "
            "it is for transformers, and others with blocks of linear layers."
        )


def _features(module: nn.Module, place: str) -> int | None:
    """Width of a layer's output, from its last linear layer; None where it cannot be had."""
    if isinstance(module, nn.Sequential):  # would run the adapter as one of its own
        return None
    last = next((m for key in _LAST_LINEAR.get(place, ()) if (m := getattr(module, key, None)) is not None), None)
    return last.out_features if isinstance(last, nn.Linear) else None


def _behind(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    adapted: torch.Tensor = getattr(module, NAME)(output)
    return adapted
