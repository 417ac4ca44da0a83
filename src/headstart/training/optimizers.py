"""The optimiser: one parameter group per layer group, all of them there from step 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from headstart.config.schema.optimizer import AdamConfig, OptimizerConfig, SGDConfig
from headstart.facts import LayerMap
from headstart.strategies.plan import TrainingPlan
from headstart.training.schedules import Factor


def build_optimizer(
    config: OptimizerConfig, model: nn.Module, layers: LayerMap, plan: TrainingPlan
) -> torch.optim.Optimizer:
    """An optimiser over the layer groups that train in some phase.

    Vectors and scalars (biases, normalisation) are a group of their own, without weight decay. Every group
    has a `name`: the layer group, with `/1d` behind it for those. Each parameter is in exactly one.
    """
    parameters = dict(model.named_parameters())
    groups: list[dict[str, Any]] = []
    for layer in layers.groups:
        if layer.name not in plan.ever_trained:
            continue
        wide = [parameters[name] for name in layer.parameters if parameters[name].ndim > 1]
        flat = [parameters[name] for name in layer.parameters if parameters[name].ndim <= 1]
        for suffix, members, decay in (("", wide, config.weight_decay), ("/1d", flat, 0.0)):
            if members:
                groups.append(
                    {"params": members, "name": layer.name + suffix, "lr": config.lr, "weight_decay": decay}
                )
    match config:
        case SGDConfig():
            return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
        case AdamConfig():
            cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
            return cls(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps)
    raise AssertionError(f"no optimiser {config.name}")


def build_scheduler(optimizer: torch.optim.Optimizer, plan: TrainingPlan, factor: Factor) -> LambdaLR:
    """lr(group, step) = base_lr x multiple(group, phase) x factor(step)."""

    def rate(group: str) -> Factor:
        return lambda step: plan.at(step).rates.get(group, 0.0) * factor(step)

    return LambdaLR(optimizer, [rate(group["name"].split("/")[0]) for group in optimizer.param_groups])


def rates_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate in use, per layer group."""
    return {group["name"].split("/")[0]: float(group["lr"]) for group in optimizer.param_groups}
