"""How heads that stand side by side are updated: PyTorch's fused steps, one for all that share their rates.

Such a call goes through its tensors one after the other, each in one pass over memory: no head's numbers depend on
which others are in the call, and 100 heads take less time than by elementwise operations on stacked tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from headstart.config.schema.optimizer import AdamConfig, OptimizerConfig, SGDConfig

Tensors = list[torch.Tensor]


@dataclass
class _Call:
    """Tensors that are updated at once: of heads that share optimiser and rates, decayed or not."""

    config: OptimizerConfig
    rates: tuple[float, ...]
    decay: float
    places: list[tuple[int, int]] = field(default_factory=list)
    """(head, parameter)."""
    parameters: Tensors = field(default_factory=list)
    first: Tensors = field(default_factory=list)
    second: Tensors = field(default_factory=list)


class Updates:
    """The optimisers of a stack's heads; matrices decay, vectors do not (training/optimizers.py)."""

    def __init__(self, configs: Sequence[OptimizerConfig], parameters: Sequence[Sequence[nn.Parameter]]) -> None:
        self.configs = list(configs)
        self.parameters = [list(own) for own in parameters]
        self._first = [_zeros(own, wanted=_has_first(c)) for c, own in zip(configs, self.parameters, strict=True)]
        self._second = [_zeros(own, wanted=not _is_sgd(c)) for c, own in zip(configs, self.parameters, strict=True)]
        self._taken = 0
        self._count = torch.zeros((), device=self.parameters[0][0].device)
        self._calls: list[_Call] = []

    def plan(self, rates: Sequence[tuple[float, ...]]) -> None:
        """Take the learning rates of the steps that come: for each head as many."""
        calls: dict[tuple[str, tuple[float, ...], bool], _Call] = {}
        for i, (config, own) in enumerate(zip(self.configs, rates, strict=True)):
            same = repr(replace(config, lr=1.0))  # what counts of it is in the rates
            for j, parameter in enumerate(self.parameters[i]):
                decays = parameter.ndim > 1 and config.weight_decay > 0
                key = (same, own, decays)
                call = calls.setdefault(key, _Call(config, own, config.weight_decay if decays else 0.0))
                call.places.append((i, j))
                call.parameters.append(parameter.detach())
                call.first += self._first[i][j : j + 1]
                call.second += self._second[i][j : j + 1]
        self._calls = list(calls.values())

    @torch.no_grad()
    def step(self, place: int, gradients: Sequence[Tensors]) -> None:
        """Update all heads by their gradients; `place` is that of the step among those that were planned."""
        self._count += 1
        for call in self._calls:
            own = [gradients[i][j] for i, j in call.places]
            _update(call, own, rate=call.rates[place], count=self._count, is_first=self._taken == 0)
        self._taken += 1

    def without(self, leaving: set[int]) -> Updates:
        """The optimisers of the heads that stay, with what they have gathered; rates are to be planned anew."""
        stay = [i for i in range(len(self.configs)) if i not in leaving]
        other = Updates([self.configs[i] for i in stay], [self.parameters[i] for i in stay])
        other._first, other._second = [self._first[i] for i in stay], [self._second[i] for i in stay]
        other._taken, other._count = self._taken, self._count
        return other


def _update(call: _Call, gradients: Tensors, *, rate: float, count: torch.Tensor, is_first: bool) -> None:
    config = call.config
    match config:
        case SGDConfig():
            torch._fused_sgd_(
                call.parameters,
                gradients,
                call.first,
                weight_decay=call.decay,
                momentum=config.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=config.nesterov,
                maximize=False,
                is_first_step=is_first,
            )
        case AdamConfig():
            fused = torch._fused_adamw_ if config.name == "adamw" else torch._fused_adam_
            fused(
                call.parameters,
                gradients,
                call.first,
                call.second,
                [],
                [count] * len(gradients),
                lr=rate,
                beta1=config.betas[0],
                beta2=config.betas[1],
                weight_decay=call.decay,
                eps=config.eps,
                amsgrad=False,
                maximize=False,
            )


def _is_sgd(config: OptimizerConfig) -> bool:
    return isinstance(config, SGDConfig)


def _has_first(config: OptimizerConfig) -> bool:
    return not isinstance(config, SGDConfig) or config.momentum > 0


def _zeros(parameters: Sequence[nn.Parameter], *, wanted: bool) -> Tensors:
    return [torch.zeros_like(p, requires_grad=False) for p in parameters] if wanted else []
