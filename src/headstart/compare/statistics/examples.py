"""Tests over examples: given these trained models, would other test images have said the same?

They vary the test images and nothing else: not the seeds, so they say nothing of another training run. That is the
stated caveat of the test in Chen et al. 2020 (SimCLR), appendix B.8, which these follow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.compare.statistics.intervals import LEVEL
from headstart.compare.statistics.scores import ADDITIVE, Floats, Ints, Predictions, contributions, score

PERMUTATIONS = 100_000
RESCORED = 500
"""Permutations and resamples of a metric that is no sum over examples: each scores the whole split again."""
RESCORED_CELLS = 400_000_000
"""Numbers (images x classes) that these may score in all; larger tests make fewer draws, and say how many."""
FEWEST_DRAWS = 50
RESAMPLES = 10_000
SEED = 20_190
"""Of every draw here: the same comparison gives the same numbers."""
BLOCK = 20_000_000


@dataclass(frozen=True)
class ExampleTest:
    """Two arms compared over test images, seeds averaged."""

    images: int
    difference: float
    low: float
    high: float
    """95 % percentile bootstrap interval over images."""
    p: float
    """Two-sided permutation test: the arms' predictions are exchanged image by image."""
    draws: int
    mcnemar_p: float | None
    """Exact, two-sided, of accuracy where there is one pair of runs and one class per image."""
    only_arm: int | None
    """Images that the arm alone has right, summed over pairs; None where one has several labels, or numbers."""
    only_baseline: int | None


def test_examples(metric: str, pairs: Sequence[tuple[Predictions, Predictions]]) -> ExampleTest | None:
    """Compare (arm, baseline) predictions; None where no pair is about the same images with the same labels.

    `metric` is a name without its split. Of numbers the differences are those of squared or absolute errors, and
    the test is the permutation test of their sign; rmse and r2 are scored anew. An image that several pairs have
    is one image: its differences are averaged, so that more seeds do not look like more images.
    """
    pairs = [aligned for pair in pairs if (aligned := _aligned(*pair)) is not None]
    if not pairs:
        return None
    task = pairs[0][0].task
    only = _only(pairs) if task in ("multiclass", "binary") else (None, None)
    generator = np.random.default_rng(SEED)
    if metric in ADDITIVE.get(task, ()):
        found = _additive(metric, pairs, generator)
    else:
        found = _rescored(metric, pairs, generator)
    difference, low, high, p, draws = found
    exact = metric == "accuracy_micro" and len(pairs) == 1  # of any other metric it would test another question
    return ExampleTest(
        images=len(np.unique(np.concatenate([arm.ids for arm, _ in pairs]))),
        difference=difference,
        low=low,
        high=high,
        p=p,
        draws=draws,
        mcnemar_p=mcnemar(*only) if exact and only[0] is not None and only[1] is not None else None,
        only_arm=only[0],
        only_baseline=only[1],
    )


