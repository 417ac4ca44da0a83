"""Intervals over repeats: Student's t, which covers 95 % at three seeds already (a bootstrap does not)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` repeats; `low` and `high` are its interval, None where one repeat says nothing of spread."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation (n - 1) and 95 % interval of Student's t, mean ± t(0.975, n - 1) s / sqrt(n).

    On paired differences this is the paired t interval. Raises ValueError for no values.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    sample = np.asarray(values, dtype=np.float64)
    n, mean = len(sample), float(sample.mean())
    if n == 1:
        return Estimate(1, mean, None, None, None)
    std = float(sample.std(ddof=1))
    half = t_quantile((1 + LEVEL) / 2, n - 1) * std / math.sqrt(n)
    return Estimate(n, mean, std, mean - half, mean + half)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit  # a fifth of the import time of scipy.stats

    return float(stdtrit(degrees, probability))
