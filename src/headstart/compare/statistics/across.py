"""Several data sets at once: one scale, and intervals over runs or over data sets (Agarwal et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.statistics.intervals import LEVEL, estimate
from headstart.compare.statistics.scores import Floats

RESAMPLES = 10_000
FEWEST_DATASETS = 3
FEWEST_FOR_BOOTSTRAP = 10
"""Data sets from which on a percentile bootstrap over them covers 90 % and more; below, there is no interval."""
MOST_DRAWN = 20_000_000
"""Numbers that a bootstrap may hold at once; larger ones make fewer resamples."""
SEED = 20_210


@dataclass(frozen=True)
class Aggregate:
    """A number over data sets with its two intervals, each None where there is nothing to draw from."""

    value: float
    over_runs: tuple[float, float] | None
    """95 %: runs drawn anew within each data set (stratified bootstrap)."""
    over_datasets: tuple[float, float] | None
    """95 %: data sets drawn anew (bootstrap) where there are ten or more; Student's t below, as a bootstrap covers
    75 % at three, 84 % at five and 91 % at ten."""


Scores = Sequence[Sequence[float]]
"""Of one method: a list of runs' scores per data set."""


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all runs on all data sets (trimmed by a quarter on either side).

    As scipy.stats.trim_mean(scores, 0.25), which drops int(n / 4) values at each end.
    """
    flat = np.sort(np.concatenate([np.asarray(runs, dtype=np.float64) for runs in scores]))
    cut = int(0.25 * len(flat))
    return float(flat[cut : len(flat) - cut].mean())


def mean_of_means(scores: Scores) -> float:
    """Plain mean over data sets of the mean over runs."""
    return float(np.mean([np.mean(runs) for runs in scores]))


def probability_of_improvement(a: Scores, b: Scores) -> float:
    """Mean over data sets of P(run of a > run of b), unpaired, ties counting half (Mann-Whitney U / nm)."""
    per_dataset = []
    for mine, other in zip(a, b, strict=True):
        signs = np.sign(np.subtract.outer(np.asarray(mine, np.float64), np.asarray(other, np.float64)))
        per_dataset.append((signs.mean() + 1) / 2)
    return float(np.mean(per_dataset))


def average_ranks(means: Floats) -> Floats:
    """Average rank of each row of (methods, data sets), 1 the best; equal means share a rank."""
    better = (means[None, :, :] > means[:, None, :]).sum(axis=1)
    equal = (means[None, :, :] == means[:, None, :]).sum(axis=1)
    return (better + (equal + 1) / 2).mean(axis=1)


def aggregate_mean(scores: Scores) -> Aggregate:
    """`mean_of_means` with its intervals. Seeded: the same scores give the same intervals."""
    generator = np.random.default_rng(SEED)
    over_runs = None
    if _repeated(scores):
        count = _resamples(sum(map(len, scores)))
        over_runs = _interval(np.mean([_redrawn(runs, generator, count).mean(axis=1) for runs in scores], axis=0))
    means = np.array([np.mean(runs) for runs in scores], dtype=np.float64)
    return Aggregate(mean_of_means(scores), over_runs, _over_datasets(means))


def aggregate_iqm(scores: Scores) -> Aggregate:
    """`interquartile_mean` with its intervals. Seeded."""
    generator = np.random.default_rng(SEED)
    over_runs = over_datasets = None
    if _repeated(scores):
        count = _resamples(sum(map(len, scores)))
        drawn_runs = [_redrawn(runs, generator, count) for runs in scores]
        over_runs = _interval(_trimmed(np.concatenate(drawn_runs, axis=1)))
    if len(scores) >= FEWEST_FOR_BOOTSTRAP:
        chosen = generator.integers(0, len(scores), (RESAMPLES, len(scores)))
        if len({len(runs) for runs in scores}) == 1:
            table = np.array([list(runs) for runs in scores], dtype=np.float64)
            over_datasets = _interval(_trimmed(table[chosen].reshape(RESAMPLES, -1)))
        else:
            drawn = [interquartile_mean([scores[i] for i in places]) for places in chosen[: RESAMPLES // 10]]
            over_datasets = _interval(np.array(drawn))
    return Aggregate(interquartile_mean(scores), over_runs, over_datasets)


def aggregate_improvement(a: Scores, b: Scores) -> Aggregate:
    """`probability_of_improvement` of a over b with its intervals. Seeded; both draw the same data sets."""
    generator = np.random.default_rng(SEED)
    over_runs = None
    if _repeated(a) and _repeated(b):
        count = _resamples(max(len(mine) * len(other) for mine, other in zip(a, b, strict=True)))
        drawn = [
            _better(_redrawn(mine, generator, count)[:, :, None], _redrawn(other, generator, count)[:, None, :])
            for mine, other in zip(a, b, strict=True)
        ]
        over_runs = _interval(np.mean(drawn, axis=0))
    each = np.array([probability_of_improvement([mine], [other]) for mine, other in zip(a, b, strict=True)])
    return Aggregate(probability_of_improvement(a, b), over_runs, _over_datasets(each))


def _better(a: Floats, b: Floats) -> Floats:
    return (np.sign(a - b).mean(axis=(1, 2)) + 1) / 2


def _repeated(scores: Scores) -> bool:
    return all(len(runs) > 1 for runs in scores)


def _redrawn(runs: Sequence[float], generator: np.random.Generator, count: int) -> Floats:
    """(count, runs): the runs of a data set drawn anew, with replacement."""
    sample = np.asarray(runs, dtype=np.float64)
    return sample[generator.integers(0, len(sample), (count, len(sample)))]


def _resamples(numbers: int) -> int:
    return max(200, min(RESAMPLES, MOST_DRAWN // max(1, numbers)))


def _over_datasets(values: Floats) -> tuple[float, float] | None:
    if len(values) < FEWEST_DATASETS:
        return None
    if len(values) < FEWEST_FOR_BOOTSTRAP:
        found = estimate(list(values))
        return (float(found.low or 0.0), float(found.high or 0.0))
    generator = np.random.default_rng(SEED)
    return _interval(values[generator.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1))


def _trimmed(rows: Floats) -> Floats:
    cut = int(0.25 * rows.shape[1])
    return np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(axis=1)


def _interval(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
