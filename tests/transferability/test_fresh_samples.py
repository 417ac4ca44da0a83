"""Intervals against how scores differ over samples drawn anew, few images of wide features included."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.transferability.bootstrap import Draws, bootstrap, rank_intervals
from headstart.transferability.scores import SCORES, Examples


def drawn(seed: int, n: int, d: int, classes: int) -> Examples:
    """A sample of a population that n, d and classes fix."""
    draw = np.random.default_rng(seed)
    y = draw.integers(classes, size=n)
    centres = np.random.default_rng(1).standard_normal((classes, d))
    return Examples(draw.standard_normal((n, d)) + 0.4 * centres[y], y, "multiclass", classes)


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


@pytest.mark.parametrize(("n", "d", "classes", "fresh"), [(60, 10, 3, 80), (100, 200, 3, 60), (500, 400, 5, 14)])
def test_logme_spreads_as_it_says(n: int, d: int, classes: int, fresh: int) -> None:
    assert 0.7 < too_wide("logme", n, d, classes, fresh=fresh) < 1.9


def test_two_equally_good_candidates_are_not_surely_ordered() -> None:
    """Two backbones whose features of the same images differ by noise alone, twice as many as images."""
    sure = 0
    for seed in range(12):
        one = drawn(seed, 60, 120, 3)
        centres = np.random.default_rng(1).standard_normal((3, 120))
        noise = np.random.default_rng(1000 + seed).standard_normal((60, 120))
        other = Examples(noise + 0.4 * centres[one.targets], one.targets, "multiclass", 3)
        score, draws = SCORES["logme"], Draws(60, 200, seed=0)
        values = {key: bootstrap(score, e, score.compute(e), draws) for key, e in (("a", one), ("b", other))}
        low, high = rank_intervals(values)["a"]
        sure += low == high
    assert sure <= 3
