"""How two lists of numbers agree, for many resamples at once."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
AT_ONCE = 4_000_000
"""Pairs of candidates that one step holds."""
MOST_BY_PAIRS = 64
"""Candidates up to which all pairs of all resamples are looked at together; beyond, each resample is sorted."""


def scaled(values: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """(values over a power of two that brings the largest of each row near one, its exponents): sums and squares of
    the first neither overflow nor vanish, and no bit of ordinary numbers changes."""
    exponents = np.frexp(np.abs(values).max(axis=-1, keepdims=True))[1].astype(np.int64)
    return np.ldexp(values, -exponents), exponents


def weighted_tau(a: Floats, b: Floats) -> float:
    """Weighted Kendall tau (Vigna 2015): a correlation that counts the top most; nan where either is constant.

    As `scipy.stats.weightedtau(a, b)` of two (n,): weights 1 / (1 + r) of both members of a pair are added, where r
    is the place from 0 by decreasing value; the mean of the tau with places by (a, b) and of that by (b, a).
    """
    from scipy.stats import weightedtau

    if len(a) < 2:
        return float("nan")
    return float(weightedtau(a, b).statistic)


def weighted_taus(a: Floats, b: Floats) -> Floats:
    """`weighted_tau` of each row of `a` and `b`, both (m, n); returns (m,)."""
    m, n = a.shape
    if n > MOST_BY_PAIRS:
        return np.array([weighted_tau(x, y) for x, y in zip(a, b, strict=True)])
    step = max(1, AT_ONCE // max(1, n * n))
    return np.concatenate([_by_pairs(a[i : i + step], b[i : i + step]) for i in range(0, m, step)] or [np.empty(0)])


def _by_pairs(a: Floats, b: Floats) -> Floats:
    # [m, i, j]: 1 where j has more than i
    with np.errstate(over="ignore"):  # an infinite difference has its sign
        of_a = np.sign(a[:, None, :] - a[:, :, None])
        of_b = np.sign(b[:, None, :] - b[:, :, None])
    agree, in_a, in_b = (np.sum(x, axis=2) for x in (of_a * of_b, of_a * of_a, of_b * of_b))
    taus = [_tau(_places(first, then), agree, in_a, in_b) for first, then in ((of_a, of_b), (of_b, of_a))]
    return (taus[0] + taus[1]) / 2


def _places(first: Floats, then: Floats) -> Floats:
    """(m, n): how many lie above, by `first` and, where that ties, by `then`; equal pairs in their order."""
    n = first.shape[1]
    earlier = np.tril(np.ones((n, n), dtype=bool), -1)
    above = (first > 0) | ((first == 0) & ((then > 0) | ((then == 0) & earlier)))
    return above.sum(axis=2).astype(np.float64)


def _tau(places: Floats, agree: Floats, in_a: Floats, in_b: Floats) -> Floats:
    weights = 1 / (1 + places)
    scale = np.sqrt((weights * in_a).sum(axis=1) * (weights * in_b).sum(axis=1))
    return _ratio((weights * agree).sum(axis=1), scale)


def pearsons(a: Floats, b: Floats) -> Floats:
    """Pearson's correlation of each row of `a` and `b`, both (m, n); (m,), nan where either is constant."""
    x, y = (v - v.mean(axis=1, keepdims=True) for v in (scaled(a)[0], scaled(b)[0]))
    # equal numbers have a mean that differs from them by rounding
    x[a.max(axis=1) == a.min(axis=1)] = 0
    y[b.max(axis=1) == b.min(axis=1)] = 0
    return np.clip(_ratio((x * y).sum(axis=1), np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))), -1, 1)


def spearmans(a: Floats, b: Floats) -> Floats:
    """Spearman's correlation of each row: Pearson's of the places, the mean place where values tie."""
    from scipy.stats import rankdata

    return pearsons(np.asarray(rankdata(a, axis=1)), np.asarray(rankdata(b, axis=1)))


def regrets(measured: Floats, score: Floats) -> Floats:
    """What taking the first by `score` costs: best of `measured` minus that of the first, the mean over those that
    share the first place; for each row of two (m, n) arrays, higher is better in both. (m,), never negative."""
    first = score == score.max(axis=1, keepdims=True)
    values, exponents = scaled(measured)
    taken = np.where(first, values, 0.0).sum(axis=1) / first.sum(axis=1)
    found: Floats = np.ldexp(np.maximum(values.max(axis=1) - taken, 0.0), exponents[:, 0])
    return found


def _ratio(above: Floats, below: Floats) -> Floats:
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
