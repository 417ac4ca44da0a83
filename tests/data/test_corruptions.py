"""Spoilt images: each corruption is what it says, stronger from one severity to the next, and always the same."""

from __future__ import annotations

import colorsys
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from headstart.data.corruptions import OF_LARGE, OF_SMALL, Pixels, chosen, constants, corrupt
from headstart.errors import ConfigError
from headstart.records.evaluations import CORRUPTIONS, FAMILIES, SEVERITIES

CIFAR = next(
    (file for p in Path(__file__).parents for file in p.glob("shared/data/cifar10/plain_text/test-*.parquet")), None
)
"""Real photographs of 32 pixels, where they lie beside the repository."""


def photographs(size: int) -> list[Pixels]:
    """Real photographs, (channels, height, width): two of scikit-learn's, and ten of CIFAR-10 where these are."""
    from sklearn.datasets import load_sample_images

    found = [Image.fromarray(image[:, 100:527]) for image in load_sample_images().images]
    if CIFAR is not None:
        from pyarrow import parquet

        rows = parquet.read_table(CIFAR, columns=["img"]).slice(0, 10).to_pylist()
        found += [Image.open(io.BytesIO(row["img"]["bytes"])) for row in rows]
    resized = [image.resize((size, size), Image.Resampling.BICUBIC) for image in found]
    return [np.asarray(image).transpose(2, 0, 1) for image in resized]


def grey(level: int, *, channels: int = 3, side: int = 64) -> Pixels:
    return np.full((channels, side, side), level, dtype=np.uint8)


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_each_strength_is_further_from_the_original(size: int) -> None:
    images = photographs(size)
    for name in CORRUPTIONS:
        distances = []
        for severity in SEVERITIES:
            spoilt = [corrupt(image, name, severity, example=str(i)) for i, image in enumerate(images)]
            assert all(
                one.shape == image.shape and one.dtype == np.uint8
                for one, image in zip(spoilt, images, strict=True)
            )
            gaps = [np.abs(a.astype(float) - b).mean() for a, b in zip(spoilt, images, strict=True)]
            distances.append(float(np.mean(gaps)))
        assert distances[0] > 0, name
        assert distances == sorted(set(distances)), (name, distances)


def test_constants_are_the_published_ones_at_their_sizes_and_go_from_one_to_the_other() -> None:
    """Spot checks against the authors' scripts, and every entry at its own size."""
    assert constants("gaussian_noise", 3, size=224) == (0.18,)
    assert constants("gaussian_noise", 3, size=32) == (0.08,)
    assert constants("defocus_blur", 5, size=224) == (10, 0.5)
    assert constants("jpeg_compression", 1, size=16) == (80,)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            small, large = OF_SMALL[name][severity - 1], OF_LARGE[name][severity - 1]
            assert constants(name, severity, size=32) == small
            assert constants(name, severity, size=224) == large
            for low, between, high in zip(small, constants(name, severity, size=96), large, strict=True):
                assert min(low, high) <= between <= max(low, high)
    # half of the way by ratios is the geometric mean, of sizes and of constants
    assert constants("contrast", 2, size=math.sqrt(32 * 224)) == (pytest.approx(math.sqrt(0.5 * 0.3)),)
    # lengths grow with the image, levels do not
    assert constants("motion_blur", 1, size=448) == (20, 6)
    assert constants("fog", 1, size=448) == (1.5, 2)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_image_is_spoilt_the_same_and_another_is_not(name: str) -> None:
    image = photographs(48)[0]
    before = image.copy()
    first = corrupt(image, name, 3, example="a")
    corrupt(image, "gaussian_noise", 1, example="b")  # what was drawn in between has no part in it
    np.random.seed(7)  # noqa: NPY002 - nor has the global state
    np.testing.assert_array_equal(first, corrupt(image, name, 3, example="a"))
    np.testing.assert_array_equal(image, before)
    other = corrupt(image, name, 3, example="b")
    random = name in (*FAMILIES["noise"], "motion_blur", "fog")
    assert (first != other).any() == random


def test_noise_has_the_spread_that_it_says() -> None:
    """On an even grey, where nothing is cut off: standard deviations by hand."""
    image = grey(128, side=224)
    level = 128 / 255

    def spread(name: str) -> float:
        return float((corrupt(image, name, 1, example="x") / 255).std())

    assert spread("gaussian_noise") == pytest.approx(0.08, rel=0.02)
    assert spread("speckle_noise") == pytest.approx(0.15 * level, rel=0.02)
    assert spread("shot_noise") == pytest.approx(math.sqrt(level / 60), rel=0.02)
    noisy = corrupt(image, "impulse_noise", 5, example="x")
    assert (noisy == 0).mean() == pytest.approx(0.27 / 2, rel=0.05)
    assert (noisy == 255).mean() == pytest.approx(0.27 / 2, rel=0.05)
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert len({channel.tobytes() for channel in noisy}) == 3


def test_contrast_and_brightness_are_their_formulas() -> None:
    image = photographs(224)[0]
    values = image / 255
    means = values.mean(axis=(1, 2), keepdims=True)
    expected = np.rint(np.clip((values - means) * 0.4 + means, 0, 1) * 255)
    np.testing.assert_array_equal(corrupt(image, "contrast", 1, example="x"), expected)
    lighter = corrupt(image, "brightness", 2, example="x")
    for row, column in [(0, 0), (50, 100), (223, 223), (120, 7)]:
        hue, saturation, value = colorsys.rgb_to_hsv(*values[:, row, column])
        rgb = np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))) * 255
        np.testing.assert_allclose(lighter[:, row, column], rgb, atol=0.51)
    black = corrupt(grey(0), "brightness", 5, example="x")
    assert len(np.unique(black)) == 1
    assert black.max() > 0


