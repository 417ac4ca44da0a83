"""Hashes, candidates and likeness against direct computations, and on real photographs."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dct
from tests.audit.photographs import COPIES, pieces

from headstart.audit import candidates, duplicates
from headstart.audit.candidates import like_pairs
from headstart.audit.likeness import MIRROR, ZOOM, hashes, likeness
from headstart.audit.look import Looks, sketch_of

CIFAR = next(
    (file for p in Path(__file__).parents for file in p.glob("shared/data/cifar10/plain_text/test-*.parquet")), None
)


def sketches_of(images: list[Image.Image]) -> np.ndarray:
    return np.stack([sketch_of(image.convert("L")) for image in images])


def looks_of(images: list[Image.Image]) -> Looks:
    n = len(images)
    digests = np.random.default_rng(0).integers(0, 2**63, (n, 2), dtype=np.uint64)
    sizes = np.array([image.size for image in images], dtype=np.int32)
    return Looks(("train",) * n, np.arange(n), digests, sketches_of(images), sizes, ("",) * n, ("",) * n, {}, {})


def test_a_hash_is_the_signs_of_the_lowest_frequencies() -> None:
    sketches = np.random.default_rng(0).integers(0, 256, (5, 16, 16)).astype(np.uint8)
    direct = dct(dct(sketches.astype(np.float64), axis=1, norm="ortho"), axis=2, norm="ortho")
    order = sorted(((u, v) for u in range(12) for v in range(12)), key=lambda f: (f[0] + f[1], f[0]))[1:65]
    for code, coefficients in zip(hashes(sketches), direct, strict=True):
        signs = sorted(int(coefficients[f] > 0) for f in order)
        assert int(code).bit_count() == sum(signs)
    # one frequency alone turns one bit, and another frequency another
    k = np.arange(16)
    bits = set()
    for u, v in order:
        wave = np.outer(np.cos(np.pi * (k + 0.5) * u / 16), np.cos(np.pi * (k + 0.5) * v / 16))
        rest = np.random.default_rng(1).normal(size=(16, 16))
        plus, minus = (hashes((128 + s * 90 * wave + rest)[None])[0] for s in (1, -1))  # type: ignore[arg-type]
        strongest = [b for b in range(64) if (int(plus) ^ int(minus)) >> b & 1]
        bits |= set(strongest) if len(strongest) == 1 else set()
    assert len(bits) > 40


def test_mirroring_is_one_exclusive_or() -> None:
    sketches = np.random.default_rng(0).integers(0, 256, (50, 16, 16)).astype(np.uint8)
    assert (hashes(sketches[:, :, ::-1]) == hashes(sketches) ^ MIRROR).all()


def test_a_zoomed_hash_is_that_of_the_cropped_picture() -> None:
    images = list(pieces())
    inner = [im.crop((3, 3, 97, 97)) for im in images]
    plain = np.bitwise_count(hashes(sketches_of(images)) ^ hashes(sketches_of(inner)))
    zoomed = np.bitwise_count(hashes(sketches_of(images), zoom=ZOOM) ^ hashes(sketches_of(inner)))
    assert zoomed.mean() < plain.mean() / 2


def test_all_pairs_within_seven_bits_are_found_and_none_beyond_eleven() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 2**63, 300, dtype=np.uint64)
    more = []
    for code in codes[:200]:
        flips = random.choice(64, random.integers(1, 16), replace=False)
        more.append(code ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64)))
    everything = np.concatenate([codes, np.array(more, dtype=np.uint64), codes[:5]])
    found = like_pairs(everything, [everything])
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    apart = {
        (i, j): int(everything[i] ^ everything[j]).bit_count() for i, j in combinations(range(len(everything)), 2)
    }
    assert {pair for pair, bits in apart.items() if bits <= 7} <= pairs
    assert pairs <= {pair for pair, bits in apart.items() if bits <= 11}
    between = {pair for pair, bits in apart.items() if 8 <= bits <= 11}
    assert len(pairs & between) > 0.6 * len(between)
    assert found.complete
    assert len(pairs) == len(found.first)


def test_a_crowd_is_thinned_and_said_and_what_is_alone_is_still_found() -> None:
    random = np.random.default_rng(0)
    crowd = np.full(3000, 0x0123456789ABCDEF, dtype=np.uint64) ^ np.uint64(1) << random.integers(
        0, 64, 3000
    ).astype(np.uint64)
    alone = np.repeat(random.integers(0, 2**63, 20, dtype=np.uint64), 2)
    codes = np.concatenate([crowd, alone])
    found = like_pairs(codes, [codes], most_looked=2_000_000, most_kept=20_000)
    assert not found.complete
    assert len(found.first) <= 60_000
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert {(3000 + 2 * i, 3001 + 2 * i) for i in range(20)} <= pairs


def test_likeness_is_the_coefficient_of_determination() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (2, 16, 16)).astype(np.uint8)

    def explained(one: np.ndarray, other: np.ndarray) -> float:
        one = one.astype(np.float64)
        down, across = np.gradient(one)
        x, y = np.meshgrid(np.arange(16) - 7.5, np.arange(16) - 7.5)
        terms = [np.ones((16, 16)), one, across, down, across * x, down * y]
        matrix = np.stack([term[1:-1, 1:-1].ravel() for term in terms], axis=1)
        target = other[1:-1, 1:-1].ravel().astype(np.float64)
        weights, *_ = np.linalg.lstsq(matrix, target, rcond=None)
        assert weights[1] > 0 or other is b
        rest = target - matrix @ weights
        return 0.0 if weights[1] <= 0 else 1 - rest @ rest / ((target - target.mean()) ** 2).sum()

    mixed = (0.6 * a + 0.4 * b).astype(np.uint8)
    expected = min(explained(a, mixed), explained(mixed, a))
    assert likeness(a[None], mixed[None])[0] == pytest.approx(expected, abs=1e-6)
    assert likeness(a[None], (255 - a)[None])[0] == 0
    assert likeness(a[None], (a // 2 + 60)[None])[0] > 0.99


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_photographs_are_found_and_nothing_else(how: str) -> None:
    originals = list(pieces())
    copies = [COPIES[how](image) for image in originals]
    found = duplicates.find_copies(looks_of([*originals, *copies]))
    n = len(originals)
    right = {near.first for near in found.near if near.second - near.first == n}
    assert len(right) >= 0.95 * n
    assert [near for near in found.near if near.second - near.first != n] == []
    if how == "mirrored":
        assert sum(near.mirrored for near in found.near) > 0.9 * n
    else:
        assert not any(near.mirrored for near in found.near)


@pytest.mark.skipif(CIFAR is None, reason="needs CIFAR-10 photographs, which are not here")
def test_copies_among_thousands_of_photographs() -> None:
    from pyarrow import parquet

    rows = parquet.read_table(CIFAR).column("img").to_pylist()
    images = [Image.open(io.BytesIO(row["bytes"])).convert("RGB") for row in rows[:2000]]
    own = {(near.first, near.second) for near in duplicates.find_copies(looks_of(images)).near}
    assert own == {(730, 1128)}  # one horse twice, of 2 million pairs
    for how, make in COPIES.items():
        found = duplicates.find_copies(looks_of([*images, *map(make, images)])).near
        right = {near.first for near in found if near.second - near.first == 2000}
        assert len(right) >= 0.99 * 2000, how


def test_flat_and_tiny_images_are_left_aside_and_counted() -> None:
    flat = [Image.new("L", (40, 40), 100 + i % 3) for i in range(500)]
    tiny = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)) for i in range(7)]
    found = duplicates.find_copies(looks_of([*flat, *tiny, *pieces()]))
    assert (found.flat, found.small, found.near) == (500, 7, ())


def test_pictures_of_one_kind_are_likenesses_and_no_copies() -> None:
    from sklearn.datasets import load_digits

    scans = [Image.fromarray(np.rint(scan * 15.9).astype(np.uint8)) for scan in load_digits().images]
    larger = [scan.resize((28, 28), Image.Resampling.BICUBIC) for scan in scans]
    found = duplicates.find_copies(looks_of(larger))
    assert found.alike > 800
    assert len(found.near) < 100


def test_the_bounds_are_those_of_the_docs() -> None:
    assert (duplicates.ALIKE, duplicates.LEAST_SIDE, duplicates.LEAST_CONTRAST) == (0.93, 16, 5.0)
    assert candidates.MOST_BITS == 11
