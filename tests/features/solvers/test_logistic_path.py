"""The path of logistic regressions: scikit-learn's objectives, on features of every shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from headstart.errors import RunFailed
from headstart.features.solvers import newton
from headstart.features.solvers.likelihood import of_classes, of_labels, of_one
from headstart.features.solvers.logistic import LogisticFit, logistic_path

PENALTIES = [1e4, 1e2, 1.0, 1e-2, 1e-4]
NEAR = 1e-4
"""Of objectives per example."""


def clouds(
    count: int, width: int, classes: int, *, seed: int = 0, apart: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around a centre per class, in float32, and their classes."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=draw)
    targets[:classes] = torch.arange(classes)
    centres = torch.randn(classes, width, generator=draw) * apart
    return centres[targets] + torch.randn(count, width, generator=draw), targets


def collinear(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, features[:, :5], features.sum(dim=1, keepdim=True) * 2], dim=1)


def with_constants(features: torch.Tensor) -> torch.Tensor:
    return torch.cat([features, torch.full((len(features), 2), 3.0), torch.zeros(len(features), 1)], dim=1)


def of_all_sizes(features: torch.Tensor) -> torch.Tensor:
    return features * torch.logspace(-2, 2, features.shape[1]) + 100


CASES: dict[str, tuple[int, int, int, Callable[[torch.Tensor], torch.Tensor]]] = {
    "more images than features": (300, 20, 4, lambda x: x),
    "fewer images than features": (40, 120, 3, lambda x: x),
    "collinear": (200, 15, 3, collinear),
    "constant columns": (200, 10, 3, with_constants),
    "units of all sizes": (100, 6, 3, of_all_sizes),
    "all but told apart": (300, 20, 4, lambda x: x * 8),
    "nothing to learn": (200, 10, 3, lambda x: torch.randn(x.shape, generator=torch.Generator().manual_seed(5))),
}


def objective(
    features: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, penalty: float
) -> float:
    scores = features.double() @ weight.double().T + bias.double()
    return float(F.cross_entropy(scores, targets, reduction="sum") + penalty * weight.double().square().sum())


def sklearn_objective(features: torch.Tensor, targets: torch.Tensor, penalty: float) -> float:
    """Of scikit-learn's own fit; features are centred for it, which changes no objective and helps it to converge."""
    centred = features.double() - features.double().mean(dim=0)
    model = LogisticRegression(C=1 / (2 * penalty), tol=1e-9, max_iter=2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(centred.numpy(), targets.numpy())
    return objective(centred, targets, torch.tensor(model.coef_), torch.tensor(model.intercept_), penalty)


@pytest.mark.parametrize("case", CASES)
def test_objectives_are_scikit_learns(case: str) -> None:
    count, width, classes, change = CASES[case]
    features, targets = clouds(count, width, classes)
    features = change(features)
    fits = list(logistic_path(features, of_classes(targets, classes, weights=None, smoothing=0.0), PENALTIES))
    assert [fit.penalty for fit in fits] == PENALTIES
    for fit in fits:
        ours = objective(features, targets, fit.weight, fit.bias, fit.penalty)
        theirs = sklearn_objective(features, targets, fit.penalty)
        assert fit.objective == pytest.approx(ours, rel=1e-6, abs=1e-6)
        assert fit.converged
        assert fit.gap <= newton.TOLERANCE * count
        assert (ours - theirs) / count < NEAR
        # the bound holds: nobody is lower by more, scikit-learn included
        assert theirs >= ours - fit.gap - 1e-9 * max(1.0, ours)


def test_penalties_come_strongest_first_whatever_their_order() -> None:
    features, targets = clouds(100, 8, 3)
    likelihood = of_classes(targets, 3, weights=None, smoothing=0.0)
    found = list(logistic_path(features, likelihood, [1.0, 1e3, 1e-3]))
    assert [fit.penalty for fit in found] == [1e3, 1.0, 1e-3]
    alone = next(logistic_path(features, likelihood, [1.0]))
    assert alone.objective == pytest.approx(found[1].objective, abs=2 * newton.TOLERANCE * 100)


def test_weights_are_near_scikit_learns_too() -> None:
    features, targets = clouds(400, 10, 3)
    fit = next(logistic_path(features, of_classes(targets, 3, weights=None, smoothing=0.0), [5.0]))
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(features.double().numpy(), targets.numpy())
    assert np.abs(fit.weight.numpy() - model.coef_).max() < 0.01 * np.abs(model.coef_).max()


@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.2), ([1.0, 4.0, 0.5], 0.0), ([1.0, 4.0, 0.5], 0.2)])
def test_class_weights_and_smoothing_are_pytorchs(weights: list[float] | None, smoothing: float) -> None:
    features, targets = clouds(150, 6, 3, apart=0.5)
    weight = None if weights is None else torch.tensor(weights)
    penalty = 2.0
    fit = next(logistic_path(features, of_classes(targets, 3, weights=weight, smoothing=smoothing), [penalty]))

    def loss(matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        scores = features.double() @ matrix.T + bias
        own = None if weight is None else weight.double()
        each = F.cross_entropy(scores, targets, weight=own, label_smoothing=smoothing, reduction="none")
        return each.sum() + penalty * matrix.square().sum()

    assert fit.objective == pytest.approx(float(loss(fit.weight, fit.bias)), rel=1e-9)
    assert _slope(loss, fit) < 0.1


@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.0), ([3.0, 1.0], 0.1)])
def test_several_labels_are_one_regression_each(weights: list[float] | None, smoothing: float) -> None:
    features, _ = clouds(150, 6, 3)
    targets = (features[:, :2] + 0.5 * features[:, 2:4] > 0.3).float()
    weight = None if weights is None else torch.tensor(weights)
    fit = next(logistic_path(features, of_labels(targets, weights=weight, smoothing=smoothing), [2.0]))

    def loss(matrix: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        scores = features.double() @ matrix.T + bias
        wanted = targets.double() * (1 - smoothing) + smoothing / 2
        own = None if weight is None else weight.double()
        each = F.binary_cross_entropy_with_logits(scores, wanted, pos_weight=own, reduction="sum")
        return each + 2.0 * matrix.square().sum()

    assert fit.objective == pytest.approx(float(loss(fit.weight, fit.bias)), rel=1e-9)
    assert _slope(loss, fit) < 0.1
    if weights is None:
        for label in range(2):
            model = LogisticRegression(C=0.25, tol=1e-10).fit(features.double().numpy(), targets[:, label].numpy())
            assert fit.weight[label].numpy() == pytest.approx(model.coef_[0], abs=2e-2)


def test_two_classes_with_one_output() -> None:
    features, targets = clouds(150, 6, 2)
    fit = next(logistic_path(features, of_one(targets, weights=torch.tensor([1.0, 3.0]), smoothing=0.0), [2.0]))
    model = LogisticRegression(C=0.25, class_weight={0: 1.0, 1: 3.0}, tol=1e-10)
    model.fit(features.double().numpy(), targets.numpy())
    assert fit.weight.shape == (1, 6)
    assert fit.weight[0].numpy() == pytest.approx(model.coef_[0], abs=1e-2)
    assert float(fit.bias[0]) == pytest.approx(model.intercept_[0], abs=1e-2)


def _slope(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], fit: LogisticFit) -> float:
    """The largest slope of an objective at a fit: 0 at its lowest."""
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    loss(weight, bias).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert bias.grad is not None
    return max(float(weight.grad.abs().max()), float(bias.grad.abs().max()))


