"""What stands on the backbone: one vector of features in, one score per class out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from headstart.config.schema.head import HeadConfig, MlpHeadConfig

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def build_head(config: HeadConfig, *, features: int, classes: int) -> nn.Sequential:
    """The head that `config` describes: (n, features) -> (n, classes)."""
    if isinstance(config, MlpHeadConfig):
        head = mlp(features, config.hidden, classes, activation=config.activation, dropout=config.dropout)
    else:
        head = mlp(features, (), classes, activation="relu", dropout=config.dropout)
    if config.init == "zero":
        for parameter in head[-1].parameters():
            nn.init.zeros_(parameter)
    return head


def mlp(features: int, hidden: Sequence[int], classes: int, *, activation: str, dropout: float) -> nn.Sequential:
    """Linear layers with an activation between them; dropout before each. Without `hidden`, one linear layer."""
    layers: list[nn.Module] = []
    for width_in, width_out in zip((features, *hidden), (*hidden, classes), strict=True):
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])
