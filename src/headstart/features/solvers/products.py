"""One step of Newton's method for several fits at once, by conjugate gradients."""

from __future__ import annotations

import torch

from headstart.features.solvers.coordinates import Coordinates
from headstart.features.solvers.likelihood import Likelihood

MOST_PRODUCTS = 200
"""Products with the second derivative in one step."""
Pair = tuple[torch.Tensor, torch.Tensor]
"""Of weights (fits, outputs, rank) and of biases (fits, outputs)."""


def newton_step(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    *,
    probabilities: torch.Tensor,
    slopes: Pair,
    ratio: torch.Tensor,
    relative: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Steps of weights, biases and the scores with them towards each fit's lowest, in float64.

    The system is solved as far as the fit needs it (an inexact Newton method; Nocedal and Wright 2006, section
    7.1): far from the lowest roughly, near to it so that the next bound is the smaller by `ratio`, squared.
    `relative` is the root of the bound per example. Directions are scaled by the diagonal that the second
    derivative would have if every example were as certain as their mean.
    """
    rows = turned.rows
    kind = rows.dtype
    fits, outputs, rank = slopes[0].shape
    own = likelihood.own_curvature(probabilities).sum(dim=2)
    spread = turned.spread / len(rows)
    scale = (1 / (own[:, :, None] * spread + 2 * penalties[:, None, None])).to(kind)
    bias_scale = (1 / (own + own.amax(dim=1, keepdim=True) * 1e-6 + 1e-20)).to(kind)
    twice = (2 * penalties).to(kind)[:, None, None]

    def product(weights: torch.Tensor, biases: torch.Tensor) -> tuple[Pair, torch.Tensor]:
        along = (weights.reshape(fits * outputs, rank) @ rows.T).view(fits, outputs, -1) + biases[:, :, None]
        # what is all but certain has differences in it that float32 would lose
        moved = likelihood.curved(probabilities, along.double())
        back = (moved.to(kind).reshape(fits * outputs, -1) @ rows).view(fits, outputs, rank)
        return (back + twice * weights, moved.sum(dim=2).to(kind)), along

    # slopes may be far from 1: the largest is brought there, so that float32 does not lose the others
    unit = slopes[0].abs().amax(dim=(1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    left = (-slopes[0] / unit[:, None, None]).to(kind), (-slopes[1] / unit[:, None]).to(kind)
    precision = torch.maximum(0.6 * ratio, 0.1 * relative).clamp(max=0.3)
    enough = precision.to(kind) ** 2 * (left[0] ** 2).sum(dim=(1, 2))
    found = torch.zeros_like(left[0]), torch.zeros_like(left[1])
    reached = torch.zeros_like(probabilities, dtype=kind)
    scaled = scale * left[0], bias_scale * left[1]
    along, before = scaled, _dot(left, scaled)
    going = torch.ones(fits, dtype=torch.bool, device=rows.device)
    for _ in range(MOST_PRODUCTS):
        curved, scores = product(*along)
        bend = _dot(along, curved)
        going = going & (bend > 0)
        length = torch.where(going, before / torch.where(going, bend, 1.0), 0.0)
        found, reached = _moved(found, length, along), reached + length[:, None, None] * scores
        left = _moved(left, -length, curved)
        going = going & ((left[0] ** 2).sum(dim=(1, 2)) > enough)
        if not bool(going.any()):
            break
        scaled = scale * left[0], bias_scale * left[1]
        now = _dot(left, scaled)
        turn = torch.where(going, now / torch.where(before > 0, before, 1.0), 0.0)
        along, before = _moved(scaled, turn, along), now
    steps = found[0].double() * unit[:, None, None], found[1].double() * unit[:, None]
    return *steps, reached.double() * unit[:, None, None]


def _dot(one: Pair, other: Pair) -> torch.Tensor:
    """(fits,)."""
    return (one[0] * other[0]).sum(dim=(1, 2)) + (one[1] * other[1]).sum(dim=1)


def _moved(start: Pair, length: torch.Tensor, along: Pair) -> Pair:
    """start + length x along."""
    return start[0] + length[:, None, None] * along[0], start[1] + length[:, None] * along[1]
