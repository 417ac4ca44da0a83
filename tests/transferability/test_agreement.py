"""Agreement of scores with measured values: against scipy, and what intervals do."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
from scipy import stats

from headstart.transferability import correlation
from headstart.transferability.agreement import Agreement, Measured, agreements, best_first

VALUES = (0.91, 0.88, 0.80, 0.79, 0.75, 0.74, 0.60, 0.55)
SCORES = (3.0, 5.0, 4.0, 2.0, 2.5, 1.0, 0.5, 0.7)


def measured(values: Iterable[float] = VALUES) -> list[Measured]:
    return [Measured(f"m{i}", {0: float(v)}) for i, v in enumerate(values)]


def only(found: list[Agreement]) -> Agreement:
    (one,) = found
    return one


@pytest.mark.parametrize(("n", "levels"), [(2, 2), (9, 4), (12, 100), (70, 30)])
def test_many_at_once_are_what_scipy_says_of_each(n: int, levels: int) -> None:
    generator = np.random.default_rng(n)
    a, b = (generator.integers(0, levels, (40, n)).astype(float) for _ in "ab")
    for ours, theirs in (
        (correlation.weighted_taus(a, b), stats.weightedtau),
        (correlation.spearmans(a, b), lambda x, y: stats.spearmanr(x, y) if np.ptp(x) and np.ptp(y) else (np.nan,)),
        (correlation.pearsons(a, b), lambda x, y: stats.pearsonr(x, y) if np.ptp(x) and np.ptp(y) else (np.nan,)),
    ):
        expected = [theirs(x, y)[0] for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_values_of_a_score() -> None:
    one = only(agreements(measured(), {"logme": SCORES}))
    assert one.n == 8
    assert one.tau.value == pytest.approx(stats.weightedtau(VALUES, SCORES).statistic, abs=1e-12)
    assert one.spearman.value == pytest.approx(stats.spearmanr(VALUES, SCORES).statistic, abs=1e-12)
    assert one.pearson.value == pytest.approx(stats.pearsonr(VALUES, SCORES).statistic, abs=1e-12)
    assert one.regret.value == pytest.approx(0.91 - 0.88)
    assert one.chosen == ("m1",)
    assert one.over_static is None


def test_regret_of_a_shared_first_place_is_the_mean_over_it() -> None:
    scores = (1.0, 5.0, 5.0, 2.0, 2.5, 1.0, 0.5, 0.7)
    one = only(agreements(measured(), {"knn": scores}))
    assert one.regret.value == pytest.approx(0.91 - (0.88 + 0.80) / 2)
    assert one.chosen == ("m1", "m2")


def test_a_metric_of_which_less_is_better_is_turned() -> None:
    losses = [1 - v for v in VALUES]
    turned = only(agreements(measured(losses), {"logme": SCORES}, lower_is_better=True))
    plain = only(agreements(measured(), {"logme": SCORES}))
    for name in ("tau", "spearman", "pearson", "regret"):
        for end in ("value", "low", "high"):
            assert getattr(getattr(turned, name), end) == pytest.approx(getattr(getattr(plain, name), end))
    assert only(agreements(measured(losses), {"logme": SCORES})).tau.value < 0  # type: ignore[operator]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e308, 1e-300])
def test_the_largest_numbers_agree_as_others_do(factor: float) -> None:
    plain = only(agreements(measured(), {"logme": SCORES}))
    values, scores = ([v / max(of) * factor for v in of] for of in (VALUES, SCORES))
    for one in (
        only(agreements(measured(values), {"logme": scores})),
        only(agreements([Measured(f"m{i}", {0: v, 1: v}) for i, v in enumerate(values)], {"logme": scores})),
    ):
        for name in ("tau", "spearman", "pearson"):
            assert getattr(one, name).value == pytest.approx(getattr(plain, name).value, abs=1e-12)
        assert one.pearson.low is not None
        assert one.regret.value == pytest.approx((VALUES[0] - VALUES[1]) / VALUES[0] * factor, rel=1e-9)


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_candidate_without_the_score_is_left_out_of_it_alone(missing: float | None) -> None:
    scores = [missing, *SCORES[1:]]
    left, static = agreements(measured(), {"logme": scores, "static": SCORES})
    without = only(agreements(measured()[1:], {"logme": SCORES[1:]}))
    assert (left.n, static.n) == (7, 8)
    assert (left.tau, left.regret) == (without.tau, without.regret)
    # paired with the baseline on the same seven: there both are the same
    assert left.over_static is not None
    assert (left.over_static.value, left.over_static.low, left.over_static.high) == (0, 0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_candidate_without_a_measured_number_is_left_out_and_named(value: float) -> None:
    lost = [Measured("lost", {0: 0.9, 1: value}, "Lost one"), *measured()[1:]]
    left, static = agreements(lost, {"logme": SCORES, "static": SCORES})
    without, _ = agreements(measured()[1:], {"logme": SCORES[1:], "static": SCORES[1:]})
    assert (left.n, left.tau, left.pearson, left.regret) == (7, without.tau, without.pearson, without.regret)
    assert left.over_static == without.over_static
    assert left.note == static.note == "without a finite measured value, left out: Lost one"
    none = only(agreements(lost[:1], {"logme": [1.0]}))
    assert (none.n, none.tau.value) == (0, None)
    if math.isnan(value):
        for lower in (False, True):
            assert [one.name for one in best_first(lost, lower_is_better=lower)][-1] == "lost"


def test_no_score_at_all() -> None:
    one = only(agreements(measured(), {"leep": [None] * 8}))
    assert (one.n, one.tau.value, one.chosen, one.note) == (0, None, (), "no candidate has this score")


def test_fewer_than_five_have_no_intervals_and_it_is_said() -> None:
    four = only(agreements(measured(VALUES[:4]), {"logme": SCORES[:4]}))
    five = only(agreements(measured(VALUES[:5]), {"logme": SCORES[:5]}))
    assert four.tau.value is not None
    assert all(f.low is None for f in (four.tau, four.spearman, four.pearson, four.regret))
    assert "fewer than 5" in four.note
    assert five.tau.low is not None
    assert five.note == ""
    assert "one candidate alone" in only(agreements(measured(VALUES[:1]), {"logme": SCORES[:1]})).note


def test_resamples_without_a_value_are_not_passed_over() -> None:
    constant = only(agreements(measured(), {"knn": [1.0] * 8}))
    assert constant.tau.value is None
    assert "same score" in constant.note
    # a third of the resamples lacks the one candidate that differs
    nearly = only(agreements(measured(), {"knn": [1.0] * 7 + [0.0]}))
    assert nearly.tau.value is not None
    assert nearly.tau.low is None
    assert "34%" in nearly.note or "35%" in nearly.note or "33%" in nearly.note
    assert nearly.regret.low is not None  # it has one in every resample


def test_the_interval_is_that_of_a_paired_percentile_bootstrap() -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=30)
    y = x + generator.normal(size=30)
    ours = only(agreements(measured(y), {"s": list(x)}))
    for figure, statistic in (
        (ours.pearson, lambda a, b: stats.pearsonr(a, b).statistic),
        (ours.tau, lambda a, b: stats.weightedtau(a, b).statistic),
    ):
        drawn = [statistic(y[places], x[places]) for places in generator.integers(0, 30, (800, 30))]
        assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.05)


def test_intervals_are_seeded_by_themselves() -> None:
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    first = agreements(measured(), {"logme": SCORES})
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002
    assert first == agreements(measured(), {"logme": SCORES})


def repeated(noise: np.ndarray, keys: object = None) -> list[Measured]:
    return [
        Measured(f"m{i}", {(i, s) if keys == "own" else s: v + float(e) for s, e in enumerate(noise[i])})
        for i, v in enumerate(VALUES)
    ]


def test_repeats_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(0, 0.1, (8, 3))
    noise -= noise.mean(axis=1, keepdims=True)
    with_noise = only(agreements(repeated(noise), {"logme": SCORES}))
    without = only(agreements(measured(), {"logme": SCORES}))
    assert with_noise.pearson.value == pytest.approx(without.pearson.value)
    wide, narrow = (one.pearson.high - one.pearson.low for one in (with_noise, without))  # type: ignore[operator]
    assert wide > 1.2 * narrow


def test_what_a_seed_does_to_all_candidates_alike_widens_nothing() -> None:
    shared = np.tile([-0.2, 0.0, 0.2], (8, 1))
    without = only(agreements(measured(), {"logme": SCORES}))
    alike = only(agreements(repeated(shared), {"logme": SCORES}))
    own = only(agreements(repeated(shared, "own"), {"logme": SCORES}))
    spread = {
        name: one.regret.high - one.regret.low  # type: ignore[operator]
        for name, one in (("without", without), ("alike", alike), ("own", own))
    }
    assert spread["alike"] == pytest.approx(spread["without"], abs=0.01)
    assert spread["own"] > spread["alike"] + 0.05


def test_two_repeats_vary_as_much_as_a_mean_of_two() -> None:
    from headstart.transferability.agreement import _redrawn

    (drawn,) = _redrawn([Measured("m", {0: 1.0, 1: 3.0})], np.random.default_rng(0))
    # the variance of the mean of two, s^2 / 2, with s^2 = 2
    assert float(np.var(drawn)) == pytest.approx(1.0, rel=0.05)
