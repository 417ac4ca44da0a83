"""Scores against published values, and against their definitions written out on fresh draws in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from headstart.transferability.scores import SCORES, Examples
from headstart.transferability.scores.logme import log_evidence, precisions
from headstart.transferability.scores.spectrum import spectrum_of

Array = NDArray[np.float64]


def golden(n: int, d: int, classes: int, source: int) -> Examples:
    """The published table's data, which no generator draws."""
    i, j, k = np.arange(n)[:, None], np.arange(d)[None], np.arange(source)[None]
    y = (7 * np.arange(n)) % classes
    own = y[:, None] + 1
    features = (
        np.sin(0.37 * (i + 1) * (j + 1))
        + 0.5 * np.cos(0.11 * (i + 1) + 1.7 * j)
        + 0.8 * np.sin(1.3 * own * (j + 1))
    )
    logits = np.exp(2 * np.sin(0.53 * (i + 1) * (k + 1)) + 1.5 * np.cos(2.1 * own * (k + 1)))
    return Examples(features, y, "multiclass", classes, logits / logits.sum(axis=1, keepdims=True))


GOLDEN = {
    (200, 16, 4, 10): (
        24.911375624408656,
        67.37379961304748,
        {
            "logme": -0.06566310035844558,
            "leep": -1.2091304744978137,
            "nce": -1.1202014337091701,
            "hscore": 2.357506621885813,
            "hscore_shrunk": 2.1562490893700215,
            "transrate": 1.6001999555040243,
        },
    ),
    (60, 100, 3, 5): (
        168.4659694730694,
        28.2461568121472,
        {
            "leep": -0.8963484272206496,
            "nce": -0.6449383891946989,
            "hscore": 2.0000002,
            "hscore_shrunk": 1.9523828272562467,
            "transrate": 61.85541002812808,
        },
    ),
    (1000, 64, 10, 50): (
        848.1881659579684,
        70.39071888548892,
        {
            "logme": 0.4229914345993923,
            "leep": -1.9212421660141346,
            "nce": -1.4719970757983993,
            "hscore": 7.212075311534371,
            "hscore_shrunk": 7.066133384009467,
            "transrate": 16.09769537918072,
        },
    ),
}


@pytest.mark.parametrize("shape", GOLDEN)
def test_published_values_are_met(shape: tuple[int, int, int, int]) -> None:
    first, second, values = GOLDEN[shape]
    examples = golden(*shape)
    assert examples.source is not None
    assert examples.features.sum() == pytest.approx(first, abs=1e-9)
    assert np.square(examples.source).sum() == pytest.approx(second, abs=1e-9)
    for name, value in values.items():
        assert SCORES[name].compute(examples).value == pytest.approx(value, abs=1e-6), name


def test_logme_with_fewer_examples_than_features_is_the_evidence() -> None:
    """Where one known code gives NaN, and another leaves a term out and gives 3.70."""
    examples = golden(60, 100, 3, 5)
    found = SCORES["logme"].compute(examples)
    assert found.value == pytest.approx(1.867718, abs=1e-5)
    assert SCORES["hscore"].compute(examples).forced


def drawn(seed: int, n: int, d: int, classes: int, source: int = 7) -> Examples:
    """Random features whose classes differ, and a source that knows something of them."""
    draw = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), draw.integers(classes, size=n - classes)])
    features = draw.standard_normal((n, d)) + draw.standard_normal((classes, d))[y] + 0.3
    logits = np.exp(draw.standard_normal((n, source)) + draw.standard_normal((classes, source))[y])
    return Examples(features, y, "multiclass", classes, logits / logits.sum(axis=1, keepdims=True))


SHAPES = [(80, 12, 4), (30, 45, 3), (50, 1, 2), (25, 24, 5)]


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_logme_is_the_log_density_of_its_model(n: int, d: int, classes: int) -> None:
    """ln N(y; 0, FF' / alpha + I / beta), at the alpha and beta that were found."""
    examples = drawn(n, n, d, classes)
    targets = np.eye(classes)[examples.targets]
    spectrum = spectrum_of(examples.features, targets, centre=False)
    alphas, betas, _ = precisions(spectrum, n)
    found = log_evidence(spectrum, n, alphas, betas)
    gram = examples.features @ examples.features.T
    for output in range(classes):
        if betas[output] / alphas[output] * np.linalg.norm(gram, 2) > 1e10:
            continue  # float64 cannot invert such a covariance; mpmath does below
        covariance = gram / alphas[output] + np.eye(n) / betas[output]
        plain = multivariate_normal(np.zeros(n), covariance).logpdf(targets[:, output])
        assert found[output] == pytest.approx(plain, rel=1e-8, abs=1e-8)
    assert SCORES["logme"].compute(examples).value == pytest.approx(found.mean() / n, abs=1e-12)


