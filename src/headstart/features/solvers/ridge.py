"""Least squares with an l2 penalty in closed form: one decomposition, then every penalty is a rescaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from headstart.facts import Task
from headstart.features.solvers.coordinates import coordinates_of, parts


@dataclass(frozen=True)
class RidgeFit:
    """The lowest sum of squared errors + penalty x squared norm of the weights; the biases are not penalised."""

    penalty: float
    weight: torch.Tensor
    """(outputs, width) float64."""
    bias: torch.Tensor
    """(outputs,) float64."""
    loss: float
    """Mean squared error over examples and outputs."""


def ridge_path(features: torch.Tensor, wanted: torch.Tensor, penalties: Sequence[float]) -> Iterator[RidgeFit]:
    """Fit features (n, width) to `wanted` (n, outputs) once for every penalty, in float64.

    Along the directions u of the centred features' own spread s, the weights are u'X'Y / (s + penalty) (Hastie,
    Tibshirani and Friedman 2009, eq. 3.47): scikit-learn's Ridge with alpha = penalty.
    """
    turned = coordinates_of(features)
    wanted = wanted.double()
    mean = wanted.mean(dim=0)
    centred = wanted - mean
    along = centred.new_zeros(wanted.shape[1], turned.rank)
    for start, end in parts(len(features)):
        along += centred[start:end].T @ turned.centred(start, end) @ turned.basis
    total = (centred**2).sum()
    for penalty in penalties:
        turned_weight = along / (turned.spread + penalty)
        errors = total - 2 * (turned_weight * along).sum() + (turned_weight**2 * turned.spread).sum()
        weight, bias = turned.layer(turned_weight, mean)
        loss = float(errors.clamp(min=0)) / wanted.numel()
        yield RidgeFit(penalty, weight, bias, loss)


def wanted_scores(
    targets: torch.Tensor, outputs: int, task: Task, *, units: tuple[torch.Tensor, torch.Tensor] | None
) -> torch.Tensor:
    """What is regressed, (n, outputs): numbers with mean 0 and standard deviation 1, or 1 where a class is and -1.

    One class against the others, as big_vision's few-shot evaluation has it. `units` are the mean and standard
    deviation of numbers.
    """
    if units is not None:
        mean, std = units
        return (targets.double() - mean) / std
    if task == "multiclass":
        return F.one_hot(targets.long(), outputs).double() * 2 - 1
    there = targets.double()
    return (there[:, None] if task == "binary" else there) * 2 - 1
