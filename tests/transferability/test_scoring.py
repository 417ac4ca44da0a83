"""All scores of a candidate: what large sets are cut to, and what lacks a source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headstart.transferability.scores import SCORES, Examples
from headstart.transferability.scoring import score_all


def examples(count: int, *, seed: int = 0) -> Examples:
    draw = np.random.default_rng(seed)
    targets = draw.integers(3, size=count)
    return Examples(draw.normal(size=(count, 5)) + np.eye(3, 5)[targets], targets, "multiclass", 3)


def test_costly_scores_see_the_same_few_images_of_every_candidate() -> None:
    knn = replace(SCORES["knn"], most=40)
    one, other = examples(100), examples(100, seed=1)
    seen: list[Examples] = []

    def watched(few: Examples):  # type: ignore[no-untyped-def]
        seen.append(few)
        return SCORES["knn"].compute(few)

    found = [score_all([replace(knn, compute=watched)], each, no_source="", draws=5) for each in (one, other)]
    places = [
        np.flatnonzero((whole.features[:, None] == few.features).all(axis=2).any(axis=1))
        for whole, few in zip((one, other), seen, strict=True)
    ]
    assert len(places[0]) == 40
    assert np.array_equal(*places)
    assert found[0].values["knn"].note == "on 40 of 100 images"
    assert found[0].drawn["knn"].std() > 0
    whole = score_all([SCORES["knn"]], one, no_source="", draws=0)
    assert whole.values["knn"].note == ""
    assert whole.drawn == {}


def test_without_a_source_there_is_a_reason() -> None:
    found = score_all([SCORES["leep"]], examples(30), no_source="it has none", draws=5)
    assert found.values["leep"].value is None
    assert found.values["leep"].note == "it has none"
    assert found.drawn == {}


def test_draws_are_shared() -> None:
    """The same features under another name come out the same in each draw."""
    scores = [SCORES[name] for name in ("logme", "linear_probe", "transrate")]
    first, again = (score_all(scores, examples(60), no_source="", draws=8) for _ in range(2))
    for name in ("logme", "linear_probe", "transrate"):
        assert np.array_equal(first.drawn[name], again.drawn[name])
        assert first.values[name].value == pytest.approx(again.values[name].value)