def test_logme_is_the_log_density_where_hardly_any_noise_is_left() -> None:
    mpmath = pytest.importorskip("mpmath")
    examples = drawn(3, 9, 14, 2)
    targets = np.eye(2)[examples.targets]
    spectrum = spectrum_of(examples.features, targets, centre=False)
    alphas, betas, _ = precisions(spectrum, 9)
    assert betas.max() > 1e5
    with mpmath.workdps(60):
        features = mpmath.matrix(examples.features.tolist())
        for output in range(2):
            covariance = features * features.T / mpmath.mpf(alphas[output]) + mpmath.eye(9) / mpmath.mpf(
                betas[output]
            )
            y = mpmath.matrix(targets[:, output].tolist())
            inside = (y.T * mpmath.inverse(covariance) * y)[0]
            plain = -(inside + mpmath.log(mpmath.det(covariance)) + 9 * mpmath.log(2 * mpmath.pi)) / 2
            assert log_evidence(spectrum, 9, alphas, betas)[output] == pytest.approx(float(plain), abs=1e-6)


def plain_logme(features: Array, targets: Array) -> float:
    """The reference code's loop, as it stands in the paper, one output after another."""
    n, d = features.shape
    _, sigma, right = np.linalg.svd(features, full_matrices=True)
    s = np.zeros(d)
    s[: len(sigma)] = sigma**2
    total = 0.0
    for y in targets.T:
        alpha = beta = ratio = 1.0
        for _ in range(11):
            gamma = (s / (s + ratio)).sum()
            m = right.T @ ((right @ features.T @ y) / (ratio + s))
            alpha, beta = gamma / (m @ m), (n - gamma) / np.square(y - features @ m).sum()
            before, ratio = ratio, alpha / beta
            if abs(ratio - before) / before < 0.01:
                break
        m = np.linalg.solve(alpha * np.eye(d) + beta * features.T @ features, beta * features.T @ y)
        a = np.linalg.slogdet(alpha * np.eye(d) + beta * features.T @ features)[1]
        rest = np.square(y - features @ m).sum()
        log = d * math.log(alpha) + n * math.log(beta) - a - beta * rest - alpha * m @ m - n * math.log(2 * math.pi)
        total += log / 2 / n
    return total / targets.shape[1]


def by_logme(e: Examples) -> float:
    return plain_logme(e.features, np.eye(e.outputs)[e.targets])


def by_leep(e: Examples) -> float:
    assert e.source is not None
    n, total = len(e), 0.0
    for i in range(n):
        inner = 0.0
        for z in range(e.source.shape[1]):
            joint = sum(e.source[j, z] for j in range(n) if e.targets[j] == e.targets[i]) / n
            inner += joint / (e.source[:, z].sum() / n) * e.source[i, z]
        total += math.log(inner)
    return total / n


def by_nce(e: Examples) -> float:
    assert e.source is not None
    z, n = e.source.argmax(axis=1), len(e)
    pairs = list(zip(e.targets.tolist(), z.tolist(), strict=True))
    return sum(math.log(pairs.count(pair) / int((z == pair[1]).sum())) for pair in pairs) / n


def means(e: Examples, features: Array) -> Array:
    return np.stack([features[e.targets == y].mean(axis=0) for y in e.targets])


def by_hscore(e: Examples) -> float:
    between = np.atleast_2d(np.cov(means(e, e.features), rowvar=False))
    return float(np.trace(np.linalg.pinv(np.atleast_2d(np.cov(e.features, rowvar=False)), rcond=1e-12) @ between))


def by_hscore_shrunk(e: Examples) -> float:
    from sklearn.covariance import LedoitWolf

    centred = e.features - e.features.mean(axis=0)
    fit = LedoitWolf().fit(centred)
    between = np.atleast_2d(np.cov(means(e, centred), rowvar=False))
    return float((1 - fit.shrinkage_) * np.trace(np.linalg.inv(fit.covariance_) @ between))


def by_transrate(e: Examples) -> float:
    centred = e.features - e.features.mean(axis=0)

    def rate(rows: Array) -> float:
        inner = np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * 1e-4)
        return float(np.log(np.linalg.eigvalsh(inner)).sum() / 2)

    return rate(centred) - float(np.mean([rate(centred[e.targets == y]) for y in np.unique(e.targets)]))


def by_knn(e: Examples) -> float:
    right = 0
    for i, x in enumerate(e.features):
        alike = e.features @ x / np.linalg.norm(e.features, axis=1) / np.linalg.norm(x)
        alike[i] = -np.inf
        near = np.argsort(-alike)[: min(20, len(e) - 1)]
        votes = np.zeros(e.outputs)
        np.add.at(votes, e.targets[near], np.exp(alike[near] / 0.07))
        # one feature makes all signs alike: nearly all votes are tied then, and ours are shared
        right += int(votes.argmax() == e.targets[i])
    return right / len(e)