def test_float32_is_checked_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the quick slopes mislead, those in float64 go on until the bound holds there."""
    features, targets = clouds(200, 12, 3)
    likelihood = of_classes(targets, 3, weights=None, smoothing=0.0)
    honest, look = list(logistic_path(features, likelihood, PENALTIES)), newton.look
    calls: list[bool] = []

    def mislead(*args: object) -> newton.State:
        calls.append(True)
        state = look(*args)  # type: ignore[arg-type]
        return newton.State(*(getattr(state, n) for n in newton._NAMES[:-1]), gaps=state.gaps * 1e-6)

    monkeypatch.setattr("headstart.features.solvers.logistic.look", mislead)
    monkeypatch.setattr(newton, "look", mislead)
    for fit, before in zip(logistic_path(features, likelihood, PENALTIES), honest, strict=True):
        assert fit.converged
        assert fit.objective == pytest.approx(before.objective, abs=2 * newton.TOLERANCE * 200)
    assert calls


def test_features_that_say_nothing_leave_the_shares_of_the_classes() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    fit = next(logistic_path(torch.ones(4, 3), of_classes(targets, 2, weights=None, smoothing=0.0), [1.0]))
    assert fit.bias.softmax(dim=0).tolist() == pytest.approx([0.75, 0.25])
    assert not fit.weight.any()


def test_what_is_not_finite_is_refused() -> None:
    features, targets = clouds(20, 3, 2)
    features[3, 1] = float("nan")
    with pytest.raises(RunFailed, match="not all finite"):
        next(logistic_path(features, of_classes(targets, 2, weights=None, smoothing=0.0), [1.0]))
