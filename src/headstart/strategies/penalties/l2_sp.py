"""L2-SP: the backbone is drawn to its start, the head to zero."""

from __future__ import annotations

import torch
from torch import nn

from headstart.config.schema.regularizer import L2SpConfig
from headstart.strategies.penalties.base import Parts, Penalty, Step
from headstart.strategies.plan import HEAD


class L2Sp(Penalty):
    """alpha/2 ||w - w0||^2 over the backbone's parameters that train + beta/2 ||v||^2 over the head's.

    Li, Grandvalet and Davoine 2018 (L2-SP, with the penalty on the new layers). Parameters only: running
    statistics are not held, and what does not train is where it started.
    """

    replaces_weight_decay = True

    def __init__(self, config: L2SpConfig, parts: Parts) -> None:
        super().__init__()
        self.alpha, self.beta = config.alpha, config.beta
        self._backbone = own_parameters(parts)
        self._head = head_parameters(parts)
        for i, parameter in enumerate(self._backbone):
            self.register_buffer(f"start_{i}", parameter.detach().clone(), persistent=False)

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        away = [
            (parameter - self.get_buffer(f"start_{i}")).square().sum()
            for i, parameter in enumerate(self._backbone)
            if parameter.requires_grad
        ]
        near = torch.stack(away).sum() if away else step.scores.new_zeros(())
        return self.alpha / 2 * near + self.beta / 2 * squared_norm(self._head)


def own_parameters(parts: Parts) -> tuple[nn.Parameter, ...]:
    """The backbone's parameters that train in some phase, without additions. A tuple: not this module's own."""
    named = dict(parts.model.named_parameters())
    return tuple(
        named[p.name]
        for group in parts.layers.backbone
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
