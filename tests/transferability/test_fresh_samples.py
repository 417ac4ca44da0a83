"""Intervals against how scores differ over samples drawn anew, few images of wide features included."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.transferability.bootstrap import Draws, bootstrap, rank_intervals
from headstart.transferability.scores import SCORES, Examples
from headstart.transferability.scores.separation import ridges_without_each
from headstart.transferability.scores.spectrum import spectrum_of


def drawn(seed: int, n: int, d: int, classes: int) -> Examples:
    """A sample of a population that n, d and classes fix."""
    draw = np.random.default_rng(seed)
    y = draw.integers(classes, size=n)
    centres = np.random.default_rng(1).standard_normal((classes, d))
    return Examples(draw.standard_normal((n, d)) + 0.5 * centres[y], y, "multiclass", classes)


def too_wide(name: str, n: int, d: int, classes: int, *, fresh: int, said: int = 3) -> float:
    """The deviation that the bootstrap says, as a multiple of that over fresh samples."""
    score, values, deviations = SCORES[name], [], []
    for seed in range(fresh):
        examples = drawn(seed, n, d, classes)
        scored = score.compute(examples)
        values.append(scored.value)
        if seed < said:
            deviations.append(bootstrap(score, examples, scored, Draws(n, 200, seed=0)).std())
    return float(np.mean(deviations) / np.std(np.array(values, dtype=float)))


@pytest.mark.parametrize(("n", "d", "classes", "fresh"), [(60, 10, 3, 80), (100, 200, 3, 60), (500, 400, 5, 24)])
def test_logme_spreads_as_it_says(n: int, d: int, classes: int, fresh: int) -> None:
    assert 0.7 < too_wide("logme", n, d, classes, fresh=fresh) < 1.9


def test_two_equally_good_candidates_are_not_surely_ordered() -> None:
    """Two backbones whose features of the same images differ by noise alone, twice as many as images."""
    sure = 0
    for seed in range(12):
        one = drawn(seed, 60, 120, 3)
        centres = np.random.default_rng(1).standard_normal((3, 120))
        noise = np.random.default_rng(1000 + seed).standard_normal((60, 120))
        other = Examples(noise + 0.5 * centres[one.targets], one.targets, "multiclass", 3)
        score, draws = SCORES["logme"], Draws(60, 200, seed=0)
        values = {key: bootstrap(score, e, score.compute(e), draws) for key, e in (("a", one), ("b", other))}
        low, high = rank_intervals(values)["a"]
        sure += low == high
    assert sure <= 3


SHRUNK = [(60, 10, 3, 80), (300, 10, 3, 40), (100, 200, 3, 60), (500, 400, 5, 14)]


@pytest.mark.parametrize(("n", "d", "classes", "fresh"), SHRUNK)
def test_the_shrunk_h_score_spreads_as_it_says(n: int, d: int, classes: int, fresh: int) -> None:
    """The strength of the shrinkage is estimated from the sample as well."""
    assert 0.75 < too_wide("hscore_shrunk", n, d, classes, fresh=fresh, said=8) < 2.0


def test_the_h_score_spreads_as_it_says_or_has_no_interval() -> None:
    for n, d in ((60, 10), (300, 10)):
        assert 0.8 < too_wide("hscore", n, d, 3, fresh=80) < 1.6
    examples = drawn(0, 100, 60, 3)
    scored = SCORES["hscore"].compute(examples)
    assert "no interval: 60 directions of features, and 100 images" in scored.note
    assert np.isnan(bootstrap(SCORES["hscore"], examples, scored, Draws(100, 5, seed=0))).all()


@pytest.mark.parametrize(("n", "d"), [(60, 10), (45, 70)])
def test_what_h_scores_say_without_an_example_is_what_they_say_without_it(n: int, d: int) -> None:
    examples = drawn(5, n, d, 3)
    for name in ("hscore", "hscore_shrunk") if d < n else ("hscore_shrunk",):
        scored = SCORES[name].compute(examples)
        assert scored.per_example is not None
        values = [SCORES[name].compute(examples.take(np.delete(np.arange(n), i))).value for i in range(n)]
        plain = -(n - 1) * np.array(values, dtype=float)
        exact = 1e-9 if name == "hscore" else 0.15 * plain.std()  # what the ridge changes, in all of the sample
        assert scored.per_example - scored.per_example.mean() == pytest.approx(plain - plain.mean(), abs=exact)


def test_the_ridge_without_an_example_is_that_of_the_others() -> None:
    from sklearn.covariance import ledoit_wolf

    for n, d in ((30, 6), (20, 35)):
        examples = drawn(3, n, d, 2)
        spectrum = spectrum_of(examples.features, np.zeros((n, 1)), centre=True)
        found = ridges_without_each(spectrum, d)
        for i in range(n):
            rest = np.delete(examples.features, i, axis=0)
            strength = ledoit_wolf(rest)[1]
            level = np.square(rest - rest.mean(axis=0)).sum() / d
            plain = strength / (1 - strength) * level if strength < 1 else np.inf
            assert found[i] == pytest.approx(plain, rel=1e-6)


TRANSRATE = [(400, 4, 3, 120), (60, 10, 3, 80), (100, 200, 3, 40), (600, 60, 30, 16)]


@pytest.mark.parametrize(("n", "d", "classes", "fresh"), TRANSRATE)
def test_transrate_spreads_as_it_says(n: int, d: int, classes: int, fresh: int) -> None:
    """Draws with repeats say 1.4 to 28 times too much, the most where classes are smaller than features."""
    assert 0.7 < too_wide("transrate", n, d, classes, fresh=fresh) < 2.0


@pytest.mark.parametrize(("n", "d"), [(60, 6), (40, 20), (40, 60), (41, 4)])
def test_what_transrate_says_without_an_example_is_what_it_says_without_it(n: int, d: int) -> None:
    examples = drawn(6, n, d, 3)
    if n == 41:  # a class of one example is gone without it
        examples = Examples(examples.features, np.array([0] * 20 + [1] * 20 + [2]), "multiclass", 3)
    score = SCORES["transrate"]
    scored = score.compute(examples)
    assert scored.per_example is not None
    values = [score.compute(examples.take(np.delete(np.arange(n), i))).value for i in range(n)]
    plain = -(n - 1) * np.array(values, dtype=float)
    assert scored.per_example - scored.per_example.mean() == pytest.approx(
        plain - plain.mean(), abs=0.1 * plain.std()
    )


def test_transrate_has_no_interval_with_as_many_images_as_features() -> None:
    examples = drawn(0, 105, 100, 3)
    scored = SCORES["transrate"].compute(examples)
    assert "no interval: about as many images as features" in scored.note
    assert np.isnan(bootstrap(SCORES["transrate"], examples, scored, Draws(105, 5, seed=0))).all()
