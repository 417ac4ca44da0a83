"""Several data sets: golden values of rliable, and bootstraps against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.compare.statistics.across import (
    aggregate_improvement,
    aggregate_iqm,
    aggregate_mean,
    average_ranks,
    interquartile_mean,
    mean_of_means,
    probability_of_improvement,
)

# the two score tables of the golden values, data set by data set
X = [[0.50 + 0.03 * ((7 * i + 3 * j) % 11) / 10 + 0.1 * j for i in range(5)] for j in range(4)]
Y = [[0.49 + 0.03 * ((5 * i + 2 * j) % 7) / 6 + 0.1 * j for i in range(5)] for j in range(4)]


def test_golden_values_of_rliable() -> None:
    assert mean_of_means(X) == pytest.approx(0.6659)
    assert mean_of_means(Y) == pytest.approx(0.65425)
    assert interquartile_mean(X) == pytest.approx(0.6659)
    assert interquartile_mean(Y) == pytest.approx(0.6525)
    assert probability_of_improvement(X, Y) == pytest.approx(0.8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_statistics_are_scipys(scores: list[list[float]]) -> None:
    flat = [value for runs in scores for value in runs]
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(flat, 0.25), abs=1e-12)
    against = [[0.5, 0.25] for _ in scores]
    expected = np.mean(
        [stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(scores, against, strict=True)]
    )
    assert probability_of_improvement(scores, against) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_ranks_are_scipys(methods: int, datasets: int, seed: int) -> None:
    means = np.random.default_rng(seed).integers(0, 4, (methods, datasets)) / 4  # with ties
    expected = stats.rankdata(-means, axis=0).mean(axis=1)
    np.testing.assert_allclose(average_ranks(means), expected)


def test_intervals_over_runs_and_over_data_sets() -> None:
    many = [*X, *Y, *([value + 0.05 for value in runs] for runs in X)]
    means = [float(np.mean(runs)) for runs in many]
    expected = stats.bootstrap(
        (means,), np.mean, method="percentile", n_resamples=50_000, rng=0
    ).confidence_interval
    assert aggregate_mean(many).over_datasets == pytest.approx((expected.low, expected.high), abs=0.004)
    found = aggregate_mean(X)
    few = [float(np.mean(runs)) for runs in X]  # too few for a bootstrap
    assert found.over_datasets == pytest.approx(stats.t.interval(0.95, 3, np.mean(few), stats.sem(few)))
    assert aggregate_mean(X) == found  # seeded
    # within data sets: the variance of the mean over data sets of means over runs
    spread = np.sqrt(sum(np.var(runs) / len(runs) for runs in X)) / len(X)
    assert found.over_runs == pytest.approx((0.6659 - 1.96 * spread, 0.6659 + 1.96 * spread), abs=3e-4)
    assert aggregate_iqm(X).over_runs == pytest.approx(found.over_runs, abs=2e-3)
    better = aggregate_improvement(X, Y)
    assert better.over_runs is not None
    assert better.over_runs[0] < 0.8 < better.over_runs[1]


def test_what_cannot_be_drawn_has_no_interval() -> None:
    assert aggregate_mean([[0.5, 0.6], [0.4]]).over_runs is None
    assert aggregate_mean([[0.5, 0.6], [0.4, 0.3]]).over_datasets is None
    assert aggregate_iqm([[0.5], [0.4, 0.3], [0.6]]).over_datasets is None
    assert aggregate_iqm([[0.5], [0.4, 0.3], [0.6]] * 4).over_datasets is not None
    assert aggregate_improvement([[0.5], [0.4]], [[0.3], [0.6]]).value == 0.5
