"""Heads that are solved instead of trained step by step: logistic regression, least squares, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

from headstart.config.schema.head import LinearHeadConfig
from headstart.facts import Task
from headstart.features.solvers.choice import (
    GAP,
    Candidate,
    Examples,
    Judge,
    Seen,
    Solved,
    State,
    choose,
    refitted,
)
from headstart.features.solvers.knn import bank_of
from headstart.features.solvers.likelihood import Likelihood, of_classes, of_labels, of_one
from headstart.features.solvers.logistic import logistic_path
from headstart.features.solvers.outcomes import with_all_classes
from headstart.features.solvers.ridge import ridge_path, wanted_scores

Fit = Callable[[torch.Tensor, torch.Tensor, Sequence[Any]], Iterator[Candidate]]
"""Features, targets and penalties or numbers of neighbours -> a candidate for each of these."""


def solve(
    config: LinearHeadConfig,
    head: nn.Module,
    *,
    train: Examples,
    val: Examples,
    task: Task,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
    monitor: str,
    threshold: float | Literal["validation"] | None = None,
    refit: bool = False,
    seen: Seen | None = None,
) -> Solved:
    """Solve `head` for every candidate of a resolved `config`, and keep the one that validation chooses.

    `train` and `val` are features and targets on one device; `weights` per class and `smoothing` are the loss's. Of
    equal candidates that with the strongest penalty, or the most neighbours, is kept. With `refit`, `train` ends
    with the examples of `val`: a candidate is chosen by fits on those before, then fitted to all (SimCLR, appendix
    B.8). A pure function: the head itself keeps its numbers. Raises RunFailed where features are not finite.
    """
    judge = Judge(head.eval(), task, monitor, threshold)
    features, targets = train
    fitted = len(features) - len(val[0]) if refit else len(features)
    fit, key = _fit_of(config, head, task, weights, smoothing)
    given: Sequence[float] = (config.neighbors if config.solver == "knn" else config.penalties) or ()
    strengths = sorted(given, reverse=True)
    if config.solver == "knn":
        strengths = [count for count in strengths if count <= fitted] or [fitted]
    about = {"solver": config.solver, "candidates": len(strengths)}
    found = fit(features[:fitted], targets[:fitted], strengths)
    chosen, place = choose(found, val, judge, about=about, seen=seen)
    best = strengths[place]
    more = {key: best, "refitted": refit}
    again = (lambda: next(fit(features, targets, [best]))) if refit else None
    return refitted(chosen, again, train, judge, about=more)


def _fit_of(
    config: LinearHeadConfig, head: nn.Module, task: Task, weights: torch.Tensor | None, smoothing: float
) -> tuple[Fit, str]:
    """How a head is fitted, and what its candidates differ in."""
    if config.solver == "lbfgs":
        return lambda *given: _logistic(head, *given, task=task, weights=weights, smoothing=smoothing), "penalty"
    if config.solver == "ridge":
        return lambda *given: _ridge(head, *given, task=task), "penalty"
    if config.solver == "knn":
        return lambda *given: _neighbors(*given, temperature=config.temperature or 1.0), "neighbors"
    raise ValueError(f"{config.solver} is no solver of this kind")


def _logistic(
    head: nn.Module,
    features: torch.Tensor,
    targets: torch.Tensor,
    penalties: Sequence[float],
    *,
    task: Task,
    weights: torch.Tensor | None,
    smoothing: float,
) -> Iterator[Candidate]:
    outputs = _linear_of(head)[1].out_features
    whole = _likelihood(targets, outputs, task, weights, smoothing)
    for one in with_all_classes(lambda some: logistic_path(features, some, penalties), features, whole):
        says = {
            "penalty": one.penalty,
            "train/loss": one.loss / whole.total,
            "train/objective": one.objective / len(features),
            GAP: one.gap / len(features),
        }
        yield Candidate(_state(head, one.weight, one.bias), says)


def _likelihood(
    targets: torch.Tensor, outputs: int, task: Task, weights: torch.Tensor | None, smoothing: float
) -> Likelihood:
    if task == "multiclass":
        return of_classes(targets.long(), outputs, weights=weights, smoothing=smoothing)
    if task == "binary":
        return of_one(targets, weights=weights, smoothing=smoothing)
    if task == "multilabel":
        return of_labels(targets, weights=weights, smoothing=smoothing)
    raise ValueError("a logistic regression is of classes")


def _ridge(
    head: nn.Module, features: torch.Tensor, targets: torch.Tensor, penalties: Sequence[float], *, task: Task
) -> Iterator[Candidate]:
    name, layer = _linear_of(head)
    units = None
    if task == "regression":
        state, after = head.state_dict(), int(name) + 1
        units = state[f"{after}.mean"].double(), state[f"{after}.std"].double()
    wanted = wanted_scores(targets, layer.out_features, task, units=units)
    for one in ridge_path(features, wanted, penalties):
        yield Candidate(_state(head, one.weight, one.bias), {"penalty": one.penalty, "train/loss": one.loss})


def _neighbors(
    features: torch.Tensor, targets: torch.Tensor, counts: Sequence[int], *, temperature: float
) -> Iterator[Candidate]:
    for count in counts:
        yield Candidate(bank_of(features, targets, count=count, temperature=temperature), {"neighbors": count})


def _linear_of(head: nn.Module) -> tuple[str, nn.Linear]:
    """The one linear layer of a head, and its name."""
    ((name, layer),) = ((name, module) for name, module in head.named_modules() if isinstance(module, nn.Linear))
    return name, layer


def _state(head: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> State:
    """A head's state with other numbers in its linear layer."""
    name, layer = _linear_of(head)
    state = {key: value.detach().clone() for key, value in head.state_dict().items()}
    for key, value in (("weight", weight), ("bias", bias)):
        state[f"{name}.{key}"] = value.to(layer.weight)
    return state
