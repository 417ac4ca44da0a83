"""The l2-regularised logistic regression for a whole path of penalties, each from where the last ones ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from headstart.features.solvers.coordinates import Coordinates, coordinates_of
from headstart.features.solvers.likelihood import Likelihood
from headstart.features.solvers.newton import allowed, descend, look, look_exactly

COLUMNS = 16
"""Outputs of neighbouring penalties that are solved side by side: so many cost little more than a few."""
CHECKED = 512
"""Outputs whose bounds are computed in float64 at once."""


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
    converged: bool


Place = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Weights (outputs, rank), biases (outputs,) and scores (outputs, n) of one fit; or (fits, ...) of several."""


@dataclass(frozen=True)
class _Line:
    """The last two solutions, as functions of the penalty's logarithm; scores lie on it as the weights do."""

    at: tuple[float, ...] = ()
    places: tuple[Place, ...] = ()

    def with_(self, penalty: float, place: Place) -> _Line:
        """With one more solution, and without the oldest."""
        return _Line((*self.at, math.log(penalty))[-2:], (*self.places, place)[-2:])

    def on(self, penalties: torch.Tensor) -> Place:
        """Where fits begin that go on along the line, or from its only point."""
        fits, last = len(penalties), self.places[-1]
        if len(self.at) == 1 or self.at[0] == self.at[1]:
            along, step = torch.zeros_like(penalties), last
        else:
            along = (penalties.log() - self.at[1]) / (self.at[1] - self.at[0])
            along = along.clamp(max=float(fits))  # a leap would end far from anything
            step = tuple(b - a for a, b in zip(*self.places, strict=True))
        weights, biases, scores = (
            end + along.view(-1, *[1] * end.ndim) * more for end, more in zip(last, step, strict=True)
        )
        return weights, biases, scores


def logistic_path(
    features: torch.Tensor, likelihood: Likelihood, penalties: Sequence[float]
) -> Iterator[LogisticFit]:
    """Fit once for every penalty, from the strongest to the weakest.

    Minimises, over weights (outputs, width) and biases, the sum over examples of the loss, plus penalty x the sum
    of squared weights: Kornblith's scaling (Kornblith et al. 2019), scikit-learn's with C = 1 / (2 x penalty). Each
    fit starts on the line through the last two solutions, as functions of the penalty's logarithm, and goes on by
    Newton's method, its steps by conjugate gradients with products in the features' precision. Then how far each
    objective is above its lowest is bounded in float64, on the features as they are, and what is above `TOLERANCE`
    goes on with slopes in float64.
    """
    turned = coordinates_of(features, exact=False)
    order = sorted(penalties, reverse=True)
    outputs = len(likelihood.positive)
    line = _Line()
    waiting: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    for block in _blocks(order, size=max(1, COLUMNS // outputs)):
        chosen = torch.tensor(block, dtype=torch.float64, device=features.device)
        start = line.on(chosen) if line.places else _beginning(turned, likelihood)
        state = descend(turned, likelihood, chosen, look(turned, likelihood, chosen, *start))
        for penalty, *place in zip(block, state.weights, state.biases, state.scores, strict=True):
            line = line.with_(penalty, (place[0], place[1], place[2]))
            waiting.append((penalty, place[0], place[1]))
        if len(waiting) * outputs >= CHECKED:
            yield from _checked(turned, likelihood, waiting)
            waiting = []
    yield from _checked(turned, likelihood, waiting)


def _blocks(order: Sequence[float], *, size: int) -> Iterator[Sequence[float]]:
    """One by one until there is a line to go along, then several at once."""
    singles = 2 if size > 1 else 0
    yield from ([penalty] for penalty in order[:singles])
    yield from (order[i : i + size] for i in range(singles, len(order), size))


def _beginning(turned: Coordinates, likelihood: Likelihood) -> Place:
    """Weights of 0, and the biases that are best with them."""
    whole = likelihood.mass if likelihood.kind == "sigmoid" else likelihood.mass[None]
    share = likelihood.positive.sum(dim=1) / whole.sum(dim=1)
    bias = share.log() if likelihood.kind == "softmax" else share.logit()
    scores = bias[:, None].expand(-1, len(turned.rows))
    return share.new_zeros(1, len(share), turned.rank), bias[None], scores[None]


def _checked(
    turned: Coordinates, likelihood: Likelihood, waiting: Sequence[tuple[float, torch.Tensor, torch.Tensor]]
) -> Iterator[LogisticFit]:
    """Fits with their bounds in float64; what is not near enough by these goes on."""
    if not waiting:
        return
    penalties = torch.tensor([penalty for penalty, _, _ in waiting], dtype=torch.float64, device=turned.mean.device)
    weights, biases = torch.stack([w for _, w, _ in waiting]), torch.stack([b for _, _, b in waiting])
    state = look_exactly(turned, likelihood, penalties, weights, biases)
    for i in (state.gaps > allowed(state.objectives, turned)).nonzero().flatten().tolist():
        fit = torch.tensor([i], device=penalties.device)
        single = look_exactly(turned, likelihood, penalties[fit], weights[fit], biases[fit], keep=True)
        single = descend(turned, likelihood, penalties[fit], single, exactly=True)
        state = state.put(fit, single.without_examples())
    near = state.gaps <= allowed(state.objectives, turned)
    for i, penalty in enumerate(penalties.tolist()):
        weight, bias = turned.layer(state.weights[i], state.biases[i])
        yield LogisticFit(
            penalty=penalty,
            weight=weight,
            bias=bias,
            loss=float(state.losses[i]),
            objective=float(state.objectives[i]),
            gap=float(state.gaps[i]),
            converged=bool(near[i]),
        )
