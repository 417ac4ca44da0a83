"""Intervals over repeats: Student's t, which covers 95 % at three seeds already (a bootstrap does not)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
NO_SPREAD = 1e-11
"""Standard deviations below this, relative to the mean, are rounding: the repeats are equal."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` repeats; `low` and `high` are its interval, None where one repeat says nothing of spread."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    units: int
    """How many of the repeats are independent: those of one split count as one."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; equal repeats have no width, and tell from six on."""
        if self.low is None or self.high is None or not (self.low > 0 or self.high < 0):
            return False
        return not self.is_equal or self.units >= SIGNS

    @property
    def is_equal(self) -> bool:
        """Whether the repeats are equal but for rounding."""
        width = 0.0 if self.low is None or self.high is None else self.high - self.low
        return self.units > 1 and width <= NO_SPREAD * max(1.0, abs(self.mean))


SIGNS = 6
"""So many equal signs are what the sign test needs for p <= 0.05: 2 / 2^6 = 0.031."""


def estimate(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Mean, standard deviation (n - 1) and 95 % interval of Student's t, mean ± t(0.975, n - 1) s / sqrt(n).

    On paired differences this is the paired t interval. `clusters` names the split of each value: where there
    are several splits, the values of one are averaged first and the interval is over splits, because repeats
    on one split are not independent of each other. Raises ValueError for no values.
    """
    if not len(values):
        raise ValueError("an estimate needs at least one value")
    sample = np.asarray(values, dtype=np.float64)
    std = float(sample.std(ddof=1)) if len(sample) > 1 else None
    units = averaged(sample, clusters)
    mean = float(units.mean())
    if len(units) == 1:
        return Estimate(len(sample), mean, std, None, None, 1)
    half = t_quantile((1 + LEVEL) / 2, len(units) - 1) * float(units.std(ddof=1)) / math.sqrt(len(units))
    return Estimate(len(sample), mean, std, mean - half, mean + half, len(units))


def averaged(sample: npt.NDArray[np.float64], clusters: Sequence[Hashable] | None) -> npt.NDArray[np.float64]:
    """Independent values: one per cluster where there are several clusters, else the sample itself."""
    if clusters is None or len(set(clusters)) < 2:
        return sample
    places: dict[Hashable, list[float]] = {}
    for value, cluster in zip(sample, clusters, strict=True):
        places.setdefault(cluster, []).append(float(value))
    return np.array([math.fsum(group) / len(group) for group in places.values()])


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit  # a fifth of the import time of scipy.stats

    return float(stdtrit(degrees, probability))
