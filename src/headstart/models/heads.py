"""What stands on the backbone: one vector of features in, one score per class or one number out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from headstart.config.schema.head import HeadConfig, LinearHeadConfig, MlpHeadConfig
from headstart.models.neighbors import NeighborHead

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


Units = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of the targets, per number."""


class InUnits(nn.Module):
    """Numbers (n, numbers) of mean 0 and standard deviation 1 -> the data's own units; nothing in it trains."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, units: Units) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), units, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Scale and shift."""
        return numbers * self.std + self.mean


def build_head(config: HeadConfig, *, features: int, outputs: int, units: Units | None = None) -> nn.Sequential:
    """The head that `config` describes: (n, features) -> (n, outputs), brought to `units` where there are such."""
    if isinstance(config, LinearHeadConfig) and config.solver == "knn":
        return nn.Sequential(NeighborHead(features, outputs, numbers=units is not None))
    if isinstance(config, MlpHeadConfig):
        head = mlp(features, config.hidden, outputs, activation=config.activation, dropout=config.dropout)
    else:
        head = mlp(features, (), outputs, activation="relu", dropout=config.dropout)
    if config.init == "zero":
        for parameter in head[-1].parameters():
            nn.init.zeros_(parameter)
    if units is not None:
        head.append(InUnits(units))
    return head


def mlp(features: int, hidden: Sequence[int], outputs: int, *, activation: str, dropout: float) -> nn.Sequential:
    """Linear layers with an activation between them; dropout before each. Without `hidden`, one linear layer."""
    layers: list[nn.Module] = []
    for width_in, width_out in zip((features, *hidden), (*hidden, outputs), strict=True):
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