def by_centroids(e: Examples) -> float:
    total = 0.0
    for i, x in enumerate(e.features):
        away = {}
        for y in np.unique(e.targets):
            rows = e.features[(e.targets == y) & (np.arange(len(e)) != i)]
            if len(rows):
                away[y] = float(np.linalg.norm(x - rows.mean(axis=0)))
        if e.targets[i] not in away:
            continue
        a = away.pop(e.targets[i])
        total += (min(away.values()) - a) / max(min(away.values()), a)
    return total / len(e)


PLAIN: dict[str, Callable[[Examples], float]] = {
    "logme": by_logme,
    "leep": by_leep,
    "nce": by_nce,
    "hscore": by_hscore,
    "hscore_shrunk": by_hscore_shrunk,
    "transrate": by_transrate,
    "knn": by_knn,
    "centroids": by_centroids,
}


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
@pytest.mark.parametrize("name", PLAIN)
def test_agrees_with_its_definition(name: str, n: int, d: int, classes: int) -> None:
    if name == "knn" and d == 1:
        pytest.skip("with one feature all of one sign are equally near")
    if name == "logme" and d >= n - 1:
        pytest.skip("the plain loop cancels to nothing; its evidence is checked above")
    examples = drawn(n + 1, n, d, classes)
    assert SCORES[name].compute(examples).value == pytest.approx(PLAIN[name](examples), rel=1e-8, abs=1e-8)


def test_logme_of_numbers_and_labels_is_the_mean_over_them() -> None:
    draw = np.random.default_rng(5)
    features = draw.standard_normal((70, 9))
    numbers = features @ draw.standard_normal((9, 2)) + draw.standard_normal((70, 2))
    found = SCORES["logme"].compute(Examples(features, numbers, "regression", 2))
    assert found.value == pytest.approx(plain_logme(features, numbers), abs=1e-9)
    labels = (numbers > 0).astype(np.int64)
    found = SCORES["logme"].compute(Examples(features, labels, "multilabel", 2))
    assert found.value == pytest.approx(plain_logme(features, labels.astype(float)), abs=1e-9)
    # a label that no image has is left out, and said
    more = np.concatenate([labels, np.zeros((70, 1), dtype=np.int64)], axis=1)
    other = SCORES["logme"].compute(Examples(features, more, "multilabel", 3))
    assert other.value == pytest.approx(found.value, abs=1e-12)
    assert "without 1 outputs" in other.note


def test_float32_features_are_scored_in_float64() -> None:
    examples = drawn(11, 60, 8, 3)
    single = Examples(examples.features.astype(np.float32), examples.targets, "multiclass", 3)
    double = Examples(single.features.astype(np.float64), examples.targets, "multiclass", 3)
    for name in ("logme", "hscore", "hscore_shrunk", "transrate", "knn", "centroids"):
        values = [SCORES[name].compute(one).value for one in (single, double)]
        assert values[0] == pytest.approx(values[1], abs=1e-12), name


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    ("n", "rank", "d", "shift"), [(300, 20, 250, 0.0), (200, 20, 300, 3.0), (400, 60, 64, 3.0)]
)
def test_rounding_to_fewer_bits_makes_no_directions(
    n: int, rank: int, d: int, shift: float, dtype: type[np.floating[Any]]
) -> None:
    """Features of low rank stay so when they come as a network gives them."""
    draw = np.random.default_rng(0)
    y = draw.integers(5, size=n)
    features = draw.standard_normal((n, rank)) @ draw.standard_normal((rank, d)) + shift
    rounded = features.astype(dtype)
    assert len(spectrum_of(rounded, np.eye(5)[y], centre=True).squares) == rank
    values = [SCORES["hscore"].compute(Examples(one, y, "multiclass", 5)).value for one in (features, rounded)]
    assert values[1] == pytest.approx(values[0], abs=2e-4)
    # and what is weak but there is kept
    weak = draw.standard_normal((n, 8)) * np.logspace(0, -2, 8)
    assert len(spectrum_of(weak.astype(dtype), np.eye(5)[y], centre=True).squares) == 8


def test_weak_directions_are_not_lost_in_squares() -> None:
    """Singular values down to 1e-7 of the largest, which F'F in float64 does not hold."""
    draw = np.random.default_rng(2)
    left = np.linalg.qr(draw.standard_normal((60, 8)))[0]
    right = np.linalg.qr(draw.standard_normal((8, 8)))[0]
    sigma = np.logspace(0, -7, 8)
    targets = draw.standard_normal((60, 2))
    for features in (left * sigma @ right, np.linalg.qr(draw.standard_normal((90, 8)))[0] * sigma @ right):
        for some in (features, np.ascontiguousarray(features.T)):
            y = targets[: len(some)] if len(some) <= 60 else draw.standard_normal((90, 2))
            found = spectrum_of(some, y, centre=False)
            assert np.sort(np.sqrt(found.squares))[::-1] == pytest.approx(sigma, rel=1e-4)
            u = np.linalg.svd(some, full_matrices=False)[0]
            assert np.square(found.along).sum(axis=0) == pytest.approx(np.square(u.T @ y).sum(axis=0), rel=1e-4)
