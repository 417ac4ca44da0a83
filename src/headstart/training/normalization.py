"""How the normalisations of the groups that train behave, as a phase's policy says.

`train`         normalise with the batch, move the running statistics
`eval`          normalise with the running statistics, leave them; scale and shift still train
`batch_stats`   normalise with the batch, leave the running statistics
`stochnorm`     per channel and at random, with the batch or with the running statistics; move them

Layer and group normalisation have no running statistics: every policy is the same to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from headstart.facts import LayerMap
from headstart.strategies.plan import Phase


class Policies:
    """Puts a phase's policy on a model's normalisations, and takes it off again."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._stochastic: list[nn.Module] = []

    def apply(self, model: nn.Module, layers: LayerMap, phase: Phase, *, stochnorm_p: float) -> list[nn.Module]:
        """Put `phase`'s policy in place of the last one; returns the modules that it holds in evaluation mode."""
        self.remove()
        held = []
        for module in _norms_in_training(model, layers, phase):
            match phase.normalization:
                case "eval":
                    held.append(module)
                case "batch_stats":
                    self._handles += leave_statistics(module)
                case "stochnorm" if isinstance(module, _BatchNorm):
                    module.__dict__["forward"] = StochasticNorm(module, stochnorm_p)
                    self._stochastic.append(module)
        return held

    def remove(self) -> None:
        """Every normalisation as its library made it."""
        for handle in self._handles:
            handle.remove()
        for module in self._stochastic:
            del module.__dict__["forward"]
        self._handles, self._stochastic = [], []


def set_momentum(model: nn.Module, momentum: float | None) -> None:
    """Have batch normalisations move their running statistics by `momentum`; None leaves each with its own."""
    for module in model.modules():
        if momentum is not None and isinstance(module, _BatchNorm):
            module.momentum = momentum


def _norms_in_training(model: nn.Module, layers: LayerMap, phase: Phase) -> list[nn.Module]:
    group_of = layers.group_of()
    found = []
    for name, module in model.named_modules():
        own = [key for key, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]
        if own and "norm" in type(module).__name__.lower():
            groups = {group_of[f"{name}.{key}"] for key in own}
            if all(phase.runs_in_training_mode(group) for group in groups):
                found.append(module)
    return found


def leave_statistics(module: nn.Module, *, when: Callable[[], bool] = lambda: True) -> list[RemovableHandle]:
    """Have a normalisation work on copies of its running statistics `when` asked, so that these keep their bits."""
    kept: dict[str, torch.Tensor] = {}

    def before(module: nn.Module, inputs: Any) -> None:
        if module.training and when():
            for name, buffer in module.named_buffers(recurse=False):
                kept[name] = buffer
                module._buffers[name] = buffer.clone()

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        for name in list(kept):
            module._buffers[name] = kept.pop(name)

    return [
        module.register_forward_pre_hook(before),
        # the last to put copies in place is the first to take them away
        module.register_forward_hook(after, prepend=True, always_call=True),
    ]


class StochasticNorm:
    """Stochastic normalisation (Kou et al. 2020): the forward pass of a batch normalisation in training.

    x = (1 - s) * norm(x; running statistics) + s * norm(x; batch), s ~ Bernoulli(p) drawn per channel. The
    running statistics are those from before the step, which then moves them. What the module does after
    normalising (scale, shift, an activation) works channel by channel, so whole outputs are chosen between.
    """

    def __init__(self, module: nn.Module, p: float) -> None:
        self.module = module
        self.p = p

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, ...) -> the same shape."""
        module = self.module
        plain: Callable[[nn.Module, torch.Tensor], torch.Tensor] = type(module).forward
        if not module.training:
            return plain(module, images)
        # on copies: the batch's pass moves the statistics, and the backward pass of this one needs them unmoved
        kept = dict(module.named_buffers(recurse=False))
        module.training = False
        try:
            module._buffers.update({name: buffer.clone() for name, buffer in kept.items()})
            moving = plain(module, images)
        finally:
            module._buffers.update(kept)
            module.training = True
        batch = plain(module, images)
        chosen = torch.rand(images.shape[1], device=images.device) < self.p
        return torch.where(chosen.view(1, -1, *[1] * (images.ndim - 2)), batch, moving)
