"""TransRate: how many bits the features take, less what they take within the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import Array, Examples, Places, Scored, blocks, checked, present
from headstart.transferability.scores.spectrum import ROUNDED

DISTORTION = 1e-4
CROWDED = (0.75, 0.9)
"""With more directions per example than the first, and more examples per feature than the second, what one example
gives says nothing of other samples."""


def transrate(examples: Examples) -> Scored:
    """R(F) - mean over classes of R(F_c), F centred as a whole (Huang et al. 2022, equation 7 as its code has it).

    R(F) = 1/2 logdet(I + F'F / (n eps)) with eps = 1e-4, in nats; classes count alike, and their blocks are not
    centred again. It grows with the scale of the features.
    """
    checked(examples)
    features = examples.features
    count, places = present(examples.targets)
    parts = blocks(len(features), width=features.shape[1])
    mean = np.sum([features[rows].sum(axis=0, dtype=np.float64) for rows in parts], axis=0) / len(features)
    whole = _gram(features, mean)
    everything = _rate(whole / DISTORTION)
    grams = [_gram(features[places == place], mean) for place in range(count)]
    within = np.array([_rate(gram / DISTORTION) for gram in grams])
    value = everything - float(within.mean())
    if count < 2 or len(features) < 3:
        return Scored(value, "no interval: too few images or classes", spread=False)
    try:
        rest = _without_each(features, mean, places, whole, grams, within)
    except np.linalg.LinAlgError:  # features so large and collinear that the 1 is lost in rounding
        rest = None
    if rest is None or not np.isfinite(rest).all():
        note = "no interval: about as many images as features, or features of a scale where eps is nothing"
        return Scored(value, note, spread=False)
    each = -(len(features) - 1) * rest
    return Scored(value, per_example=value + each - each.mean())


def _gram(features: NDArray[Any], mean: Array) -> Array:
    """F'F / n of features (n, d) less `mean`, or FF' / n where that is smaller."""
    count, width = features.shape
    if width <= count:
        gram = np.zeros((width, width))
        for rows in blocks(count, width=width):
            some = features[rows].astype(np.float64) - mean
            gram += some.T @ some
    else:
        some = features.astype(np.float64) - mean
        gram = some @ some.T
    return gram / count


def _rate(gram: Array) -> float:
    """1/2 logdet(I + gram)."""
    try:
        # positive definite, so its triangular factor has it all
        return float(np.log(np.diag(np.linalg.cholesky(gram + np.eye(len(gram))))).sum())
    except np.linalg.LinAlgError:
        return float(np.log1p(np.linalg.eigvalsh(gram).clip(min=0.0)).sum() / 2)


@dataclass(frozen=True)
class _Without:
    """A block of features without each of its n examples in turn, about the same mean."""

    rates: Array
    """(n,) coding rate."""
    slopes: Array
    """(n,) x' A^-1 m, of the example that is missing, and of A = eps I + F'F / n and the mean m of the others."""
    leverages: Array
    """(n,) x' (n A)^-1 x with the example in A, eps (n - 1) / n."""


def _without_each(
    features: NDArray[Any], mean: Array, places: Places, whole: Array, grams: list[Array], within: Array
) -> Array | None:
    """(n,) the score without each example; None where nothing follows for other samples.

    Without x the mean of all moves by -x / (n - 1). That is exact in R(F), as F'F is less by n / (n - 1) xx', and
    to first order in R(F_c), which gains x' A_c^-1 m_c / (n - 1), with A_c = eps I + F_c'F_c / n_c and the mean m_c
    of the class. A class of one example is gone without it.
    """
    count, width = features.shape
    every = _block(features, mean, whole, centred=True)
    directions = every.leverages.sum()
    # where all is interpolated leverages are all near 1, and how many directions there are is not seen in them
    beyond = count <= CROWDED[1] * width and directions > 0.99 * (count - 1)
    if directions > CROWDED[0] * count and not beyond:
        return None
    total, steady = np.zeros(count), np.zeros(width)
    for place, gram in enumerate(grams):
        rows = np.flatnonzero(places == place)
        some = features[rows]
        direction = _towards_mean(some, mean, gram)
        steady += direction
        if len(rows) == 1:
            own = np.zeros(1)
        else:
            block = _block(some, mean, gram, centred=False)
            own = block.rates + block.slopes / (count - 1)
        total[rows] = own - within[place] - (some @ direction - mean @ direction) / (count - 1)
    for part in blocks(count, width=width):
        total[part] += within.sum() + (features[part] @ steady - mean @ steady) / (count - 1)
    sizes = np.bincount(places, minlength=len(grams))
    left: Array = every.rates - total / np.where(sizes[places] > 1, len(grams), len(grams) - 1)
    return left


def _towards_mean(features: NDArray[Any], mean: Array, gram: Array) -> Array:
    """(d,) A^-1 m, with m the mean of the features less `mean`, and A = eps I + F'F / n."""
    count, width = features.shape
    inner = gram + DISTORTION * np.eye(len(gram))
    if width <= count:
        middle = features.mean(axis=0, dtype=np.float64) - mean
        return np.asarray(np.linalg.solve(inner, middle), dtype=np.float64)
    weights = np.linalg.solve(inner, np.ones(count)) / count
    return np.asarray(weights @ features - weights.sum() * mean, dtype=np.float64)


def _block(features: NDArray[Any], mean: Array, gram: Array, *, centred: bool) -> _Without:
    """By the formula of Sherman and Morrison; a block that is `centred` is centred anew. NaN for rounding."""
    count, width = features.shape
    small = DISTORTION * (count - 1) / count
    more = count / (count - 1)
    inverse = gram + small * np.eye(len(gram))
    if width <= count:
        inverse = np.linalg.inv(inverse)
        middle = inverse @ (features.mean(axis=0, dtype=np.float64) - mean)
        leverages, along = np.empty(count), np.empty(count)
        for rows in blocks(count, width=width):
            some = features[rows].astype(np.float64) - mean
            leverages[rows], along[rows] = ((some @ inverse) * some).sum(axis=1) / count, some @ middle
        free = 1 - leverages * (more if centred else 1.0)
        slopes = along - leverages
    else:
        # 1 is then no direction of FF': with a weight there its part of 1 - leverage is known, and taken off
        weight = np.trace(gram) / count if centred else 0.0
        inverse = np.linalg.inv(inverse + weight / count)
        free = small * np.diag(inverse)
        slopes = free - small * inverse.sum(axis=1)
        leverages = 1 - free
        if centred:
            free = more * (free - small / (count * (small + weight)))
            leverages = leverages - 1 / count
    free = np.where(free < ROUNDED * (1 if width <= count else small), np.nan, free)
    return _Without(_rate(gram * (more / DISTORTION)) + np.log(free) / 2, slopes / free, leverages)
