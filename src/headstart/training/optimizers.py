"""The optimiser: parameter groups per layer group, all of them there from step 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from headstart.config.schema.optimizer import AdamConfig, OptimizerConfig, SGDConfig
from headstart.facts import LayerGroup, LayerMap, LayerParameter
from headstart.strategies.plan import TrainingPlan
from headstart.training.schedules import Factor


def build_optimizer(
    config: OptimizerConfig,
    model: nn.Module,
    layers: LayerMap,
    plan: TrainingPlan,
    *,
    decay: bool = True,
    extra: Sequence[tuple[str, nn.Module]] = (),
) -> torch.optim.Optimizer:
    """An optimiser over what trains in some phase.

    Vectors and scalars (biases, normalisation) are a group of their own, without weight decay. Every group
    has a `name`: the layer group, with `/1d` behind it for those; where the plan adapts rates to each tensor,
    a group for each, with `:` and the parameter's name behind it. Each parameter is in exactly one.

    Without `decay` (a regulariser takes its place) only what a strategy added decays. `extra` are modules
    outside the model that train at the base rate, by name.
    """
    parameters = dict(model.named_parameters())
    groups: list[dict[str, Any]] = []

    def add(name: str, members: list[nn.Parameter], weight_decay: float) -> None:
        if members:
            groups.append({"params": members, "name": name, "lr": config.lr, "weight_decay": weight_decay})

    for layer in layers.groups:
        trained = [p for p in layer.parameters if plan.ever_trains(layer.name, p.kind)]
        for name, listed in _grouped(layer, trained, parameters, each=plan.adapts_rates):
            first = listed[0]
            decays = parameters[first.name].ndim > 1 and (decay or first.kind == "added")
            add(name, [parameters[p.name] for p in listed], config.weight_decay if decays else 0.0)
    for name, module in extra:
        add(name, [p for p in module.parameters() if p.ndim > 1], config.weight_decay if decay else 0.0)
        add(f"{name}/1d", [p for p in module.parameters() if p.ndim <= 1], 0.0)
    fused = True if config.fused else None
    match config:
        case SGDConfig():
            return torch.optim.SGD(
                groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
            )
        case AdamConfig():
            cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            betas = (config.betas[0], config.betas[1])
            return cls(groups, lr=config.lr, betas=betas, eps=config.eps, fused=fused)
    raise AssertionError(f"no optimiser {config.name}")


def _grouped(
    layer: LayerGroup, trained: list[LayerParameter], parameters: dict[str, nn.Parameter], *, each: bool
) -> list[tuple[str, list[LayerParameter]]]:
    """A layer group's parameters by the optimiser's groups: matrices and vectors, own and added, or each alone."""
    if each:
        return [(f"{layer.name}:{p.name}", [p]) for p in trained]
    found: dict[str, list[LayerParameter]] = {}
    for p in trained:
        name = (
            layer.name + ("/added" if p.kind == "added" else "") + ("/1d" if parameters[p.name].ndim <= 1 else "")
        )
        found.setdefault(name, []).append(p)
    return sorted(found.items(), key=lambda item: (item[0].count("/"), item[0]))


def layer_of(name: str) -> str:
    """The layer group of an optimiser's group."""
    return name.partition(":")[0].partition("/")[0]


def build_scheduler(
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    factor: Factor,
    *,
    adapted: Callable[[str], float] = lambda name: 1.0,
    extra: Sequence[str] = (),
) -> LambdaLR:
    """lr(group, step) = base_lr x multiple(group, phase) x factor(step), x adapted(group) where rates adapt.

    Groups named in `extra` have the multiple 1 throughout.
    """

    def rate(name: str) -> Factor:
        layer = layer_of(name)
        if layer in extra:
            return factor
        return lambda step: plan.at(step).rates.get(layer, 0.0) * factor(step) * adapted(name)

    return LambdaLR(optimizer, [rate(group["name"]) for group in optimizer.param_groups])


def rates_of(optimizer: torch.optim.Optimizer, rates_in_use: Sequence[float] | None = None) -> dict[str, float]:
    """The rate in use, per layer group; where each tensor has its own, their mean over the group's numbers.

    `rates_in_use` are those of the optimiser's groups, where that is not what they have now.
    """
    in_use = rates_in_use or [group["lr"] for group in optimizer.param_groups]
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    rates: dict[str, float] = {}
    for group, rate in zip(optimizer.param_groups, in_use, strict=True):
        name = layer_of(group["name"])
        if ":" not in group["name"]:
            rates[name] = float(rate)
            continue
        size = sum(p.numel() for p in group["params"])
        sums[name] = sums.get(name, 0.0) + float(rate) * size
        sizes[name] = sizes.get(name, 0) + size
        rates[name] = sums[name] / sizes[name]
    return rates
