"""Scores where they must not change, where there is little to go by, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import ConfigError, DataError
from headstart.transferability.scores import SCORES, Examples, check_scores, default_scores
from headstart.transferability.scores.logme import contributions, log_evidence
from headstart.transferability.scores.spectrum import spectrum_of

EVERY = list(SCORES)


def drawn(seed: int, n: int, d: int, classes: int) -> Examples:
    """Features whose classes overlap, each class with an example or more."""
    draw = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), draw.integers(classes, size=n - classes)])
    features = draw.standard_normal((n, d)) + 0.8 * draw.standard_normal((classes, d))[y]
    source = draw.dirichlet(np.ones(6), size=n)
    return Examples(features, y, "multiclass", classes, source)


def value(name: str, examples: Examples) -> float:
    found = SCORES[name].compute(examples)
    assert found.value is not None
    assert np.isfinite(found.value)
    if found.per_example is not None:
        assert found.per_example.shape == (len(examples),)
        assert found.per_example.mean() == pytest.approx(found.value, abs=1e-9)
    return found.value


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("n", "d"), [(60, 7), (24, 40)])
def test_neither_order_nor_names_of_classes_matter(name: str, n: int, d: int) -> None:
    examples = drawn(1, n, d, 4)
    before = value(name, examples)
    order = np.random.default_rng(2).permutation(n)
    assert value(name, examples.take(order)) == pytest.approx(before, abs=1e-9)
    renamed = replace(examples, targets=np.array([2, 3, 0, 1])[examples.targets])
    assert value(name, renamed) == pytest.approx(before, abs=1e-9)
    # a class that no image has is none
    gap = replace(examples, targets=np.array([0, 2, 3, 6])[examples.targets], outputs=9)
    assert value(name, gap) == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_per_example_follows_the_order(name: str) -> None:
    examples = drawn(3, 50, 5, 3)
    order = np.random.default_rng(0).permutation(50)
    before, after = (SCORES[name].compute(one).per_example for one in (examples, examples.take(order)))
    if before is None:
        assert after is None
        return
    assert after == pytest.approx(before[order], abs=1e-7)


def test_source_probabilities_need_not_sum_to_1_in_the_last_digits() -> None:
    """As half precision leaves them."""
    examples = drawn(4, 60, 3, 3)
    assert examples.source is not None
    rough = replace(examples, source=examples.source * np.linspace(0.995, 1.005, 60)[:, None])
    assert value("leep", rough) == pytest.approx(value("leep", examples), abs=1e-12)


@pytest.mark.parametrize("name", ["hscore", "leep", "nce", "knn", "centroids"])
def test_scale_does_not_matter(name: str) -> None:
    examples = drawn(4, 60, 6, 3)
    assert value(name, replace(examples, features=examples.features * 37.0)) == pytest.approx(
        value(name, examples), abs=1e-7
    )


def test_h_score_is_the_same_for_any_basis_of_the_features() -> None:
    examples = drawn(5, 80, 6, 3)
    mixed = examples.features @ np.random.default_rng(0).standard_normal((6, 6)) + 5.0
    assert value("hscore", replace(examples, features=mixed)) == pytest.approx(value("hscore", examples), abs=1e-8)
    twice = np.concatenate([examples.features, examples.features[:, :2]], axis=1)
    assert value("hscore", replace(examples, features=twice)) == pytest.approx(value("hscore", examples), abs=1e-8)


def strange(kind: str) -> Examples:
    base = drawn(6, 40, 8, 4)
    features: NDArray[Any] = base.features
    if kind == "fewer than features":
        return drawn(7, 20, 90, 3)
    if kind == "one example per class":
        return drawn(8, 12, 5, 12)
    if kind == "one example per class, fewer than features":
        return drawn(8, 6, 30, 6)
    if kind == "constant":
        features = np.full_like(features, 3.0)
    elif kind == "zero":
        features = np.zeros_like(features)
    elif kind == "some dead":
        features = np.where(np.arange(8) < 3, features, 0.0)
    elif kind == "collinear":
        features = np.concatenate([features, features @ np.ones((8, 6)), features], axis=1)
    elif kind == "single feature":
        features = features[:, :1]
    elif kind == "copies":
        return base.take(np.repeat(np.arange(10), 4))
    elif kind == "large":
        features = features * 1e12
    elif kind == "tiny":
        features = features * 1e-12
    elif kind == "float16":
        features = features.astype(np.float16)
    return replace(base, features=features)


KINDS = (
    "fewer than features",
    "one example per class",
    "one example per class, fewer than features",
    "constant",
    "zero",
    "some dead",
    "collinear",
    "single feature",
    "copies",
    "large",
    "tiny",
    "float16",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("error")
def test_is_finite_or_says_why_not(name: str, kind: str) -> None:
    examples = strange(kind)
    found = SCORES[name].compute(examples)
    if found.value is None:
        assert name == "linear_probe"
        assert "nothing can be held out" in found.note
        assert kind in ("constant", "zero") or kind.startswith("one example per class")
        return
    assert np.isfinite(found.value)
    order = np.random.default_rng(2).permutation(len(examples))
    again = SCORES[name].compute(examples.take(order)).value
    assert again == pytest.approx(found.value, rel=1e-6, abs=1e-7)


def test_features_that_say_nothing_get_the_value_of_nothing() -> None:
    for kind in ("constant", "zero"):
        examples = strange(kind)
        assert SCORES["hscore"].compute(examples).value == 0
        assert SCORES["hscore_shrunk"].compute(examples).value == 0
        assert SCORES["centroids"].compute(examples).value == 0
        assert SCORES["transrate"].compute(examples).value == pytest.approx(0, abs=1e-9)
        # all are neighbours of all: shares, not the first class
        assert 0 <= (SCORES["knn"].compute(examples).value or 0) <= 0.5


def test_logme_of_zero_features_is_that_of_noise_alone() -> None:
    examples = strange("zero")
    sizes = np.bincount(examples.targets)
    plain = np.mean([np.log(len(examples) / size) / 2 - 0.5 - np.log(2 * np.pi) / 2 for size in sizes])
    assert SCORES["logme"].compute(examples).value == pytest.approx(plain, abs=1e-12)


def test_logme_is_held_where_numbers_are_exactly_linear() -> None:
    draw = np.random.default_rng(0)
    features = draw.standard_normal((50, 4))
    exact = features @ draw.standard_normal((4, 1))
    found = SCORES["logme"].compute(Examples(features, exact, "regression", 1))
    assert "held at what float64 resolves" in found.note
    noisy = SCORES["logme"].compute(
        Examples(features, exact + 0.01 * draw.standard_normal((50, 1)), "regression", 1)
    )
    assert noisy.note == ""
    assert found.value is not None
    assert noisy.value is not None
    # 1/2 ln beta, at beta = N / (eps ||y||^2), leads
    beta = 50 / (np.finfo(float).eps * np.square(exact).sum())
    assert noisy.value + 5 < found.value < np.log(beta) / 2
    nothing = SCORES["logme"].compute(Examples(features, np.zeros((50, 1)), "regression", 1))
    assert (nothing.value, nothing.note) == (None, "the targets are all 0")


def test_collinear_features_add_nothing_to_logme_but_a_scale() -> None:
    """A column twice is the same model as that column times the root of two."""
    examples = drawn(9, 60, 5, 3)
    twice = np.concatenate([examples.features, examples.features[:, :1]], axis=1)
    scaled = examples.features * np.array([np.sqrt(2), 1, 1, 1, 1])
    values = [value("logme", replace(examples, features=features)) for features in (twice, scaled)]
    assert values[0] == pytest.approx(values[1], abs=1e-9)


@pytest.mark.parametrize("name", ["logme", "hscore", "hscore_shrunk"])
@pytest.mark.parametrize(("n", "d"), [(40, 6), (25, 30)])
def test_what_an_example_gives_is_the_slope_by_its_weight(name: str, n: int, d: int) -> None:
    """The data a thousand times over, and one of its examples once more, or once less."""
    if name == "hscore" and d > n:
        pytest.skip("its value is forced there")
    examples = drawn(10, n, d, 3)
    if name == "logme":  # that classes are not separable: alpha and beta come to rest
        labels = np.random.default_rng(0).integers(3, size=n)
        examples = replace(examples, targets=np.concatenate([labels, labels[::-1]]), source=None)
        examples = replace(examples, features=np.concatenate([examples.features, examples.features]))
        n *= 2
    many = examples.take(np.tile(np.arange(n), 300))
    base = SCORES[name].compute(many)
    assert base.per_example is not None
    assert base.value is not None
    for place in range(0, n, 5):
        more = SCORES[name].compute(many.take(np.append(np.arange(len(many)), place))).value
        assert more is not None
        slope = (more - base.value) * (len(many) + 1)
        assert slope == pytest.approx(base.per_example[place] - base.value, rel=0.02, abs=0.02)


@pytest.mark.parametrize(("n", "d"), [(20, 6), (12, 25)])
def test_what_an_example_gives_the_evidence_is_what_is_lost_without_it(n: int, d: int) -> None:
    """At the same alpha and beta; with more features than examples as well, where the model interpolates."""
    draw = np.random.default_rng(1)
    features, targets = draw.standard_normal((n, d)), draw.standard_normal((n, 2))
    spectrum = spectrum_of(features, targets, centre=False)
    for alphas, betas in (([2.0, 0.5], [3.0, 1.5]), ([1.0, 1.0], [1e7, 1e-3])):
        model = np.array(alphas), np.array(betas)
        found = contributions(spectrum, targets, *model)
        before = log_evidence(spectrum, n, *model)
        for place in range(n):
            rest = [np.delete(of, place, axis=0) for of in (features, targets)]
            after = log_evidence(spectrum_of(*rest, centre=False), n - 1, *model)
            assert before - after == pytest.approx(found[place], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("error")
def test_scales_that_float64_holds_are_scored_and_others_get_a_line(name: str) -> None:
    examples = replace(drawn(4, 30, 6, 3), keys=np.arange(30, dtype=np.uint64))
    before = value(name, examples)
    for power in (-99, 99):
        scaled = replace(examples, features=examples.features * 10.0**power)
        found = value(name, scaled)
        if name in ("hscore", "hscore_shrunk", "leep", "nce", "knn", "centroids", "linear_probe"):
            assert found == pytest.approx(before, abs=1e-7)
    for power in (-120, 160):
        with pytest.raises(DataError, match=r"features reach \S+: scores are for a scale of 1e-100 to 1e\+100"):
            SCORES[name].compute(replace(examples, features=examples.features * 10.0**power))


def test_names_are_checked() -> None:
    found = check_scores(["knn", "logme", "knn"], task="multiclass", outputs=3, classes_present=3)
    assert [score.name for score in found] == ["knn", "logme"]
    assert default_scores("regression") == ["logme", "linear_probe", "knn"] == default_scores("multilabel")
    assert default_scores("binary") == [name for name in EVERY if name not in ("leep", "nce")]
    for score in SCORES.values():
        assert score.title
        assert any(year in score.citation for year in map(str, range(1990, 2026)))


@pytest.mark.parametrize(
    ("names", "task", "classes", "words"),
    [
        (["logmee"], "multiclass", 3, "there is no such score. Did you mean 'logme'?"),
        (["zzz"], "multiclass", 3, "There are logme, leep"),
        (["transrate"], "regression", 0, "transrate needs classes, and the targets are continuous"),
        (["hscore"], "multilabel", 0, "hscore needs one class per image, and images have several"),
        (["logme"], "multiclass", 1, "1 of 3 classes has training images; scores need two classes or more"),
    ],
)
def test_what_does_not_fit_gets_a_line(names: list[str], task: str, classes: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_scores(names, task=task, outputs=3, classes_present=classes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_targets_and_features_that_are_wrong_get_a_line() -> None:
    good = drawn(0, 20, 4, 3)
    bad = [
        (replace(good, targets=good.targets + 1), "they must lie from 0 to 2"),
        (replace(good, targets=good.targets + 0.5), "not whole numbers"),
        (replace(good, targets=good.targets[:-1]), "20 rows of features, but 19"),
        (replace(good, features=np.where(np.arange(4) == 1, np.nan, good.features)), "not all finite"),
        (replace(good, features=good.features[:, 0]), "a score needs (examples, width)"),
        (replace(good, task="regression"), "expected (20, 3)"),
        (Examples(good.features, np.full((20, 2), 2), "multilabel", 2), "must lie from 0 to 1"),
        (Examples(good.features, np.full((20, 1), np.inf), "regression", 1), "targets are not all finite"),
    ]
    for examples, words in bad:
        with pytest.raises(DataError) as caught:
            SCORES["logme"].compute(examples)
        assert words in str(caught.value)
    for name in ("leep", "nce"):
        for source, words in (
            (None, "LEEP and NCE need the source's classifier"),
            (np.ones((20, 3)), "sum to 1"),
            (np.full((20, 2), np.nan), "sum to 1"),
            (np.ones((19, 1)), "for 20 images"),
        ):
            with pytest.raises(DataError) as caught:
                SCORES[name].compute(replace(good, source=source))
            assert words in str(caught.value)