def test_jpeg_and_pixels_are_pillows() -> None:
    image = photographs(224)[1]
    picture = Image.fromarray(image.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=10)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    np.testing.assert_array_equal(corrupt(image, "jpeg_compression", 4, example="x"), expected)
    coarse = picture.resize((134, 134), Image.Resampling.BOX).resize((224, 224), Image.Resampling.BOX)
    np.testing.assert_array_equal(corrupt(image, "pixelate", 1, example="x"), np.asarray(coarse).transpose(2, 0, 1))


def test_a_defocused_point_is_a_disk() -> None:
    image = grey(0, side=224)
    image[:, 112, 112] = 255
    # 255 x the share of each pixel, too faint for bytes at once: brighter where many points lie
    image[:, 40:70, 40:70] = 255
    spoilt = corrupt(image, "defocus_blur", 1, example="x")
    rows, columns = np.mgrid[-5:6, -5:6]
    disk = np.mean(
        [
            (rows + a) ** 2 + (columns + b) ** 2 <= 9
            for a in np.linspace(-0.48, 0.48, 25)
            for b in np.linspace(-0.48, 0.48, 25)
        ],
        axis=0,
    )
    expected = ndimage.convolve(image[0] / 255, disk / disk.sum(), mode="mirror") * 255
    np.testing.assert_allclose(spoilt[0], expected, atol=2.5)
    assert spoilt[0, 112, 112] == pytest.approx(255 / (math.pi * 9), abs=1)


@pytest.mark.parametrize("example", ["x", "y", "z"])
def test_a_moved_point_is_half_a_gaussian_along_a_line(example: str) -> None:
    image = grey(0, side=224)
    image[:, 112, 112] = 255
    kernel = corrupt(image, "motion_blur", 2, example=example)[0] / 255  # 31 steps, sigma 5
    rows, columns = np.nonzero(kernel)
    down, right, weights = rows - 112, columns - 112, kernel[rows, columns]
    assert weights.sum() == pytest.approx(1, abs=0.03)
    far = np.hypot(down, right).argmax()
    angle = math.atan2(down[far], right[far])
    assert abs(angle) <= math.radians(46)
    assert np.abs(right * math.sin(angle) - down * math.cos(angle)).max() < 1.1  # one line, from the point on
    steps = np.arange(31)
    half = np.exp(-(steps**2) / 50) / np.exp(-(steps**2) / 50).sum()
    along = right * math.cos(angle) + down * math.sin(angle)
    assert along.min() >= 0
    assert (along * weights).sum() == pytest.approx((steps * half).sum(), rel=0.1)  # its end is too faint for bytes


def test_zoom_blur_is_the_mean_of_enlarged_copies() -> None:
    image = photographs(224)[0]
    values = image[0] / 255
    middle = np.array([111.5, 111.5])
    copies = [
        ndimage.affine_transform(
            values, [1 / zoom, 1 / zoom], offset=middle - middle / zoom, order=1, mode="nearest"
        )
        for zoom in np.arange(1, 1.105, 0.01)
    ]
    expected = (values + np.sum(copies, axis=0)) / (len(copies) + 1) * 255
    np.testing.assert_allclose(corrupt(image, "zoom_blur", 1, example="x")[0], expected, atol=0.51)


def test_fog_lightens_and_never_outshines_the_brightest() -> None:
    image = grey(100, side=224)
    image[:, 0, 0] = 200
    spoilt = corrupt(image, "fog", 1, example="x")
    brightest = 200 / 255
    assert spoilt.max() <= 200
    # with a cloud of 0 to 1 on top: (x + 1.5 cloud) b / (b + 1.5)
    low = 100 / 255 * brightest / (brightest + 1.5) * 255
    high = (100 / 255 + 1.5) * brightest / (brightest + 1.5) * 255
    assert spoilt.min() == pytest.approx(low, abs=1)
    assert spoilt[:, 1:, 1:].max() == pytest.approx(high, abs=12)
    assert (spoilt[0] == spoilt[1]).all()  # one cloud for all colours
    assert not corrupt(grey(0), "fog", 5, example="x").any()


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_any_number_of_channels_and_any_shape(channels: int) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (channels, 33, 47), dtype=np.uint8)
    for name in CORRUPTIONS:
        spoilt = corrupt(image, name, 4, example="x")
        assert spoilt.shape == image.shape
        assert spoilt.dtype == np.uint8
        assert (spoilt != image).any(), name
    if channels != 3:  # each as a grey image by itself
        alone = corrupt(image[:1], "jpeg_compression", 4, example="x")
        np.testing.assert_array_equal(corrupt(image, "jpeg_compression", 4, example="x")[:1], alone)


def test_names_families_and_what_is_neither() -> None:
    assert chosen(["all"]) == CORRUPTIONS
    assert chosen(["blur", "fog", "zoom_blur"]) == ("defocus_blur", "motion_blur", "zoom_blur", "fog")
    with pytest.raises(
        ConfigError, match=r"--corrupt gausian_noise: there is no such corruption\. Did you mean 'gaussian_noise'"
    ):
        chosen(["fog", "gausian_noise"])
    with pytest.raises(ConfigError, match="--severity 6"):
        corrupt(grey(9), "fog", 6, example="x")