test_examples.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for one of its own


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact McNemar test, two-sided: the binomial test of the images that one of two models alone has right."""
    from scipy.special import bdtr

    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * float(bdtr(k, n, 0.5))) if n else 1.0


def _aligned(arm: Predictions, baseline: Predictions) -> tuple[Predictions, Predictions] | None:
    """Both in the order of their ids; None where they are not of the same images with the same labels."""
    a, b = (one if _is_sorted(one.ids) else _sorted(one) for one in (arm, baseline))
    if not np.array_equal(a.ids, b.ids) or not np.array_equal(a.targets, b.targets) or not len(a.ids):
        return None
    return a, b


def _is_sorted(ids: npt.NDArray[np.str_]) -> bool:
    return bool((ids[:-1] <= ids[1:]).all())


def _sorted(one: Predictions) -> Predictions:
    return one.take(np.argsort(one.ids, kind="stable"))


def _only(pairs: Sequence[tuple[Predictions, Predictions]]) -> tuple[int, int]:
    arm = baseline = 0
    for a, b in pairs:
        right_a, right_b = a.predicted == a.targets, b.predicted == b.targets
        arm += int((right_a & ~right_b).sum())
        baseline += int((right_b & ~right_a).sum())
    return arm, baseline


Found = tuple[float, float, float, float, int]


def _additive(
    metric: str, pairs: Sequence[tuple[Predictions, Predictions]], generator: np.random.Generator
) -> Found:
    """By the difference of each image: exchanging its predictions turns its sign."""
    ids = np.concatenate([arm.ids for arm, _ in pairs])
    parts = [(contributions(metric, a) - contributions(metric, b)) / len(pairs) for a, b in pairs]
    _, places = np.unique(ids, return_inverse=True)
    differences = np.bincount(places, weights=np.concatenate(parts))
    observed = float(differences.sum())
    values, counts = np.unique(np.round(differences, 15), return_counts=True)
    sums: Floats = np.zeros(PERMUTATIONS)
    means: Floats = np.zeros(RESAMPLES)
    if len(values) <= 1000:  # of equal differences only the number counts
        sizes, members = _folded(values, np.asarray(counts, np.int64))
        for size, count in zip(sizes, members, strict=True):
            sums += size * (2.0 * generator.binomial(count, 0.5, PERMUTATIONS) - count)
        drawn = generator.multinomial(len(differences), counts / counts.sum(), RESAMPLES)
        means = np.asarray(drawn @ values, np.float64)
    else:
        rows = max(1, BLOCK // len(differences))
        for begin in range(0, PERMUTATIONS, rows):
            some = min(rows, PERMUTATIONS - begin)
            signs = generator.integers(0, 2, (some, len(differences)), dtype=np.int8)
            sums[begin : begin + some] = 2.0 * (signs @ differences) - observed
        for begin in range(0, RESAMPLES, rows):
            some = min(rows, RESAMPLES - begin)
            drawn = generator.integers(0, len(differences), (some, len(differences)))
            means[begin : begin + some] = differences[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return observed, float(low), float(high), _share(sums, observed), PERMUTATIONS


def _folded(values: npt.NDArray[Any], counts: Ints) -> tuple[Floats, Ints]:
    """Absolute differences other than 0, and how many images have each."""
    sizes, places = np.unique(np.abs(values), return_inverse=True)
    members = np.bincount(places, weights=counts).astype(np.int64)
    return sizes[sizes > 0], members[sizes > 0]


def _rescored(
    metric: str, pairs: Sequence[tuple[Predictions, Predictions]], generator: np.random.Generator
) -> Found:
    """By scoring exchanged and resampled splits anew; an image is exchanged in all pairs at once."""

    def gap(of: Sequence[tuple[Predictions, Predictions]]) -> float:
        return sum(score(metric, a) - score(metric, b) for a, b in of) / len(of)

    names, places = np.unique(np.concatenate([a.ids for a, _ in pairs]), return_inverse=True)
    starts = np.cumsum([0, *(len(a.ids) for a, _ in pairs)])
    member = [places[begin:end] for begin, end in itertools.pairwise(starts)]
    observed = gap(pairs)
    cells = 4 * sum(a.targets.size if a.probabilities is None else a.probabilities.size for a, _ in pairs)
    count = int(min(RESCORED, max(FEWEST_DRAWS, RESCORED_CELLS // max(1, cells))))
    exchanged: Floats = np.zeros(count)
    resampled: Floats = np.zeros(count)
    for i in range(count):
        turned = generator.random(len(names)) < 0.5
        exchanged[i] = gap(
            [
                (a.exchanged(b, turned[own]), b.exchanged(a, turned[own]))
                for (a, b), own in zip(pairs, member, strict=True)
            ]
        )
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        drawn = [np.repeat(np.arange(len(own)), times[own]) for own in member]
        resampled[i] = gap([(a.take(rows), b.take(rows)) for (a, b), rows in zip(pairs, drawn, strict=True)])
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return observed, float(low), float(high), _share(exchanged, observed), count


def _share(drawn: Floats, observed: float) -> float:
    """p of a permutation test, the observed one counted among the draws (Phipson and Smyth 2010)."""
    extreme = int((np.abs(drawn) >= abs(observed) - 1e-12).sum())
    return (extreme + 1) / (len(drawn) + 1)
