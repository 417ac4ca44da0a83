"""Newton's method for several penalised fits at once: where they are, how far from their lowest, and on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from headstart.features.solvers.coordinates import Coordinates, parts
from headstart.features.solvers.likelihood import Likelihood
from headstart.features.solvers.products import newton_step

TOLERANCE = 2e-5
"""Objective per example that a fit may be above its lowest, by its bound."""
SHARE = 0.05
"""The same as a share of the objective itself, where that is less: weak penalties on classes that can be told."""
MOST_STEPS = 60


@dataclass(frozen=True)
class State:
    """Where several fits are: in float64, the first dimension of each is the fit."""

    weights: torch.Tensor
    """(fits, outputs, rank)."""
    biases: torch.Tensor
    """(fits, outputs)."""
    losses: torch.Tensor
    objectives: torch.Tensor
    weight_slopes: torch.Tensor
    bias_slopes: torch.Tensor
    scores: torch.Tensor
    """(fits, outputs, n), as are the probabilities; without examples where nobody asked for them."""
    probabilities: torch.Tensor
    gaps: torch.Tensor
    """A bound of how far each objective is above its lowest."""

    def at(self, fits: torch.Tensor) -> State:
        """Some of the fits."""
        return State(*(getattr(self, name)[fits] for name in _NAMES))

    def put(self, fits: torch.Tensor, other: State) -> State:
        """The same with some of the fits replaced."""
        return State(*(getattr(self, name).index_copy(0, fits, getattr(other, name)) for name in _NAMES))

    def without_examples(self) -> State:
        """The same, and smaller."""
        return dataclasses.replace(self, scores=self.scores[:, :, :0], probabilities=self.probabilities[:, :, :0])


_NAMES = tuple(field.name for field in dataclasses.fields(State))


def allowed(objectives: torch.Tensor, turned: Coordinates) -> torch.Tensor:
    """What a bound may be."""
    return torch.minimum(torch.full_like(objectives, TOLERANCE * len(turned.rows)), SHARE * objectives)


def descend(
    turned: Coordinates, likelihood: Likelihood, penalties: torch.Tensor, state: State, *, exactly: bool = False
) -> State:
    """Newton steps until each bound is small enough, or nothing comes of them; `exactly`: slopes in float64."""
    moving = torch.arange(len(penalties), device=penalties.device)
    for _ in range(MOST_STEPS):
        moving = moving[state.gaps[moving] > allowed(state.objectives[moving], turned)]
        if not len(moving):
            break
        some, own = state.at(moving), penalties[moving]
        step = newton_step(
            turned,
            likelihood,
            own,
            probabilities=some.probabilities,
            slopes=(some.weight_slopes, some.bias_slopes),
            ratio=(allowed(some.objectives, turned) / some.gaps).sqrt(),
            relative=(some.gaps / len(turned.rows)).sqrt(),
        )
        there, fell = _along(turned, likelihood, own, some, step, exactly=exactly)
        state = state.put(moving, there)
        moving = moving[fell]
    return state


def _along(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    state: State,
    step: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    exactly: bool,
) -> tuple[State, torch.Tensor]:
    """As far along a step as the objective falls (Armijo's rule), each fit by itself; and which of them moved."""
    weights, biases, scores = step
    slope = (state.weight_slopes * weights).sum(dim=(1, 2)) + (state.bias_slopes * biases).sum(dim=1)
    length = torch.ones_like(slope)
    rounding = (1e-12 if exactly else 1e-6) * state.objectives.abs()
    while True:
        place = state.weights + length[:, None, None] * weights, state.biases + length[:, None] * biases
        tried = (
            look_exactly(turned, likelihood, penalties, *place, keep=True)
            if exactly
            else look(turned, likelihood, penalties, *place, state.scores + length[:, None, None] * scores)
        )
        fails = ~(tried.objectives <= state.objectives + 1e-4 * length * slope + rounding)
        if not bool(fails.any()):
            return tried, ~fails
        if bool((length < 1e-6).any()):  # rounding is all that is left
            stays = fails.nonzero().flatten()
            return tried.put(stays, state.at(stays)), ~fails
        length = torch.where(fails, length / 2, length)


def look(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    scores: torch.Tensor | None = None,
) -> State:
    """Objectives, slopes and bounds by products in the features' precision; `scores` where they are known."""
    fits, outputs, rank = weights.shape
    rows = turned.rows
    if scores is None:
        flat = weights.to(rows.dtype).reshape(fits * outputs, rank) @ rows.T
        scores = flat.view(fits, outputs, -1).double() + biases[:, :, None]
    probabilities = likelihood.probabilities(scores)
    residuals = likelihood.residuals(probabilities)
    slopes = (residuals.to(rows.dtype).reshape(fits * outputs, -1) @ rows).view(fits, outputs, rank).double()
    curvature = likelihood.own_curvature(probabilities).sum(dim=2)
    slopes = slopes + 2 * penalties[:, None, None] * weights
    bias_slopes = residuals.sum(dim=2)
    gaps = _bound(penalties, slopes, bias_slopes, curvature)
    losses = likelihood.losses(scores)
    objectives = losses + penalties * weights.square().sum(dim=(1, 2))
    return State(weights, biases, losses, objectives, slopes, bias_slopes, scores, probabilities, gaps)


def look_exactly(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    *,
    keep: bool = False,
) -> State:
    """The same in float64, from the features as they are; the probabilities are only there where they are kept."""
    fits, outputs, _ = weights.shape
    layers = (weights.reshape(fits * outputs, -1) @ turned.basis.T).view(fits, outputs, -1)
    flat = layers.view(fits * outputs, -1)
    back = torch.zeros_like(flat)
    losses, bias_slopes, curvature = torch.zeros_like(penalties), torch.zeros_like(biases), torch.zeros_like(biases)
    kept = [(biases.new_zeros(fits, outputs, 0),) * 2]
    for start, end in parts(len(turned.features)):
        some, features = likelihood.part(start, end), turned.centred(start, end)
        scores = (flat @ features.T).view(fits, outputs, -1) + biases[:, :, None]
        probabilities = some.probabilities(scores)
        residuals = some.residuals(probabilities)
        losses += some.losses(scores)
        back += residuals.reshape(fits * outputs, -1) @ features
        bias_slopes += residuals.sum(dim=2)
        curvature += some.own_curvature(probabilities).sum(dim=2)
        if keep:
            kept.append((scores, probabilities))
    # of the layers themselves: what holds for them needs no orthonormal directions
    slopes = back.view_as(layers) + 2 * penalties[:, None, None] * layers
    along = (slopes.view(fits * outputs, -1) @ turned.basis).view_as(weights)
    gaps = _bound(penalties, slopes, bias_slopes, curvature)
    objectives = losses + penalties * layers.square().sum(dim=(1, 2))
    all_scores, all_probabilities = (torch.cat(each, dim=2) for each in zip(*kept, strict=True))
    return State(weights, biases, losses, objectives, along, bias_slopes, all_scores, all_probabilities, gaps)


def _bound(
    penalties: torch.Tensor, slopes: torch.Tensor, bias_slopes: torch.Tensor, curvature: torch.Tensor
) -> torch.Tensor:
    """|slope|^2 / (4 penalty): the objective's curvature along weights is 2 x penalty or more.

    Along the biases, which no penalty bounds, it is estimated by the curvature that they have.
    """
    tiny = torch.finfo(torch.float64).tiny
    gaps = slopes.square().sum(dim=(1, 2)) / (4 * penalties)
    return gaps + (bias_slopes.square() / (2 * curvature).clamp(min=tiny)).sum(dim=1)
