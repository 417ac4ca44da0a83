"""The optimiser: parameter groups per layer group, all of them there from step 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from headstart.config.schema.optimizer import AdamConfig, OptimizerConfig, SGDConfig
from headstart.facts import LayerMap, LayerParameter
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

    Layer groups that have the same rate in every phase are one group of the optimiser: a step costs by the group.
    Each has a `name` and its `layers`. Vectors and scalars (biases, normalisation) are a group of their own,
    without weight decay, with `/1d` behind its name; where the plan adapts rates to each tensor, each is a group,
    with `:` and the parameter's name behind it. Each parameter is in exactly one.

    Without `decay` (a regulariser takes its place) only what a strategy added decays. `extra` are modules
    outside the model that train at the base rate, by name.
    """
    parameters = dict(model.named_parameters())
    groups: dict[Any, dict[str, Any]] = {}

    def add(layer: str, suffix: str, members: list[nn.Parameter], weight_decay: float, rates: Any) -> None:
        if not members:
            return
        own = groups.setdefault(
            (suffix, weight_decay, rates),
            {"params": [], "layers": (), "suffix": suffix, "lr": config.lr, "weight_decay": weight_decay},
        )
        own["params"] += members
        own["layers"] = tuple(dict.fromkeys((*own["layers"], layer)))

    for layer in layers.groups:
        trained = [p for p in layer.parameters if plan.ever_trains(layer.name, p.kind)]
        for suffix, listed in _grouped(trained, parameters, each=plan.adapts_rates):
            decays = parameters[listed[0].name].ndim > 1 and (decay or listed[0].kind == "added")
            rates = layer.name if plan.adapts_rates else tuple(p.rates.get(layer.name) for p in plan.phases)
            members = [parameters[p.name] for p in listed]
            add(layer.name, suffix, members, config.weight_decay if decays else 0.0, rates)
    for name, module in extra:
        matrices = [p for p in module.parameters() if p.ndim > 1]
        add(name, "", matrices, config.weight_decay if decay else 0.0, ("extra", name))
        add(name, "/1d", [p for p in module.parameters() if p.ndim <= 1], 0.0, ("extra", name))
    named = [{"name": ",".join(g["layers"]) + g.pop("suffix"), **g} for g in groups.values()]
    fused = True if config.fused else None
    match config:
        case SGDConfig():
            return torch.optim.SGD(
                named, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
            )
        case AdamConfig():
            cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            betas = (config.betas[0], config.betas[1])
            return cls(named, lr=config.lr, betas=betas, eps=config.eps, fused=fused)
    raise AssertionError(f"no optimiser {config.name}")


def _grouped(
    trained: list[LayerParameter], parameters: dict[str, nn.Parameter], *, each: bool
) -> list[tuple[str, list[LayerParameter]]]:
    """A layer group's parameters by what is behind the name of their group: matrices and vectors, own and added,
    or each alone."""
    if each:
        return [(f":{p.name}", [p]) for p in trained]
    found: dict[str, list[LayerParameter]] = {}
    for p in trained:
        suffix = ("/added" if p.kind == "added" else "") + ("/1d" if parameters[p.name].ndim <= 1 else "")
        found.setdefault(suffix, []).append(p)
    return sorted(found.items(), key=lambda item: (item[0].count("/"), item[0]))


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

    def rate(group: dict[str, Any]) -> Factor:
        name, layer = group["name"], group["layers"][0]
        if layer in extra:
            return factor
        if ":" in name:
            return lambda step: plan.at(step).rates.get(layer, 0.0) * factor(step) * adapted(name)
        return lambda step: plan.at(step).rates.get(layer, 0.0) * factor(step)

    return LambdaLR(optimizer, [rate(group) for group in optimizer.param_groups])


def rates_of(optimizer: torch.optim.Optimizer, rates_in_use: Sequence[float] | None = None) -> dict[str, float]:
    """The rate in use, per layer group; where each tensor has its own, their mean over the group's numbers.

    `rates_in_use` are those of the optimiser's groups, where that is not what they have now.
    """
    in_use = rates_in_use or [group["lr"] for group in optimizer.param_groups]
    sums: dict[str, float] = {}
    sizes: dict[str, int] = {}
    rates: dict[str, float] = {}
    for group, rate in zip(optimizer.param_groups, in_use, strict=True):
        for name in group["layers"]:
            if ":" not in group["name"]:
                rates[name] = float(rate)
                continue
            size = sum(p.numel() for p in group["params"])
            sums[name] = sums.get(name, 0.0) + float(rate) * size
            sizes[name] = sizes.get(name, 0) + size
            rates[name] = sums[name] / sizes[name]
    return rates
