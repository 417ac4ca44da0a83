"""Which test images a run got wrong, and how far off: for the pictures it keeps and for those who look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Misses:
    """Per test image (n,): how likely its own class was said to be, and which class that is about."""

    places: npt.NDArray[np.int64]
    """The images that are wrong, the least likely target first."""
    of_target: Floats
    label: npt.NDArray[np.int64]
    """Its class; where an image may have several labels, the label that is furthest off."""


def misses(targets: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], probabilities: Floats) -> Misses:
    """`targets` and `predicted` are (n,) or (n, labels), `probabilities` (n, classes).

    Where an image may have several labels, it is wrong with any label that is not as predicted; the label that is
    furthest off is then one of those.
    """
    rows = np.arange(len(targets))
    if targets.ndim == 1:
        of_target, label = probabilities[rows, targets], targets
        wrong = predicted != targets
    else:
        apart = predicted != targets
        wrong = apart.any(axis=1)
        right = np.where(targets == 1, probabilities, 1 - probabilities)
        # a threshold may leave a label right whose probability is further off than that of a wrong one
        label = np.where(apart | ~wrong[:, None], right, np.inf).argmin(axis=1)
        of_target = right[rows, label]
    return Misses(rows[wrong][np.argsort(of_target[wrong], kind="stable")], of_target, label)


@dataclass(frozen=True)
class Errors:
    """Per test image (n,): how far the number is off that is furthest off, in standard deviations; and which."""

    places: npt.NDArray[np.int64]
    """All images, the largest error first."""
    size: Floats
    number: npt.NDArray[np.int64]


def errors_of(targets: Floats, predicted: Floats, *, std: Sequence[Any] | None) -> Errors:
    """`targets` and `predicted` are (n, numbers); `std` is each one's spread, by default that of `targets`."""
    known = targets.std(axis=0) if std is None else np.asarray(std, dtype=np.float64)
    off = np.abs(predicted - targets) / np.where(known > 0, known, 1.0)
    size = off.max(axis=1)
    return Errors(np.argsort(-size, kind="stable"), size, off.argmax(axis=1))
