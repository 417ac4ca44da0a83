"""Heads that are solved instead of trained step by step: logistic regression, least squares, nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from headstart.config.schema.head import LinearHeadConfig
from headstart.facts import Task
from headstart.features.solvers import likelihood
from headstart.features.solvers.choice import Candidate, Examples, Judge, Solved, State, choose, refitted
from headstart.features.solvers.knn import bank_of
from headstart.features.solvers.likelihood import Likelihood
from headstart.features.solvers.logistic import LogisticFit, logistic_path
from headstart.features.solvers.outcomes import with_all_classes
from headstart.features.solvers.ridge import RidgeFit, ridge_path, wanted_scores

Seen = Callable[[int, int], None]
"""Candidates that are solved, of how many."""


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

    `train` and `val` are features and targets on one device; `weights` per class and `smoothing` are the loss's.
    With `refit`, `train` ends with the examples of `val`: a candidate is chosen by fits on those before, then
    fitted to all (SimCLR, appendix B.8). A pure function: the head itself stays as it is. Raises RunFailed where
    features are not finite.
    """
    judge = Judge(head.eval(), task, monitor, threshold)
    features, targets = train
    if config.solver == "knn":
        return _neighbors(config, judge, train, val, refit=refit)
    fitted = len(features) - len(val[0]) if refit else len(features)

    def candidates(features: torch.Tensor, targets: torch.Tensor, penalties: Sequence[float]) -> list[Candidate]:
        if config.solver == "lbfgs":
            return _logistic(head, features, targets, penalties, task, weights, smoothing, seen)
        return _ridge(head, features, targets, penalties, task)

    # of equal ones the strongest is kept
    penalties = sorted(config.penalties or (), reverse=True)
    found = candidates(features[:fitted], targets[:fitted], penalties)
    about = {"solver": config.solver, "candidates": len(penalties)} | _gaps(found)
    chosen, place = choose(found, val, judge, about=about)
    kept = {"penalty": penalties[place], "refitted": refit}
    if not refit:
        return Solved(chosen.state, chosen.rows, chosen.best, chosen.row, chosen.threshold, chosen.about | kept)
    return refitted(chosen, lambda: candidates(features, targets, [penalties[place]])[0], train, judge, about=kept)


def _gaps(found: Sequence[Candidate]) -> dict[str, Any]:
    """How exactly a path was solved, where that is not in closed form."""
    gaps = [candidate.says["gap"] for candidate in found if "gap" in candidate.says]
    return {"largest_gap": max(gaps)} if gaps else {}


def _logistic(
    head: nn.Module,
    features: torch.Tensor,
    targets: torch.Tensor,
    penalties: Sequence[float],
    task: Task,
    weights: torch.Tensor | None,
    smoothing: float,
    seen: Seen | None,
) -> list[Candidate]:
    outputs = _linear_of(head)[1].out_features
    whole = _likelihood(targets, outputs, task, weights, smoothing)

    def fit(likelihood: Likelihood) -> list[LogisticFit]:
        told = None if seen is None else lambda done: seen(done, len(penalties))
        return logistic_path(features, likelihood, penalties, seen=told)

    return [
        Candidate(
            _state(head, one.weight, one.bias),
            {
                "penalty": one.penalty,
                "train/loss": one.loss / whole.total,
                "train/objective": one.objective / len(features),
                "gap": one.gap / len(features),
            },
        )
        for one in with_all_classes(fit, features, whole)
    ]


def _likelihood(
    targets: torch.Tensor, outputs: int, task: Task, weights: torch.Tensor | None, smoothing: float
) -> Likelihood:
    if task == "multiclass":
        return likelihood.of_classes(targets.long(), outputs, weights=weights, smoothing=smoothing)
    if task == "binary":
        return likelihood.of_one(targets, weights=weights, smoothing=smoothing)
    if task == "multilabel":
        return likelihood.of_labels(targets, weights=weights, smoothing=smoothing)
    raise ValueError("a logistic regression is of classes")


def _ridge(
    head: nn.Module, features: torch.Tensor, targets: torch.Tensor, penalties: Sequence[float], task: Task
) -> list[Candidate]:
    name, layer = _linear_of(head)
    units = None
    if task == "regression":
        state = head.state_dict()
        after = str(int(name) + 1)
        units = state[f"{after}.mean"].double(), state[f"{after}.std"].double()
    wanted = wanted_scores(targets, layer.out_features, task, units=units)
    fits: list[RidgeFit] = ridge_path(features, wanted, penalties)
    return [
        Candidate(_state(head, one.weight, one.bias), {"penalty": one.penalty, "train/loss": one.loss})
        for one in fits
    ]


def _neighbors(config: LinearHeadConfig, judge: Judge, train: Examples, val: Examples, *, refit: bool) -> Solved:
    features, targets = train
    fitted = len(features) - len(val[0]) if refit else len(features)
    counts = sorted((count for count in config.neighbors or () if count <= fitted), reverse=True)
    temperature = float(config.temperature or math.nan)

    def candidate(count: int, end: int) -> Candidate:
        return Candidate(
            bank_of(features[:end], targets[:end], count=count, temperature=temperature), {"neighbors": count}
        )

    found = (candidate(count, fitted) for count in counts)
    about = {"solver": "knn", "candidates": len(counts)}
    chosen, place = choose(found, val, judge, about=about)
    kept = {"neighbors": counts[place], "refitted": refit}
    if not refit:
        return Solved(chosen.state, chosen.rows, chosen.best, chosen.row, chosen.threshold, chosen.about | kept)
    return refitted(chosen, lambda: candidate(counts[place], len(features)), train, judge, about=kept)


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
