"""Features turned so that a penalised fit on them is quick: centred, in their own span, along their spread."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headstart.features.solvers.likelihood import require_finite

ROWS = 8192
"""Examples that are brought to float64 at once."""
_NOISE = 16 * torch.finfo(torch.float64).eps
"""Spread of a direction, as a share of the largest, below which rounding is all that it holds."""


@dataclass(frozen=True)
class Coordinates:
    """Features (n, width) as (n, rank) numbers along orthonormal directions, by one eigendecomposition.

    A penalty on the squared norm of weights is the same in these, and directions in which the features do not
    differ have weight 0 at the optimum, so they are left out: with fewer examples than features all work is done in
    their span.
    """

    features: torch.Tensor
    """As they were given."""
    mean: torch.Tensor
    """(width,) float64."""
    basis: torch.Tensor
    """(width, rank) float64, orthonormal columns."""
    spread: torch.Tensor
    """(rank,) float64: sum of squares of the centred features along each direction."""
    rows: torch.Tensor
    """(n, rank) in the features' precision: the centred features in these directions."""

    @property
    def rank(self) -> int:
        """How many directions there are."""
        return self.basis.shape[1]

    def centred(self, start: int, end: int) -> torch.Tensor:
        """Some of the features themselves, in float64, minus their mean."""
        return self.features[start:end].double() - self.mean

    def layer(self, weights: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (outputs, rank) and bias (outputs,) -> those of a linear layer on the features themselves."""
        whole = weights @ self.basis.T
        return whole, bias - whole @ self.mean


def parts(count: int) -> list[tuple[int, int]]:
    """Beginnings and ends of the parts of so many examples that are brought to float64 at once."""
    return [(start, min(start + ROWS, count)) for start in range(0, count, ROWS)]


def coordinates_of(features: torch.Tensor) -> Coordinates:
    """Turn features (n, width); raises RunFailed where they are not finite."""
    require_finite(features)
    count, width = features.shape
    mean = sum((features[a:b].double().sum(dim=0) for a, b in parts(count)), torch.zeros(())) / count
    span: torch.Tensor | None = None
    if count < width:
        span = torch.linalg.qr((features.double() - mean).T).Q
    size = min(count, width)
    gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for a, b in parts(count):
        some = features[a:b].double() - mean
        some = some if span is None else some @ span
        gram += some.T @ some
    spread, turn = torch.linalg.eigh(gram)
    keeps = spread > _NOISE * spread[-1].clamp(min=torch.finfo(torch.float64).tiny)
    spread, turn = spread[keeps], turn[:, keeps]
    basis = turn if span is None else span @ turn
    rows = torch.empty(count, basis.shape[1], dtype=features.dtype, device=features.device)
    for a, b in parts(count):
        rows[a:b] = ((features[a:b].double() - mean) @ basis).to(features.dtype)
    return Coordinates(features, mean, basis, spread, rows)
