"""SSF: a trainable scale and shift of each channel behind the layers of a frozen backbone (Lian et al. 2022).

They are kept as a parametrisation of weight and bias: a scale and shift of a layer's output is one of its weight
and bias, scale * (W x + b) + shift = (scale * W) x + (scale * b + shift), also where an activation follows inside.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from headstart.config.schema.strategy import SsfConfig
from headstart.errors import ConfigError
from headstart.strategies.additions.products import is_product


class Scale(nn.Module):
    """weight (channels, ...) -> scale * weight, along the first axis."""

    def __init__(self, scale: nn.Parameter) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in use."""
        return weight * self.scale.view(-1, *[1] * (weight.ndim - 1))


class ScaleAndShift(nn.Module):
    """bias (channels) -> scale * bias + shift."""

    def __init__(self, scale: nn.Parameter, shift: nn.Parameter) -> None:
        super().__init__()
        self._scale = (scale,)  # the weight's own: each parameter has one place
        self.shift = shift

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        """The bias in use."""
        return bias * self._scale[0] + self.shift


def attach(backbone: nn.Module, config: SsfConfig) -> None:
    """Behind every linear, convolutional and normalising layer that has a weight and a bias.

    A convolution without a bias has its scale and shift behind the normalisation that follows it, and one that
    standardises its weight has none: a scale would cancel. Raises ConfigError where there is no such layer.
    """
    places = [module for module in backbone.modules() if _fits(module)]
    if not places:
        raise ConfigError("strategy=ssf: this backbone has no layer with a weight and a bias to scale and shift.")
    for module in places:
        channels = int(module.get_parameter("bias").shape[0])
        scale = nn.Parameter(1 + config.init_std * torch.randn(channels))
        shift = nn.Parameter(config.init_std * torch.randn(channels))
        parametrize.register_parametrization(module, "weight", Scale(scale))
        parametrize.register_parametrization(module, "bias", ScaleAndShift(scale, shift))


def _fits(module: nn.Module) -> bool:
    own = dict(module.named_parameters(recurse=False))
    if set(own) != {"weight", "bias"} or own["bias"].ndim != 1 or own["weight"].shape[0] != own["bias"].shape[0]:
        return False
    return is_product(module) or "norm" in type(module).__name__.lower()


def fold(model: nn.Module) -> None:
    """Make the weights in use the weights there are; copies of the model stay as they are."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        if any(_is_ours(module, name) for name in ("weight", "bias")):
            _give_own_class(module)
        for name in ("weight", "bias"):
            if _is_ours(module, name):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _give_own_class(module: nn.Module) -> None:
    """PyTorch keeps what is parametrised as properties of a class that copies share, and takes them off it."""
    shared = type(module)
    own = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, own)


def fold_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """In `state`, put the weights in use in the place of their parts."""
    for prefix, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for name in ("weight", "bias"):
            if _is_ours(module, name):
                for key in [key for key in state if key.startswith(f"{prefix}.parametrizations.{name}.")]:
                    del state[key]
                state[f"{prefix}.{name}"] = getattr(module, name).detach()


def _is_ours(module: nn.Module, name: str) -> bool:
    return parametrize.is_parametrized(module, name) and isinstance(
        module.parametrizations[name][0],  # type: ignore[index]
        Scale | ScaleAndShift,
    )
