"""Distances of source and target against scipy's root of a matrix, closed forms and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from headstart.transferability.distance import distances, frechet_distance, structure_cka


def normal(n: int, d: int, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + shift


def by_root(x: np.ndarray, y: np.ndarray) -> float:
    """The formula as it stands in Heusel et al. 2017, with a root of the product of covariances."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b)
    gap = x.mean(0) - y.mean(0)
    return float(gap @ gap + np.trace(a + b - 2 * np.real(root)))


@pytest.mark.parametrize(("n", "m"), [(60, 80), (9, 80), (60, 11), (11, 11)], ids=str)
def test_frechet_distance_is_the_formula(n: int, m: int) -> None:
    wide = 10
    x, y = normal(n, wide, 1, shift=0.3), normal(m, wide, 2, scale=2.0)
    assert frechet_distance(x, y) == pytest.approx(by_root(x, y), rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(7, 9), (40, 9), (9, 40), (2, 2)], ids=str)
def test_frechet_distance_of_fewer_images_than_features(n: int, m: int) -> None:
    """The trace of the root as the sum of roots of the eigenvalues of Cs^(1/2) Ct Cs^(1/2), which is symmetric."""
    x, y = normal(n, 30, 3), normal(m, 30, 4, shift=1.0)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(a)
    half = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(half @ b @ half), 0)).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b) - 2 * roots
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_diagonal_normals_has_a_closed_form() -> None:
    """Signs in all combinations give covariances that are exactly diagonal: sum (s1 - s2)^2 remains, and the means."""
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    of_one = np.sqrt((len(signs) - 1) / len(signs))
    a, b, shift = np.array([1.0, 2.0, 3.0, 0.0]), np.array([2.0, 2.0, 0.5, 1.0]), np.array([1.0, 0.0, -2.0, 0.0])
    found = frechet_distance(signs * of_one * a + shift, signs * of_one * b)
    assert found == pytest.approx(np.square(a - b).sum() + np.square(shift).sum(), rel=1e-12)


@pytest.mark.parametrize("n", [5, 50], ids=str)
def test_frechet_distance_is_none_from_itself_and_never_negative(n: int) -> None:
    x = normal(n, 12, 5, scale=1e3)
    x[:, 3] = 7.1  # constant
    x[:, 4] = x[:, 5]  # collinear
    found = frechet_distance(x, x[::-1])
    assert found is not None
    assert 0 <= found < 1e-9 * np.square(x - x.mean(0)).sum()


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def test_what_does_not_change_the_distances() -> None:
    x, y, q = normal(40, 8, 6, shift=0.5), normal(30, 8, 7), rotation(8, 8)
    before, turned, scaled = distances(x, y), distances(x @ q + 3, y @ q + 3), distances(1e6 * x, 1e6 * y)
    for name in ("frechet", "frechet_relative", "frechet_floor", "structure_cka"):
        assert turned[name] == pytest.approx(before[name], rel=1e-9), name
    assert scaled["frechet"] == pytest.approx(1e12 * before["frechet"], rel=1e-9)
    for name in ("frechet_relative", "frechet_floor", "structure_cka"):
        assert scaled[name] == pytest.approx(before[name], rel=1e-9), name
    assert before["frechet_relative"] == pytest.approx(before["frechet"] / np.trace(np.cov(y, rowvar=False)))
    assert (before["source_images"], before["target_images"]) == (40, 30)


def test_the_floor_is_where_a_distance_of_nothing_lies() -> None:
    rng = np.random.default_rng(9)
    mix = rng.normal(size=(10, 10))
    same = distances(rng.normal(size=(400, 10)) @ mix, rng.normal(size=(400, 10)) @ mix)
    other = distances(rng.normal(size=(400, 10)) @ mix + 2, rng.normal(size=(400, 10)) @ mix)
    assert 0 < same["frechet_relative"] < same["frechet_floor"] < other["frechet_relative"] / 5


def test_of_many_images_some_are_looked_at() -> None:
    x, y = normal(50, 4, 20), normal(20, 4, 21)
    found, again = distances(x, y, most=30), distances(x, y, most=30)
    assert found == again
    assert (found["source_images"], found["target_images"]) == (30, 20)
    assert found["frechet"] != pytest.approx(distances(x, y)["frechet"], rel=1e-3)
    sorted_x = x[np.argsort(x[:, 0])]  # one class after the other: the first ones are no sample
    assert distances(sorted_x, x, most=30)["frechet"] < frechet_distance(sorted_x[:30], x) / 2


@pytest.mark.parametrize(("n", "m"), [(60, 50), (5, 50), (50, 5), (5, 4)], ids=str)
def test_structure_cka_is_the_cosine_of_the_covariances(n: int, m: int) -> None:
    x, y = normal(n, 8, 13, shift=4.0), normal(m, 8, 14)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = (a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))
    assert structure_cka(x, y) == pytest.approx(expected, rel=1e-9)
    assert structure_cka(x, 3 * x + 1) == pytest.approx(1.0, rel=1e-12)


def test_structure_cka_is_nothing_at_right_angles() -> None:
    x = np.zeros((6, 4))
    y = np.zeros((7, 4))
    x[:, :2], y[:, 2:] = normal(6, 2, 15), normal(7, 2, 16)
    assert structure_cka(x, y) == 0


def test_what_cannot_be_had_is_none() -> None:
    x = normal(20, 5, 17)
    flat = np.full((20, 5), 0.1)
    assert frechet_distance(x[:1], x) is None
    assert structure_cka(flat, x) is None
    assert structure_cka(x[:1], x) is None
    spread = np.trace(np.cov(x, rowvar=False)) + np.square(x.mean(0) - 0.1).sum()
    of_flat = distances(x, flat)  # all that is known is how far away it is
    assert of_flat["frechet"] == pytest.approx(spread)
    assert of_flat["frechet_relative"] is of_flat["structure_cka"] is None
    for pair in ((x, np.where(x > 1, np.nan, x)), (x * np.inf, x), (x * 0, x * 0), (x[:1], x), (x[:0], x)):
        assert distances(*pair)["structure_cka"] is None
    assert distances(x, x[:3])["frechet_floor"] is None  # a half of one image


def test_features_of_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="5 dimensions, target features 4"):
        distances(np.ones((3, 5)), np.ones((3, 4)))
