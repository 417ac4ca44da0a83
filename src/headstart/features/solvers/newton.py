"""One step of Newton's method for several fits at once, by conjugate gradients."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from headstart.features.solvers.coordinates import Coordinates
from headstart.features.solvers.likelihood import Likelihood

MOST_PRODUCTS = 200
"""Products with the second derivative in one step."""


@dataclass(frozen=True)
class State:
    """Where several fits are: in float64; the first dimension of each is the fit."""

    weights: torch.Tensor
    """(fits, outputs, rank)."""
    biases: torch.Tensor
    """(fits, outputs)."""
    losses: torch.Tensor
    objectives: torch.Tensor
    weight_slopes: torch.Tensor
    bias_slopes: torch.Tensor
    probabilities: torch.Tensor
    """(fits, outputs, n)."""
    gaps: torch.Tensor
    """A bound of how far each objective is above its lowest."""
    steps: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    converged: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def at(self, fits: torch.Tensor) -> State:
        """Some of the fits."""
        return State(*(getattr(self, name)[fits] for name in _PER_FIT))

    def put(self, fits: torch.Tensor, other: State) -> State:
        """The same with some of the fits replaced."""
        return State(*(getattr(self, name).index_copy(0, fits, getattr(other, name)) for name in _PER_FIT))

    def ended(self, steps: torch.Tensor, converged: torch.Tensor) -> State:
        """The same with what became of each."""
        return dataclasses.replace(self, steps=steps, converged=converged)


_PER_FIT = (
    "weights", "biases", "losses", "objectives", "weight_slopes", "bias_slopes", "probabilities", "gaps",
)  # fmt: skip


def newton_step(
    turned: Coordinates, likelihood: Likelihood, penalties: torch.Tensor, state: State, *, allowed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps of weights (fits, outputs, rank) and biases (fits, outputs) towards each fit's lowest, in float64.

    The system is solved as far as the fit needs it (an inexact Newton method; Nocedal and Wright 2006, section
    7.1): far from the lowest roughly, near to it so that the next bound is below what is `allowed`. Directions are
    scaled by the diagonal that the second derivative would have if every example were as certain as their mean.
    """
    rows, probabilities = turned.rows, state.probabilities
    kind = rows.dtype
    fits, outputs, rank = state.weights.shape
    own = likelihood.own_curvature(probabilities).sum(dim=2)
    spread = (turned.spread / len(rows)).to(kind)
    twice = (2 * penalties).to(kind)[:, None, None]
    scale = 1 / (own.to(kind)[:, :, None] * spread + twice)
    bias_scale = 1 / (own.to(kind) + own.amax(dim=1, keepdim=True).to(kind) * 1e-6 + 1e-20)

    def product(weights: torch.Tensor, biases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        along = (weights.reshape(fits * outputs, rank) @ rows.T).view(fits, outputs, -1) + biases[:, :, None]
        # what is all but certain has differences in it that float32 would lose
        moved = likelihood.curved(probabilities, along.double())
        back = (moved.to(kind).reshape(fits * outputs, -1) @ rows).view(fits, outputs, rank)
        return back + twice * weights, moved.sum(dim=2).to(kind)

    def dot(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (one[0] * other[0]).sum(dim=(1, 2)) + (one[1] * other[1]).sum(dim=1)

    # slopes may be far from 1: the largest is, so that float32 does not lose them
    unit = state.weight_slopes.abs().amax(dim=(1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    left = ((-state.weight_slopes / unit[:, None, None]).to(kind), (-state.bias_slopes / unit[:, None]).to(kind))
    ratio = (allowed / state.gaps).clamp(max=1).sqrt()
    relative = (state.gaps / len(rows)).sqrt()
    precision = torch.maximum(0.3 * ratio, torch.minimum(0.1 * relative, torch.full_like(relative, 0.3)))
    enough = precision.clamp(max=0.3).to(kind) ** 2 * (left[0] ** 2).sum(dim=(1, 2))
    found = (torch.zeros_like(left[0]), torch.zeros_like(left[1]))
    scaled = (scale * left[0], bias_scale * left[1])
    along, before = scaled, dot(left, scaled)
    going = torch.ones(fits, dtype=torch.bool, device=rows.device)
    for _ in range(MOST_PRODUCTS):
        curved = product(*along)
        bend = dot(along, curved)
        going = going & (bend > 0)
        length = torch.where(going, before / torch.where(going, bend, 1.0), 0.0)
        found = (found[0] + length[:, None, None] * along[0], found[1] + length[:, None] * along[1])
        left = (left[0] - length[:, None, None] * curved[0], left[1] - length[:, None] * curved[1])
        going = going & ((left[0] ** 2).sum(dim=(1, 2)) > enough)
        if not bool(going.any()):
            break
        scaled = (scale * left[0], bias_scale * left[1])
        now = dot(left, scaled)
        turn = torch.where(going, now / torch.where(before > 0, before, 1.0), 0.0)
        along = (scaled[0] + turn[:, None, None] * along[0], scaled[1] + turn[:, None] * along[1])
        before = now
    return found[0].double() * unit[:, None, None], found[1].double() * unit[:, None]
