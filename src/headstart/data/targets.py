"""Targets that are numbers: where they lie and how far they spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError

MOST_OFFSET = 1e5
"""Standard deviations that the mean may lie from 0: a model's float32 has seven digits for both."""


def target_statistics(
    targets: npt.NDArray[Any], names: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each number, of targets (n, numbers); 1 for the deviation of equal ones.

    Raises DataError for targets that are not finite, that are beyond what float32 holds, or that differ by less
    than it can tell apart.
    """
    largest = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
        constant = (targets == targets[:1]).all(axis=0)
        std = np.where(constant, 1.0, std)
    for i, name in enumerate(names):
        if not (np.abs(targets[:, i]) < largest).all() or not np.isfinite([mean[i], std[i]]).all():
            raise DataError(f"data: {name}: has targets that are no finite numbers, or over {largest:.3g}.")
        if not constant[i] and std[i] < max(abs(mean[i]) / MOST_OFFSET, float(np.finfo(np.float32).tiny)):
            raise DataError(
                f"data: {name}: its targets lie too close together (mean {mean[i]:.8g}, standard deviation "
                f"{std[i]:.3g}) for float32; subtract a constant, or use another unit."
            )
    return tuple(map(float, mean)), tuple(map(float, std))
