"""How right predictions are, example by example, so that no order of classes or examples matters."""

from __future__ import annotations

import numpy as np

from headstart.transferability.scores.examples import Array, Places, Scored

SAME = 1e-9


def credit(said: Array, places: Places) -> Array:
    """(n,) 1 where the example's own class is said the loudest, its share where several are, else 0."""
    loudest = said >= said.max(axis=1, keepdims=True) - SAME
    return loudest[np.arange(len(places)), places] / loudest.sum(axis=1)


def explained(said: Array, targets: Array) -> Scored:
    """R^2, the mean over those numbers that vary: 1 - squared error / squared distance from the mean of all.

    Per example it is 1 - the squared error over the variance, whose mean is R^2.
    """
    spread = targets.var(axis=0)
    some = spread > (1e-12 * np.abs(targets).max(axis=0)) ** 2
    if not some.any():
        return Scored(None, "the targets do not differ")
    each: Array = 1 - (np.square(said - targets)[:, some] / spread[some]).mean(axis=1)
    note = "" if some.all() else f"without {int((~some).sum())} outputs that do not differ"
    return Scored(float(each.mean()), note, each)
