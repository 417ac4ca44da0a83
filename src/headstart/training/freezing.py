"""Frozen means frozen: which parameters take part, and which modules stay in evaluation mode."""

from __future__ import annotations

from torch import nn

from headstart.facts import LayerMap
from headstart.strategies.plan import Phase


def set_trainable(model: nn.Module, layers: LayerMap, phase: Phase) -> None:
    """Let autograd follow the parameters of the groups that train, and no others."""
    group_of = layers.group_of()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(phase.trains(group_of[name]))


def frozen_modules(model: nn.Module, layers: LayerMap, phase: Phase) -> list[nn.Module]:
    """Modules that must stay in evaluation mode: all that hold something of a frozen group.

    A module without parameters and buffers (dropout, stochastic depth, an activation) goes with the nearest
    module around it that has some. A container of frozen and trained parts counts as frozen.
    """
    group_of = layers.group_of()
    held: dict[str, set[str]] = {}
    for name in group_of:
        path = name.split(".")
        for depth in range(len(path)):
            held.setdefault(".".join(path[:depth]), set()).add(group_of[name])

    def groups_around(name: str) -> set[str]:
        while name not in held:
            name = name.rpartition(".")[0]
        return held[name]

    return [
        module
        for name, module in model.named_modules()
        if not all(phase.trains(group) for group in groups_around(name))
    ]
