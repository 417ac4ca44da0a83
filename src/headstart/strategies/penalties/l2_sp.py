"""L2-SP: the backbone is drawn to its start, the head to zero."""

from __future__ import annotations

import torch
from torch import nn

from headstart.config.schema.regularizer import L2SpConfig
from headstart.strategies.penalties.base import Parts, Penalty, Step
from headstart.strategies.plan import HEAD


class L2Sp(Penalty):
    """alpha/2 ||w - w0||^2 over the backbone's parameters that train + beta/2 ||v||^2 over the new ones'.

    Li, Grandvalet and Davoine 2018 (L2-SP, with the penalty on the new layers): the head, and with
    `weights.first_k` the layer groups that start at random. Parameters only: running statistics are not held,
    and what does not train is where it started.
    """

    replaces_weight_decay = True
    needs_images = False

    def __init__(self, config: L2SpConfig, parts: Parts) -> None:
        super().__init__()
        self.alpha, self.beta = config.alpha, config.beta
        self._backbone = own_parameters(parts, new=False)
        self._new = own_parameters(parts, new=True)
        self._head = head_parameters(parts)
        # not buffers: processes that train together would send each other a copy of the backbone in every step
        self._start = [parameter.detach().clone() for parameter in self._backbone]

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        self._start = [start.to(step.scores.device) for start in self._start]
        away = [
            (parameter - start).square().sum()
            for parameter, start in zip(self._backbone, self._start, strict=True)
            if parameter.requires_grad
        ]
        near = torch.stack(away).sum() if away else step.scores.new_zeros(())
        new = tuple(parameter for parameter in self._new if parameter.requires_grad)
        return self.alpha / 2 * near + self.beta / 2 * squared_norm((*self._head, *new))


def own_parameters(parts: Parts, *, new: bool) -> tuple[nn.Parameter, ...]:
    """The backbone's parameters that train in some phase, without additions: those of the weights, or the new ones.

    A tuple: not this module's own.
    """
    named = dict(parts.model.named_parameters())
    return tuple(
        named[p.name]
        for group in parts.layers.backbone
        if parts.came_from_the_weights(group.name) != new
        for p in group.parameters
        if p.kind != "added" and parts.plan.ever_trains(group.name, p.kind)
    )


def head_parameters(parts: Parts) -> tuple[nn.Parameter, ...]:
    """The head's parameters."""
    named = dict(parts.model.named_parameters())
    return tuple(named[p.name] for group in parts.layers.groups if group.name == HEAD for p in group.parameters)


def squared_norm(parameters: tuple[nn.Parameter, ...]) -> torch.Tensor:
    """The sum of squares of all numbers of the parameters."""
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()
