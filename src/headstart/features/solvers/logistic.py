"""The l2-regularised logistic regression for a whole path of penalties, each from where the last ones ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from headstart.features.solvers.coordinates import Coordinates, coordinates_of, parts
from headstart.features.solvers.likelihood import Likelihood
from headstart.features.solvers.newton import State, newton_step

TOLERANCE = 1e-5
"""Objective per example that a fit may be above its lowest; a bound of it is computed in float64."""
SHARE = 0.05
"""The same as a share of the objective itself, where that is smaller: weak penalties on separable classes."""
MOST_STEPS = 60
COLUMNS = 40
"""Outputs of neighbouring penalties that are solved side by side: so many cost little more than a few."""


@dataclass(frozen=True)
class LogisticFit:
    """The lowest sum of losses + penalty x squared norm of the weights; the biases are not penalised."""

    penalty: float
    weight: torch.Tensor
    """(outputs, width) float64."""
    bias: torch.Tensor
    """(outputs,) float64."""
    loss: float
    """Sum of the losses of the examples."""
    objective: float
    """Loss and penalty."""
    gap: float
    """A bound of how far the objective lies above the lowest."""
    steps: int
    """Newton steps that it took."""
    converged: bool


def logistic_path(
    features: torch.Tensor,
    likelihood: Likelihood,
    penalties: Sequence[float],
    *,
    seen: Callable[[int], None] | None = None,
) -> list[LogisticFit]:
    """Fit once for every penalty, in their order; `seen` is told how many are done.

    Minimises, over weights (outputs, width) and biases, the sum over examples of the loss, plus penalty x the sum
    of squared weights: Kornblith's scaling (Kornblith et al. 2019), scikit-learn's with C = 1 / (2 x penalty). The
    strongest penalty comes first, and the next ones start on the line through the last two solutions, as functions
    of the penalty's logarithm. Each is found by Newton's method, its steps by conjugate gradients with products in
    the features' precision; how far an objective is above its lowest is bounded by |slope|^2 / (4 penalty), from
    slopes in float64 of the features as they are (a sum with a curvature of at least 2 x penalty everywhere).
    """
    turned = coordinates_of(features)
    order = sorted(range(len(penalties)), key=lambda i: -penalties[i])
    outputs = len(likelihood.positive)
    together = max(1, COLUMNS // outputs)
    found: dict[int, LogisticFit] = {}
    path: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    for block in _blocks(order, first=2, size=together):
        chosen = torch.tensor([penalties[i] for i in block], dtype=torch.float64, device=features.device)
        weights, biases = _start(path, chosen, likelihood, rank=turned.rank)
        state = _solve(turned, likelihood, chosen, weights, biases)
        for at, index in enumerate(block):
            path.append((math.log(penalties[index]), state.weights[at], state.biases[at]))
            weight, bias = turned.layer(state.weights[at], state.biases[at])
            found[index] = LogisticFit(
                penalty=penalties[index],
                weight=weight,
                bias=bias,
                loss=float(state.losses[at]),
                objective=float(state.objectives[at]),
                gap=float(state.gaps[at]),
                steps=int(state.steps[at]),
                converged=bool(state.converged[at]),
            )
        path = path[-2:]
        if seen is not None:
            seen(len(found))
    return [found[i] for i in range(len(penalties))]


def _blocks(order: Sequence[int], *, first: int, size: int) -> Iterator[Sequence[int]]:
    """One by one until there is a line to go along, then several at once."""
    singles = first if size > 1 else 0
    yield from ([i] for i in order[:singles])
    yield from (order[i : i + size] for i in range(singles, len(order), size))


def _start(
    path: Sequence[tuple[float, torch.Tensor, torch.Tensor]],
    penalties: torch.Tensor,
    likelihood: Likelihood,
    *,
    rank: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the fits begin: weights (fits, outputs, rank) and biases (fits, outputs)."""
    fits, outputs = len(penalties), len(likelihood.positive)
    if not path:
        whole = likelihood.mass if likelihood.kind == "sigmoid" else likelihood.mass[None]
        share = likelihood.positive.sum(dim=1) / whole.sum(dim=1)
        bias = share.log() if likelihood.kind == "softmax" else share.logit()
        return share.new_zeros(fits, outputs, rank), bias.repeat(fits, 1)
    if len(path) == 1 or path[0][0] == path[1][0]:
        _, weights, bias = path[-1]
        return weights.repeat(fits, 1, 1), bias.repeat(fits, 1)
    (one, weights_one, bias_one), (two, weights_two, bias_two) = path
    along = ((penalties.log() - two) / (two - one)).clamp(max=float(fits))
    return (
        weights_two + along[:, None, None] * (weights_two - weights_one),
        bias_two + along[:, None] * (bias_two - bias_one),
    )


