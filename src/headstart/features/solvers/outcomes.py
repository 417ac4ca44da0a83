"""Classes that the training images have none of, or nothing but: no finite bias is the best one for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from headstart.features.solvers.likelihood import Likelihood
from headstart.features.solvers.logistic import LogisticFit

RARE = 1e-6
"""The probability that a class gets of which there is no training image."""


def with_all_classes(
    fit: Callable[[Likelihood], Iterator[LogisticFit]], features: torch.Tensor, whole: Likelihood
) -> Iterator[LogisticFit]:
    """Fit the outputs that can be fitted; the others get weight 0 and a bias.

    An unpenalised bias of a class without an example has no lowest value, so such a class is left out of the fit,
    as scikit-learn does, and then given a probability of at most 1e-6 on every training image; a label that every
    image has, or none, one of 1e-6 or as near to 1.
    """
    there = whole.positive.sum(dim=1)
    total = whole.mass.sum(dim=-1) if whole.kind == "sigmoid" else whole.mass.sum().expand_as(there)
    fits = (there > 0) & (there < total) if whole.kind == "sigmoid" else there > 0
    if bool(fits.all()):
        yield from fit(whole)
        return
    if whole.kind == "softmax":
        some = replace(whole, positive=whole.positive[fits])
    else:
        some = replace(whole, positive=whole.positive[fits], mass=whole.mass[fits])
    outputs, width = len(there), features.shape[1]
    for one in fit(some):
        weight = one.weight.new_zeros(outputs, width)
        weight[fits] = one.weight
        bias = one.bias.new_full((outputs,), math.log(RARE))
        if whole.kind == "sigmoid":
            bias[there > 0] = -math.log(RARE)
        else:
            lowest = min(
                float((part.double() @ one.weight.T + one.bias).logsumexp(dim=1).min())
                for part in features.split(8192)
            )
            bias += lowest
        bias[fits] = one.bias
        yield replace(one, weight=weight, bias=bias)
