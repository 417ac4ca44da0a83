"""Which test images a run got wrong, and how far off: for the pictures it keeps and for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Misses:
    """Per test image (n,): how likely its own class was said to be, and which class that is about."""

    places: npt.NDArray[np.int64]
    """The images that are wrong, the least likely target first."""
    of_target: npt.NDArray[np.float64]
    label: npt.NDArray[np.int64]
    """Its class; where an image may have several labels, the label that is furthest off."""


def misses(targets: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> Misses:
    """`targets` is (n,) or (n, labels), `probabilities` (n, classes).

    Where an image may have several labels, it is wrong with any label on the wrong side of 0.5.
    """
    rows = np.arange(len(targets))
    if targets.ndim == 1:
        of_target, label = probabilities[rows, targets], targets
        wrong = probabilities.argmax(axis=1) != targets
    else:
        right = np.where(targets == 1, probabilities, 1 - probabilities)
        of_target, label = right.min(axis=1), right.argmin(axis=1)
        wrong = ((probabilities > 0.5) != (targets == 1)).any(axis=1)
    return Misses(rows[wrong][np.argsort(of_target[wrong], kind="stable")], of_target, label)
