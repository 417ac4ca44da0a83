"""A linear probe, cross-validated, its penalty chosen inside the training folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import (
    CLASSES,
    Array,
    Examples,
    Places,
    Scored,
    checked,
    indicators,
    present,
)
from headstart.transferability.scores.measures import credit, explained

FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(-1, -7, -1))
"""Of the squared weights, per example, for features of mean squared norm 1: strongest first."""

Fits = Callable[[Array, Array, tuple[float, ...]], Iterator[tuple[Array, Array]]]
"""Features, targets and penalties to weights (width, outputs) and biases (outputs,), one pair per penalty."""
Loss = Callable[[Array, Array], float]
"""Of scores and targets."""


def linear_probe(examples: Examples) -> Scored:
    """Accuracy on held-out fifths of an l2-regularised logistic regression (as Kornblith et al. 2019).

    Each fifth is predicted by a fit to the other four, with the penalty, of six from 0.1 to 1e-6 per example,
    that had the lowest log loss on one of these four after a fit to the other three. Folds are dealt by the
    images' keys, class by class, so the order of the examples does not matter, copies of an image share a fold and
    all candidates have the same folds; without keys by a digest of the features.
    Labels have a regression each, and it is the mean of their accuracies; for numbers it is R^2 of
    ridge regression. Products of the logistic fits are in float32, and where they end is checked in float64.
    """
    checked(examples)
    if len(examples) < 2:
        return Scored(None, "there is one example: nothing can be held out")
    # 0.0 and -0.0 are the same
    rows = (row.astype(np.float64) + 0.0 for row in examples.features)
    digests = [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "big") for row in rows]
    numbers = digests if examples.keys is None else [int(key) for key in examples.keys]
    targets = examples.targets
    order = np.array(
        sorted(range(len(numbers)), key=lambda i: (numbers[i], *np.atleast_1d(targets[i]), digests[i]))
    )
    ordered = examples.take(order)
    classes, places = present(ordered.targets) if examples.task in CLASSES else (1, np.zeros(len(order), np.int64))
    sizes = np.bincount(places, minlength=classes)
    if sizes.max() < 2:
        return Scored(None, "each class has one example: nothing can be held out")
    dealt = [numbers[i] for i in order]
    copies = np.unique(np.array(dealt, dtype=np.uint64), return_inverse=True)[1].reshape(-1)
    folds = _folds(places, dealt, copies)
    targets = indicators(places, classes) if examples.task in CLASSES else ordered.targets.astype(np.float64)
    fits, loss = {
        "multilabel": (_labels, _log_loss_labels),
        "regression": (_ridge, _squares),
    }.get(examples.task, (_logistic, _log_loss))
    said = np.zeros(targets.shape)
    number = int(folds.max()) + 1
    if number < 2:
        return Scored(None, "all examples are copies of one: nothing can be held out")
    for fold in range(number):
        test, inner = folds == fold, folds == (fold + 1) % number
        rest = ~test & ~inner
        chosen = PENALTIES[0]
        if rest.any():
            losses = [
                loss(ordered.features[inner] @ weight + bias, targets[inner])
                for weight, bias in _scaled(fits, ordered.features[rest], targets[rest], PENALTIES)
            ]
            chosen = PENALTIES[int(np.argmin(losses))]
        # those before it are a quick way there
        way = PENALTIES[: PENALTIES.index(chosen) + 1]
        *_, (weight, bias) = _scaled(fits, ordered.features[~test], targets[~test], way)
        said[test] = ordered.features[test] @ weight + bias
    back = np.argsort(order)
    said, targets = said[back], targets[back]
    if examples.task in CLASSES:
        right = credit(said, places[back])
    elif examples.task == "multilabel":
        right = ((said > 0) == (targets > 0)).mean(axis=1)
    else:
        return explained(said, targets)
    return Scored(float(right.mean()), per_example=right)


def _folds(places: Places, numbers: list[int], keys: Places) -> Places:
    """A fold for each example, dealt within its class from where its first digest says; copies share one.

    At most `FOLDS`, and no more than the largest class has different examples.
    """
    different = np.array([len(np.unique(keys[places == place])) for place in range(int(places.max()) + 1)])
    count = int(min(FOLDS, max(2, different.max())))
    folds = np.empty(len(places), dtype=np.int64)
    seen: dict[int, int] = {}
    for place in range(len(different)):
        rows = np.flatnonzero(places == place)
        start = numbers[int(rows[0])] % count
        turn = np.unique(keys[rows], return_inverse=True)[1].reshape(-1)
        for row, number in zip(rows.tolist(), turn.tolist(), strict=True):
            # of another class as well, where labels disagree on one image
            folds[row] = seen.setdefault(int(keys[row]), (start + number) % count)
    return np.unique(folds, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _scaled(
    fits: Fits, features: NDArray[Any], targets: Array, penalties: tuple[float, ...]
) -> Iterator[tuple[Array, Array]]:
    """Fits to features less their mean, of mean squared norm 1; the weights are for features as they were."""
    mean = features.mean(axis=0, dtype=np.float64)
    plain = features.astype(np.float64) - mean
    scale = float(np.sqrt(np.square(plain).sum(axis=1).mean())) or 1.0
    plain /= scale
    for weight, bias in fits(plain, targets, tuple(penalty * len(plain) for penalty in penalties)):
        yield weight / scale, bias - mean @ weight / scale


def _logistic(features: Array, targets: Array, penalties: tuple[float, ...]) -> Iterator[tuple[Array, Array]]:
    """One softmax over the classes that there are examples of; the others get no probability."""
    import torch

    from headstart.features.solvers.likelihood import of_classes
    from headstart.features.solvers.logistic import logistic_path

    there = np.flatnonzero(targets.any(axis=0))
    classes = torch.from_numpy(targets[:, there].argmax(axis=1))
    weight, bias = np.zeros((features.shape[1], targets.shape[1])), np.full(targets.shape[1], -1e6)
    if len(there) == 1:
        bias[there] = 0.0
        yield from ((weight, bias) for _ in penalties)
        return
    likelihood = of_classes(classes, len(there), weights=None, smoothing=0.0)
    for fit in logistic_path(torch.from_numpy(features).float(), likelihood, penalties):
        weight[:, there], bias[there] = fit.weight.numpy().T, fit.bias.numpy()
        yield weight.copy(), bias.copy()


def _labels(features: Array, targets: Array, penalties: tuple[float, ...]) -> Iterator[tuple[Array, Array]]:
    """One sigmoid per label; a label that never changes is said always, or never."""
    import torch

    from headstart.features.solvers.likelihood import of_labels
    from headstart.features.solvers.logistic import logistic_path

    share = targets.mean(axis=0)
    vary = np.flatnonzero((share > 0) & (share < 1))
    weight, bias = np.zeros((features.shape[1], targets.shape[1])), np.where(share > 0.5, 30.0, -30.0)
    if not len(vary):
        yield from ((weight, bias) for _ in penalties)
        return
    likelihood = of_labels(torch.from_numpy(targets[:, vary]), weights=None, smoothing=0.0)
    for fit in logistic_path(torch.from_numpy(features).float(), likelihood, penalties):
        weight[:, vary], bias[vary] = fit.weight.numpy().T, fit.bias.numpy()
        yield weight.copy(), bias.copy()


def _ridge(features: Array, targets: Array, penalties: tuple[float, ...]) -> Iterator[tuple[Array, Array]]:
    """Least squares with the penalty, by the singular values of the centred features."""
    left, sigma, right = np.linalg.svd(features, full_matrices=False)
    middle = targets.mean(axis=0)
    along = left.T @ (targets - middle)
    for penalty in penalties:
        yield right.T @ (along * (sigma / (np.square(sigma) + penalty))[:, None]), middle


def _log_loss(scores: Array, targets: Array) -> float:
    """Of the classes that training had; one that it had not costs all fits alike."""
    from scipy.special import log_softmax

    return float(-(log_softmax(scores, axis=1) * targets).sum())


def _log_loss_labels(scores: Array, targets: Array) -> float:
    return float((np.logaddexp(0.0, scores) - targets * scores).sum())


def _squares(scores: Array, targets: Array) -> float:
    return float(np.square(scores - targets).sum())
