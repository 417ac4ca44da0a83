"""The loss of a logistic regression as what its solver needs of it: residuals and curvature, many fits at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn import functional as F

from headstart.errors import RunFailed

Kind = Literal["softmax", "sigmoid"]


@dataclass(frozen=True)
class Likelihood:
    """Weighted cross-entropy summed over the examples: sum of mass x log-partition - positive x score.

    `positive` (outputs, n) is how much of an example speaks for an output, `mass` what a probability is compared
    with: (n,) for the softmax, one distribution per example; (outputs, n) for sigmoids, each output by itself.
    Scores are (fits, outputs, n).
    """

    kind: Kind
    positive: torch.Tensor
    mass: torch.Tensor
    total: float
    """What PyTorch's mean loss divides the sum by."""

    def part(self, start: int, end: int) -> Likelihood:
        """Of the examples from `start` to `end` alone."""
        return replace(self, positive=self.positive[..., start:end], mass=self.mass[..., start:end])

    def losses(self, scores: torch.Tensor) -> torch.Tensor:
        """(fits,) sums over examples, added up in float64."""
        if self.kind == "softmax":
            each = self.mass * scores.logsumexp(dim=1) - (self.positive * scores).sum(dim=1)
        else:
            each = (self.mass * F.softplus(scores) - self.positive * scores).sum(dim=1)
        return each.sum(dim=-1, dtype=torch.float64)

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """What the scores say, shaped as they are."""
        return scores.softmax(dim=1) if self.kind == "softmax" else scores.sigmoid()

    def residuals(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The slope of the loss along each score."""
        return self.mass * probabilities - self.positive

    def curved(self, probabilities: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        """The second derivative of the loss along scores, times a direction `along` of scores."""
        moved = probabilities * along
        if self.kind == "softmax":
            moved = moved - probabilities * moved.sum(dim=1, keepdim=True)
        else:
            moved = moved - probabilities * moved
        return self.mass * moved

    def own_curvature(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The diagonal of the second derivative, shaped as the scores."""
        return self.mass * probabilities * (1 - probabilities)


def of_classes(
    targets: torch.Tensor, classes: int, *, weights: torch.Tensor | None, smoothing: float
) -> Likelihood:
    """Of (n,) class indices: PyTorch's weighted, smoothed cross-entropy before it is divided by anything."""
    shares = F.one_hot(targets, classes).to(torch.float64).T
    shares = shares * (1 - smoothing) + smoothing / classes
    if weights is not None:
        weights = weights.to(shares)
        shares = shares * weights[:, None]
    total = len(targets) if weights is None else float(weights[targets].sum())
    return Likelihood("softmax", shares.contiguous(), shares.sum(dim=0), total)


def of_labels(targets: torch.Tensor, *, weights: torch.Tensor | None, smoothing: float) -> Likelihood:
    """Of (n, labels) of 0 and 1, each label by itself; `weights` (labels,) are of the positives."""
    there = targets.to(torch.float64).T * (1 - smoothing) + smoothing / 2
    positive = there if weights is None else there * weights.to(there)[:, None]
    return Likelihood("sigmoid", positive.contiguous(), (positive + 1 - there).contiguous(), targets.numel())


def of_one(targets: torch.Tensor, *, weights: torch.Tensor | None, smoothing: float) -> Likelihood:
    """Of (n,) of 0 and 1 with one output: the cross-entropy of scores (0, s), `weights` (2,) of both classes."""
    there = (targets.to(torch.float64) * (1 - smoothing) + smoothing / 2)[None]
    absent, present = (1.0, 1.0) if weights is None else (float(weights[0]), float(weights[1]))
    count = float(targets.sum())
    total = count * present + (len(targets) - count) * absent
    return Likelihood("sigmoid", there * present, there * present + (1 - there) * absent, total)


def require_finite(features: torch.Tensor) -> None:
    """Raise RunFailed where features are not all finite: nothing can be fitted to them."""
    if not bool(torch.isfinite(features).all()):
        raise RunFailed("the features of the training images are not all finite numbers; there is nothing to fit.")
