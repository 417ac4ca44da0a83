"""Frozen means frozen: which parameters take part, and which modules stay in evaluation mode."""

from __future__ import annotations

from torch import nn

from headstart.facts import LayerMap
from headstart.strategies.plan import Phase, TrainingPlan


def set_trainable(model: nn.Module, layers: LayerMap, phase: Phase) -> list[nn.Parameter]:
    """Let autograd follow the parameters that train, and no others; returns those that do not."""
    parameters, frozen = dict(model.named_parameters()), []
    for group in layers.groups:
        for listed in group.parameters:
            parameter = parameters[listed.name]
            parameter.requires_grad_(phase.trains(group.name, listed.kind))
            if not parameter.requires_grad:
                frozen.append(parameter)
    return frozen


def set_ever_trainable(model: nn.Module, layers: LayerMap, plan: TrainingPlan) -> None:
    """Let autograd follow all that trains in some phase: what spreads the model over devices must see it."""
    parameters = dict(model.named_parameters())
    for group in layers.groups:
        for listed in group.parameters:
            parameters[listed.name].requires_grad_(plan.ever_trains(group.name, listed.kind))


def frozen_modules(model: nn.Module, layers: LayerMap, phase: Phase) -> list[nn.Module]:
    """Modules that must stay in evaluation mode: all that hold something of a frozen group.

    A module without parameters and buffers (dropout, stochastic depth, an activation) goes with the nearest
    module around it that has some. A container of frozen and trained parts counts as frozen. What a strategy
    added goes by itself, not by what it stands in.
    """
    added = {name: group.name for group in layers.groups for name in group.added_modules}
    held: dict[str, set[str]] = {"": set()}
    for group in layers.groups:
        own = [p.name for p in group.parameters if p.kind != "added"]
        for name in (*own, *group.buffers):
            path = name.split(".")
            for depth in range(len(path)):
                held.setdefault(".".join(path[:depth]), set()).add(group.name)

    def frozen(name: str) -> bool:
        around = name
        while around not in held and around not in added:
            around = around.rpartition(".")[0]
        if around in added:
            return not phase.trains(added[around], "added")
        return not all(phase.runs_in_training_mode(group) for group in held[around])

    return [module for name, module in model.named_modules() if frozen(name)]
