"""Intervals over examples: against formulas, against refits, and over candidates that share their draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.transferability.bootstrap import Draws, bootstrap, interval, intervals, rank_intervals
from headstart.transferability.scores import SCORES, Examples, Scored


def drawn(seed: int, n: int, d: int, classes: int, *, apart: float = 1.0) -> Examples:
    draw = np.random.default_rng(seed)
    y = draw.permutation(np.arange(n) % classes)
    centres = np.random.default_rng(0).standard_normal((classes, d))
    return Examples(draw.standard_normal((n, d)) + apart * centres[y], y, "multiclass", classes)


def test_the_interval_of_a_mean_is_the_formulas() -> None:
    """Of 0 and 1: sqrt(p (1 - p) / n), from draws of n and from draws of m out of n."""
    draw = np.random.default_rng(1)
    each = (draw.random(900) < 0.7).astype(float)
    scored = Scored(float(each.mean()), per_example=each)
    examples = Examples(np.zeros((900, 1)), np.zeros(900, dtype=np.int64), "multiclass", 2)
    plain = np.sqrt(each.var() / 900)
    for largest in (1000, 200):
        draws = Draws(900, 4000, seed=3, largest=largest)
        assert draws.places.shape == (4000, min(900, largest))
        values = bootstrap(SCORES["knn"], examples, scored, draws)
        assert values.shape == (4000,)
        assert values.mean() == pytest.approx(each.mean(), abs=1e-9)
        assert values.std() == pytest.approx(plain, rel=0.05)
        low, high = interval(values) or (0, 0)
        assert (high - low) / 2 == pytest.approx(1.96 * plain, rel=0.07)


@pytest.mark.parametrize("name", ["logme", "hscore", "hscore_shrunk", "transrate", "centroids"])
def test_the_spread_is_that_of_fresh_samples(name: str) -> None:
    """What the bootstrap says of one sample, against how a hundred samples of the population differ."""
    score = SCORES[name]
    fresh = np.array([score.compute(drawn(seed, 300, 5, 3)).value for seed in range(150)], dtype=float)
    said = []
    for seed in range(4):
        examples = drawn(1000 + seed, 300, 5, 3)
        said.append(bootstrap(score, examples, score.compute(examples), Draws(300, 80, seed=seed)).std())
    # drawn classes vary in number in the bootstrap, and not in these samples
    assert np.mean(said) == pytest.approx(fresh.std(), rel=0.3)


@pytest.mark.parametrize("name", ["logme", "hscore"])
def test_without_a_refit_it_is_the_same_as_with(name: str) -> None:
    score = SCORES[name]
    examples = drawn(5, 400, 4, 3)
    scored = score.compute(examples)
    draws = Draws(400, 150, seed=0)
    quick = bootstrap(score, examples, scored, draws)
    slow = bootstrap(score, examples, replace(scored, per_example=None), draws)
    assert np.corrcoef(quick, slow)[0, 1] > 0.98
    assert quick.std() == pytest.approx(slow.std(), rel=0.1)
    assert slow.mean() == pytest.approx(scored.value, abs=1e-9)


def test_draws_are_the_same_for_all_and_by_the_seed() -> None:
    one, same, other = Draws(50, 20, seed=1), Draws(50, 20, seed=1), Draws(50, 20, seed=2)
    assert np.array_equal(one.places, same.places)
    assert not np.array_equal(one.places, other.places)
    assert one.places.min() >= 0
    assert one.places.max() < 50


def test_what_is_forced_or_missing_has_no_interval() -> None:
    examples = drawn(0, 20, 60, 3)
    for scored in (SCORES["hscore"].compute(examples), Scored(None, "why")):
        values = bootstrap(SCORES["hscore"], examples, scored, Draws(20, 5, seed=0))
        assert np.isnan(values).all()
        assert values.shape == (5,)
        assert interval(values) is None
    known = Scored(2.0, per_example=np.full(20, 2.0))
    for scored, finite in ((known, True), (replace(known, forced=True), False)):
        assert np.isfinite(bootstrap(SCORES["knn"], examples, scored, Draws(20, 5, seed=0))).all() == finite
    # whole, but forced in each draw of so few different examples
    wide = drawn(0, 40, 35, 3)
    whole = replace(SCORES["hscore"].compute(wide), per_example=None)
    assert not whole.forced
    assert np.isnan(bootstrap(SCORES["hscore"], wide, whole, Draws(40, 5, seed=0))).all()
    assert intervals({"a": values, "b": np.arange(101.0)}, level=0.8) == {"b": pytest.approx((10.0, 90.0))}


def test_the_same_candidate_twice_shares_its_places() -> None:
    examples, worse = drawn(1, 200, 6, 3), drawn(1, 200, 6, 3, apart=0.1)
    draws = Draws(200, 60, seed=0)
    mirrored = replace(examples, features=examples.features[:, ::-1].copy())  # the same but for rounding
    for name in ("logme", "transrate", "knn"):
        score = SCORES[name]
        values = {
            key: bootstrap(score, one, score.compute(one), draws)
            for key, one in {"one": examples, "same": mirrored, "worse": worse}.items()
        }
        assert rank_intervals(values) == {"one": (1.5, 1.5), "same": (1.5, 1.5), "worse": (3.0, 3.0)}


def test_places_follow_the_draws() -> None:
    first = np.array([3.0] * 90 + [1.0] * 10)
    second = np.full(100, 2.0)
    unknown = np.full(100, np.nan)
    ranks = rank_intervals({"a": first, "b": second, "c": unknown})
    assert ranks == {"a": (1.0, 3.0), "b": (1.0, 3.0)}  # c may be better than both
    assert rank_intervals({"a": first, "b": second}) == {"a": (1.0, 2.0), "b": (1.0, 2.0)}
    assert rank_intervals({"a": first, "b": second}, level=0.6)["a"] == (1.0, 1.0)
    assert rank_intervals({"c": unknown}) == {}
