"""The moving average of the weights that a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from headstart.facts import LayerMap, ParameterKind
from headstart.strategies.plan import Phase, TrainingPlan


@dataclass(frozen=True)
class _Tensor:
    """One averaged tensor of the model: a parameter of a kind, or, without one, a running statistic."""

    name: str
    group: str
    kind: ParameterKind | None

    def moves_in(self, phase: Phase) -> bool:
        return phase.runs_in_training_mode(self.group) if self.kind is None else phase.trains(self.group, self.kind)


class WeightAverage(nn.Module):
    """average = d x average + (1 - d) x weights after each step (Polyak and Juditsky 1992; PyTorch's swa_utils).

    d = min(decay, (1 + t) / (10 + t)), where t counts a tensor's steps from 0 since its layer group began to train
    (TensorFlow's ExponentialMovingAverage with num_updates), so that neither a short run nor a group that begins
    late is held by where it started. Running statistics of batch normalisation are averaged with the weights.

    What a phase freezes is not averaged in it: its average is its value. A group that is frozen again is frozen
    at its average, which becomes its value where the phase begins, so that what trains on top of it sees the
    features that are tested. Averages are part of the checkpoint. Lightning's WeightAveraging copies the whole
    module, frozen parts and penalties included, knows of no phases and is not used.
    """

    def __init__(self, model: nn.Module, layers: LayerMap, plan: TrainingPlan, *, decay: float) -> None:
        super().__init__()
        self.plan, self.decay = plan, decay
        self._tensors = _moving(model, layers, plan)
        self._moving: dict[int, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        self._starts = {t.name: _starts_of(t, plan) for t in self._tensors}
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for tensor in self._tensors:
            self.register_buffer(_key(tensor.name), named[tensor.name].detach().clone())

    @torch.no_grad()
    def enter(self, step: int, model: nn.Module) -> None:
        """Begin the phase of `step`, or go on with it: what trained before and no longer does is its average."""
        now, before = self.plan.at(step), self.plan.at(max(0, step - 1))
        ended = [t for t in self._tensors if before is not now and t.moves_in(before) and not t.moves_in(now)]
        for average, weights in zip(*self._pairs(ended, model), strict=True):
            weights.copy_(average)
        by_start: dict[int, list[_Tensor]] = {}
        for tensor in self._tensors:
            if tensor.moves_in(now):
                start = max(start for start in self._starts[tensor.name] if start <= step)
                by_start.setdefault(start, []).append(tensor)
        self._moving = {start: self._pairs(tensors, model) for start, tensors in by_start.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in what step `step` has made of the weights."""
        for start, (averages, weights) in self._moving.items():
            age = step - start
            get_ema_multi_avg_fn(min(self.decay, (1 + age) / (10 + age)))(averages, weights, None)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the averages with the weights; a second time brings them back."""
        for average, weights in zip(*self._pairs(self._tensors, model), strict=True):
            kept = weights.clone()
            weights.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def settle(self, model: nn.Module) -> None:
        """Put the averages in the place of the weights, for good."""
        for average, weights in zip(*self._pairs(self._tensors, model), strict=True):
            weights.copy_(average)

    def statistics_in(self, phase: Phase) -> list[torch.Tensor]:
        """Averages of the running statistics that `phase` moves."""
        moving = [t for t in self._tensors if t.kind is None and t.moves_in(phase)]
        return [self.get_buffer(_key(t.name)) for t in moving]

    def _pairs(self, tensors: Sequence[_Tensor], model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return [self.get_buffer(_key(t.name)) for t in tensors], [named[t.name] for t in tensors]


def _key(name: str) -> str:
    """A tensor's name as that of a buffer, which may have no point in it."""
    return name.replace(".", "/")


def _moving(model: nn.Module, layers: LayerMap, plan: TrainingPlan) -> list[_Tensor]:
    """Every parameter and running statistic that moves in some phase."""
    buffers = dict(model.named_buffers())
    found = []
    for group in layers.groups:
        found += [_Tensor(p.name, group.name, p.kind) for p in group.parameters]
        found += [_Tensor(name, group.name, None) for name in group.buffers if buffers[name].is_floating_point()]
    return [tensor for tensor in found if any(tensor.moves_in(phase) for phase in plan.phases)]


def _starts_of(tensor: _Tensor, plan: TrainingPlan) -> list[int]:
    """The steps at which a tensor begins to move, for the first time and after each freeze."""
    before = [False, *(tensor.moves_in(phase) for phase in plan.phases)]
    return [
        phase.start for was, phase in zip(before, plan.phases, strict=False) if tensor.moves_in(phase) and not was
    ]