def _solve(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
) -> State:
    """Newton steps, in the features' precision until the bound holds there, then where float64 says it does not."""
    state = _look(turned, likelihood, penalties, weights, biases, turned.rows)
    in_float64 = False
    steps = torch.zeros_like(penalties)
    for _ in range(MOST_STEPS):
        done = state.gaps <= _allowed(state.objectives, turned)
        if bool(done.all()):
            if in_float64:
                break
            state = _look(turned, likelihood, penalties, state.weights, state.biases, None)
            in_float64 = True
            continue
        moving = (~done).nonzero().squeeze(1)
        some = state.at(moving)
        step = newton_step(turned, likelihood, penalties[moving], some, allowed=_allowed(some.objectives, turned))

        rows = None if in_float64 else turned.rows
        look = partial(_look, turned, likelihood, penalties[moving], rows=rows)
        state = state.put(moving, _along(some, step, look))
        steps[moving] += 1
    if not in_float64:
        state = _look(turned, likelihood, penalties, state.weights, state.biases, None)
    return state.ended(steps, state.gaps <= _allowed(state.objectives, turned))


def _allowed(objectives: torch.Tensor, turned: Coordinates) -> torch.Tensor:
    """What the bound may be."""
    return torch.minimum(torch.full_like(objectives, TOLERANCE * len(turned.rows)), SHARE * objectives)


def _along(
    state: State, step: tuple[torch.Tensor, torch.Tensor], look: Callable[[torch.Tensor, torch.Tensor], State]
) -> State:
    """As far along a step as the objective falls (Armijo's rule), each fit by itself."""
    weights, biases = step
    slope = (state.weight_slopes * weights).sum(dim=(1, 2)) + (state.bias_slopes * biases).sum(dim=1)
    length = torch.ones_like(slope)
    rounding = 1e-6 * state.objectives.abs()
    while True:
        tried = look(state.weights + length[:, None, None] * weights, state.biases + length[:, None] * biases)
        fails = ~(tried.objectives <= state.objectives + 1e-4 * length * slope + rounding)
        if not bool((fails & (length > 1e-6)).any()):
            return tried
        length = torch.where(fails, length / 2, length)


def _look(
    turned: Coordinates,
    likelihood: Likelihood,
    penalties: torch.Tensor,
    weights: torch.Tensor,
    biases: torch.Tensor,
    rows: torch.Tensor | None,
) -> State:
    """Objectives, slopes and bounds: from `rows`, or without them in float64 from the features as they are."""
    fits, outputs, rank = weights.shape
    if rows is not None:
        flat = weights.to(rows.dtype).reshape(fits * outputs, rank) @ rows.T
        scores = flat.view(fits, outputs, -1).double() + biases[:, :, None]
        probabilities = likelihood.probabilities(scores)
        residuals = likelihood.residuals(probabilities)
        losses = likelihood.losses(scores)
        slopes = (residuals.to(rows.dtype).reshape(fits * outputs, -1) @ rows).view(fits, outputs, rank).double()
        bias_slopes = residuals.sum(dim=2)
    else:
        kept = []
        losses, slopes, bias_slopes = (
            torch.zeros_like(penalties),
            torch.zeros_like(weights),
            torch.zeros_like(biases),
        )
        for start, end in parts(len(turned.features)):
            some = likelihood.part(start, end)
            scores = turned.scores(weights, biases, start, end)
            probabilities = some.probabilities(scores)
            residuals = some.residuals(probabilities)
            losses += some.losses(scores)
            slopes += turned.slopes(residuals, start, end)
            bias_slopes += residuals.sum(dim=2)
            kept.append(probabilities)
        probabilities = torch.cat(kept, dim=2)
    slopes = slopes + 2 * penalties[:, None, None] * weights
    curvature = likelihood.own_curvature(probabilities).sum(dim=2)
    gaps = (slopes**2).sum(dim=(1, 2)) / (4 * penalties)
    gaps = gaps + (bias_slopes**2 / (2 * curvature + 1e-9)).sum(dim=1)
    objectives = losses + penalties * (weights**2).sum(dim=(1, 2))
    return State(weights, biases, losses, objectives, slopes, bias_slopes, probabilities, gaps)
