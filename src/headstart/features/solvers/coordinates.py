"""Features turned so that a penalised fit on them is quick: centred, in their own span, along their spread."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headstart.features.solvers.likelihood import require_finite

ROWS = 8192
"""Examples that are brought to float64 at once."""
_EVEN = 1e-5
"""Least share of the largest spread that the smallest must have for a decomposition in float32."""
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


def coordinates_of(features: torch.Tensor, *, exact: bool = True) -> Coordinates:
    """Turn features (n, width); raises RunFailed where they are not finite.

    Unless it is to be `exact`, the decomposition is in the features' own precision where their spread allows that:
    directions are then orthonormal, and uncorrelated, as far as that goes.
    """
    require_finite(features)
    count, width = features.shape
    mean = torch.stack([features[a:b].double().sum(dim=0) for a, b in parts(count)]).sum(dim=0) / count
    if not exact and count > width:
        gram = _gram(features, mean, None, features.dtype)
        spread, basis = torch.linalg.eigh(gram)
        if spread[0] > _EVEN * spread[-1]:
            return _in_basis(features, mean, basis, features.dtype)
    span = torch.linalg.qr((features.double() - mean).T).Q if count < width else None
    spread, turn = torch.linalg.eigh(_gram(features, mean, span, torch.float64))
    turn = turn[:, spread > _NOISE * spread[-1].clamp(min=torch.finfo(torch.float64).tiny)]
    return _in_basis(features, mean, turn if span is None else span @ turn, torch.float64)


def _gram(features: torch.Tensor, mean: torch.Tensor, span: torch.Tensor | None, kind: torch.dtype) -> torch.Tensor:
    """X'X of the centred features, or of what they are in a span."""
    size = features.shape[1] if span is None else span.shape[1]
    gram = torch.zeros(size, size, dtype=kind, device=features.device)
    for start, end in parts(len(features)):
        some = (features[start:end].double() - mean).to(kind)
        some = some if span is None else some @ span
        gram += some.T @ some
    return gram


def _in_basis(features: torch.Tensor, mean: torch.Tensor, basis: torch.Tensor, kind: torch.dtype) -> Coordinates:
    """The features along the columns of `basis`, by products of that kind."""
    rows = torch.empty(len(features), basis.shape[1], dtype=features.dtype, device=features.device)
    spread = torch.zeros(basis.shape[1], dtype=torch.float64, device=features.device)
    for start, end in parts(len(features)):
        some = (features[start:end].double() - mean).to(kind) @ basis
        spread += some.square().sum(dim=0, dtype=torch.float64)
        rows[start:end] = some.to(features.dtype)
    return Coordinates(features, mean, basis.double(), spread, rows)
