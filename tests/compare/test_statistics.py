"""Intervals, paired tests and their corrections: against scipy, direct computation and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.compare.statistics.intervals import estimate
from headstart.compare.statistics.paired import (
    cliffs_delta,
    compare_pairs,
    decide,
    holm,
    paired_p,
    pairs_needed,
    power_of,
    superiority,
)

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=30)
PAIRS = st.integers(2, 20).flatmap(
    lambda n: st.tuples(*(st.lists(st.floats(0, 1), min_size=n, max_size=n) for _ in range(2)))
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_intervals_are_scipys(values: list[float]) -> None:
    got = estimate(values)
    assert got.mean == pytest.approx(np.mean(values))
    if np.std(values) > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (got.low, got.high) == pytest.approx((low, high))
        assert got.std == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_no_interval() -> None:
    got = estimate([0.5])
    assert (got.mean, got.std, got.low, got.high) == (0.5, None, None, None)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_repeats_on_one_split_are_averaged_first() -> None:
    values, splits = [0.1, 0.3, 0.5, 0.6, 0.9, 0.9], [0, 0, 1, 1, 2, 2]
    got = estimate(values, splits)
    means = [0.2, 0.55, 0.9]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (got.mean, got.low, got.high) == pytest.approx((0.55, low, high))
    assert (got.n, got.units) == (6, 3)
    assert got.std == pytest.approx(np.std(values, ddof=1))
    assert estimate(values, [0] * 6) == estimate(values)  # on one split they vary the seed alone


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_paired_statistics_are_scipys(pair: tuple[list[float], list[float]]) -> None:
    a, b = map(np.array, pair)
    found = compare_pairs(a, b)
    if np.std(a - b) > 1e-9:
        expected = stats.ttest_rel(a, b)
        assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
        low, high = expected.confidence_interval(0.95)
        assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
        assert found.effect_size == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    u = stats.mannwhitneyu(a, b).statistic
    assert found.cliffs_delta == pytest.approx(2 * u / (len(a) * len(b)) - 1)
    flipped = compare_pairs(a, b, lower_is_better=True).superiority
    assert (found.superiority.wins, found.superiority.losses) == (flipped.losses, flipped.wins)
    assert found.superiority.probability == np.mean(a > b)


def test_cliffs_delta_by_hand() -> None:
    assert cliffs_delta(np.array([1.0, 2.0]), np.array([0.0, 2.0])) == pytest.approx((1 - 1 + 1 + 0) / 4)


def test_equal_differences_are_judged_by_their_signs() -> None:
    """0.9 - 0.8 and 0.8 - 0.7 differ by rounding alone: t would be anything, up to 10^14."""
    for n in range(2, 9):
        a = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])[:n]
        assert paired_p(a - (a - 0.1)) == pytest.approx(2.0 ** (1 - n))
        assert estimate(list(a - (a - 0.1))).excludes_zero == (n >= 6)
    assert paired_p(np.zeros(5)) == 1.0
    assert paired_p(np.array([0.3])) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    """Reject the smallest while p_(i) <= alpha / (m - i + 1): the corrected p is the alpha at which that happens."""
    corrected = holm(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for alpha in (0.01, 0.05, 0.2, 0.7):
        allowed = [p_values[place] * (len(order) - i) <= alpha for i, place in enumerate(order)]
        rejected = range([*allowed, False].index(False))
        assert {order[i] for i in rejected} == {i for i, p in enumerate(corrected) if p <= alpha}


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_superiority_interval_is_the_bootstraps() -> None:
    good = np.array([1.0] * 7 + [0.0] + [-1.0] * 4)
    found = superiority(good)
    generator = np.random.default_rng(0)
    drawn = (good[generator.integers(0, 12, (200_000, 12))] > 0).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.wins, found.ties, found.losses, found.probability) == (7, 1, 4, 7 / 12)


@pytest.mark.parametrize(
    ("wins", "n", "verdict"),
    [(5, 5, None), (6, 6, "meaningful"), (15, 29, "not significant"), (22, 29, "meaningful"), (70, 100, "meaningful"), (640, 1000, "significant")],
)  # fmt: skip
def test_superiority_verdicts(wins: int, n: int, verdict: str | None) -> None:
    assert superiority(np.array([1.0] * wins + [-1.0] * (n - wins))).verdict == verdict


def test_power_is_scipys_and_simulations() -> None:
    for effect, n in ((0.5, 10), (1.0, 5), (2.0, 4), (0.1, 300)):
        bound = stats.t.ppf(0.975, n - 1)
        shift = effect * math.sqrt(n)
        expected = stats.nct.sf(bound, n - 1, shift) + stats.nct.cdf(-bound, n - 1, shift)
        assert power_of(effect, n) == pytest.approx(expected, abs=1e-6)
    drawn = np.random.default_rng(0).normal(1.0, 1.0, (20_000, 5))
    t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * math.sqrt(5)
    assert power_of(1.0, 5) == pytest.approx((np.abs(t) > stats.t.ppf(0.975, 4)).mean(), abs=0.01)
    needed = pairs_needed(1.0)
    assert needed is not None
    assert power_of(1.0, needed) >= 0.8 > power_of(1.0, needed - 1)
    assert pairs_needed(0.001) is None
    assert pairs_needed(50.0) == 2


def test_decisions_are_corrected_for_one_another() -> None:
    alone = compare_pairs([0.9, 0.94, 0.92], [0.8, 0.86, 0.79])
    assert 0.01 < (alone.p or 1) < 0.05
    (one,) = decide([alone])
    assert one is not None
    assert (one.verdict, one.p_holm) == ("better", alone.p)
    several = decide([alone] * 5 + [None])
    assert several[-1] is None
    assert all(one is not None and one.verdict == "not decided" for one in several[:-1])
    assert several[0] is not None
    assert several[0].more is not None
    assert several[0].more >= 1
    (worse,) = decide([alone], lower_is_better=True)
    assert worse is not None
    assert worse.verdict == "worse"


def simulated_coverage(n: int, count: int) -> float:
    drawn = np.random.default_rng(n).normal(0.3, 2.0, (count, n))
    found = [estimate(list(row)) for row in drawn]
    return float(np.mean([one.low <= 0.3 <= one.high for one in found]))  # type: ignore[operator]


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_intervals_cover_what_they_say(n: int) -> None:
    assert simulated_coverage(n, 3_000) == pytest.approx(0.95, abs=0.013)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_intervals_cover_what_they_say_to_the_third_digit(n: int) -> None:
    assert simulated_coverage(n, 100_000) == pytest.approx(0.95, abs=0.0025)


def test_seeds_and_splits_crossed_are_covered_only_by_splits() -> None:
    """4 seeds on each of 3 splits: an interval over 12 runs would be far too narrow."""
    generator = np.random.default_rng(1)
    splits = [split for split in range(3) for _ in range(4)]
    covered, naive = 0, 0
    for _ in range(1_000):
        values = np.repeat(generator.normal(0, 1, 3), 4) + generator.normal(0, 0.5, 12)
        one, other = estimate(list(values), splits), estimate(list(values))
        covered += one.low <= 0 <= one.high  # type: ignore[operator]
        naive += other.low <= 0 <= other.high  # type: ignore[operator]
    assert covered / 1_000 == pytest.approx(0.95, abs=0.025)
    assert naive / 1_000 < 0.8


def test_superiority_counts_splits_where_they_have_several_seeds() -> None:
    """Three seeds on each of two splits, all won, are two wins: too few to say anything."""
    found = compare_pairs([0.9] * 6, [0.8, 0.7, 0.6, 0.8, 0.7, 0.5], clusters=[0, 0, 0, 1, 1, 1])
    assert (found.superiority.wins, found.superiority.verdict) == (2, None)
