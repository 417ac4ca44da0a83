"""k nearest neighbours, each example left out in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import CLASSES, Array, Examples, Scored, blocks, checked, indicators
from headstart.transferability.scores.examples import present as classes_of
from headstart.transferability.scores.measures import credit, explained

NEIGHBOURS = 20
TEMPERATURE = 0.07
SAME = 1e-9
"""Similarities this close are alike: the order of sums must not decide."""


def knn(examples: Examples) -> Scored:
    """Accuracy of the weighted vote of the 20 images with the most similar features (Wu et al. 2018, equation 6).

    Cosine similarity s, weight exp(s / 0.07), as DINO evaluates (Caron et al. 2021). An image is never its own
    neighbour; images as similar as the twentieth all vote, and where classes get the same votes each is right with
    its share, so that no order of images or classes matters. Labels are each voted on; for numbers it is R^2 of the
    neighbours' weighted mean, the mean over numbers. Features that are all 0 are alike to nothing (s = 0).
    """
    checked(examples)
    count = len(examples)
    if count < 2:
        return Scored(None, "there is one example: it has no neighbours")
    if examples.task in CLASSES:
        classes, places = classes_of(examples.targets)
        targets = indicators(places, classes)
    else:
        targets = np.asarray(examples.targets, dtype=np.float64)
    votes = _votes(examples.features, targets, min(NEIGHBOURS, count - 1))
    if examples.task in CLASSES:
        right = credit(votes, places)
    elif examples.task == "multilabel":
        # half of the votes decides; exactly half is half right
        says = np.where(np.abs(votes - 0.5) <= SAME, 0.5, votes > 0.5)
        right = (1 - np.abs(says - targets)).mean(axis=1)
    else:
        return explained(votes, targets)
    return Scored(float(right.mean()), per_example=right)


def _votes(features: NDArray[Any], targets: Array, neighbours: int) -> Array:
    """(n, outputs) weighted mean of the neighbours' targets."""
    count = len(features)
    whole = np.empty(features.shape)
    for rows in blocks(count, width=features.shape[1]):
        whole[rows] = features[rows]
        largest = np.abs(whole[rows]).max(axis=1, keepdims=True, initial=0.0)
        whole[rows] /= np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
        length = np.linalg.norm(whole[rows], axis=1, keepdims=True)
        whole[rows] /= np.where(length > 0, length, 1.0)
    found = np.empty((count, targets.shape[1]))
    for rows in blocks(count, width=count):
        alike = whole[rows] @ whole.T
        alike[np.arange(len(alike)), np.arange(rows.start, rows.stop)] = -np.inf
        last = np.partition(alike, count - neighbours, axis=1)[:, count - neighbours]
        near = alike >= last[:, None] - SAME
        row, other = np.nonzero(near)
        weights = np.exp((alike[row, other] - alike.max(axis=1)[row]) / TEMPERATURE)
        starts = np.concatenate([[0], np.cumsum(near.sum(axis=1))[:-1]])
        total = np.add.reduceat(weights, starts)
        for output in range(targets.shape[1]):
            found[rows, output] = np.add.reduceat(weights * targets[other, output], starts) / total
    return found
