"""Images spoilt at five strengths, as in ImageNet-C and CIFAR-10-C (Hendrycks and Dietterich 2019).

The constants are those of the authors' own scripts: ImageNet-C's for images of 224 pixels and above, CIFAR-10-C's
for 32 and below. Between the two they go from one to the other by equal ratios of the size, so that each is met
exactly at its own size; lengths in pixels grow on with the image above 224.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.errors import ConfigError, did_you_mean
from headstart.records.evaluations import CORRUPTIONS, FAMILIES, SEVERITIES
from headstart.seeds import derive

Pixels = npt.NDArray[np.uint8]
"""(channels, height, width)."""
Floats = npt.NDArray[np.float64]
"""The same in [0, 1]."""
Values = tuple[float, ...]
Constants = tuple[Values, Values, Values, Values, Values]
"""One entry per severity."""

SMALL, LARGE = 32, 224
"""Sides in pixels of the images that the two sets of constants were made for."""


def _each(*values: float) -> Constants:
    a, b, c, d, e = values
    return (a,), (b,), (c,), (d,), (e,)


OF_SMALL: Mapping[str, Constants] = {
    "gaussian_noise": _each(0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _each(500, 250, 100, 75, 50),
    "impulse_noise": _each(0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": _each(0.06, 0.1, 0.12, 0.16, 0.2),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2.25), (9, 2.5)),
    "zoom_blur": ((0.05, 6), (0.1, 11), (0.15, 16), (0.2, 21), (0.25, 26)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": _each(0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": _each(0.75, 0.5, 0.4, 0.3, 0.15),
    "pixelate": _each(0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": _each(80, 65, 58, 50, 40),
}
"""CIFAR-10-C's. Its motion blur has a standard deviation of 2 at severities 3 and 4, which then hardly differ."""

OF_LARGE: Mapping[str, Constants] = {
    "gaussian_noise": _each(0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": _each(60, 25, 12, 5, 3),
    "impulse_noise": _each(0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": _each(0.15, 0.2, 0.35, 0.45, 0.6),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((0.1, 11), (0.15, 16), (0.2, 11), (0.24, 13), (0.3, 11)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": _each(0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": _each(0.4, 0.3, 0.2, 0.1, 0.05),
    "pixelate": _each(0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": _each(25, 18, 15, 10, 7),
}
"""ImageNet-C's."""

_LENGTHS = {"defocus_blur": (0,), "motion_blur": (0, 1)}
"""Which of the constants are lengths in pixels."""


def constants(name: str, severity: int, *, size: float) -> Values:
    """What a corruption of `severity` 1 to 5 is made with, for images with sides of about `size` pixels."""
    share = min(1.0, max(0.0, math.log(size / SMALL) / math.log(LARGE / SMALL)))
    small, large = OF_SMALL[name][severity - 1], OF_LARGE[name][severity - 1]
    # the ends themselves: a power of them may differ in the last bit
    values = [
        a if share == 0 else b if share == 1 else a ** (1 - share) * b**share
        for a, b in zip(small, large, strict=True)
    ]
    if name == "defocus_blur":  # what softens the edge goes evenly: by ratios, both would be tiny in between
        values[1] = (1 - share) * small[1] + share * large[1]
    for place in _LENGTHS.get(name, ()):
        values[place] *= max(1.0, size / LARGE)
    return tuple(values)


def chosen(words: list[str]) -> tuple[str, ...]:
    """The corruptions that `words` name, themselves, by family or as `all`, in the order of `CORRUPTIONS`.

    Raises ConfigError for a word that is neither.
    """
    known = {"all": CORRUPTIONS, **FAMILIES, **{name: (name,) for name in CORRUPTIONS}}
    for word in words:
        if word not in known:
            raise ConfigError(
                f"--corrupt {word}: there is no such corruption.{did_you_mean(word, known)} There are all, "
                f"{', '.join(FAMILIES)}, {', '.join(CORRUPTIONS)}."
            )
    wanted = {name for word in words for name in known[word]}
    return tuple(name for name in CORRUPTIONS if name in wanted)


def corrupt(image: Pixels, name: str, severity: int, *, example: str) -> Pixels:
    """A spoilt copy of an image (channels, height, width).

    What is random in it follows from the corruption and `example`, the image's id: neither its place in a batch nor
    who loads it matters, and severities share their draws, so that each is more of the same. Three channels are
    colours. Of any other number each is a grey image by itself, blurred and fogged like the others. Raises
    ConfigError for a severity that is not from 1 to 5.
    """
    if severity not in SEVERITIES:
        raise ConfigError(f"--severity {severity}: must be one of {', '.join(map(str, SEVERITIES))}.")
    size = math.sqrt(image.shape[1] * image.shape[2])
    random = np.random.default_rng(derive(0, "corruption", name, example))
    return _KINDS[name](image, constants(name, severity, size=size), random)


def _as_bytes(values: Floats) -> Pixels:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    return _as_bytes(image / 255 + random.normal(scale=c[0], size=image.shape))


def _shot_noise(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    return _as_bytes(random.poisson(image / 255 * c[0]) / c[0])


def _impulse_noise(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    """Salt and pepper in each channel by itself: the share c[0] of all values, half of them white."""
    draw = random.random(image.shape)
    return np.where(draw < c[0] / 2, 0, np.where(draw < c[0], 255, image)).astype(np.uint8)


def _speckle_noise(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    return _as_bytes(image / 255 * (1 + random.normal(scale=c[0], size=image.shape)))


def _defocus_blur(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    return _filtered(image, _disk(c[0], blur=c[1]), edges="reflect")


def _disk(radius: float, *, blur: float) -> Floats:
    """A disk whose edge is softened by a Gaussian of standard deviation `blur`; sums to 1.

    A pixel counts by the share of it that is covered, where the authors' counts wholly or not at all: else a radius
    between theirs would do nothing until it reaches the next pixel.
    """
    from scipy.ndimage import gaussian_filter

    soft = 1 if radius <= 8 else 2
    reach = soft + math.ceil(radius)
    points = (np.arange((2 * reach + 1) * _FINE) + 0.5) / _FINE - reach - 0.5
    inside = (points[:, None] ** 2 + points**2 <= radius**2).astype(np.float64)
    covered = inside.reshape(2 * reach + 1, _FINE, 2 * reach + 1, _FINE).mean(axis=(1, 3))
    found: Floats = gaussian_filter(covered, blur, radius=soft, mode="constant")
    return found / found.sum()


_FINE = 16
"""Points along a pixel's side at which it is asked whether it is covered."""


def _motion_blur(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    """Half a Gaussian of 2 c[0] + 1 steps along a line, as ImageMagick's, at up to 45 degrees from level."""
    angle = math.radians(random.uniform(-45, 45))
    reach = 2 * round(c[0])
    steps = np.arange(reach + 1)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    rows = np.ceil(steps * math.sin(angle) - 0.5).astype(int)
    columns = np.ceil(steps * math.cos(angle) - 0.5).astype(int)
    np.add.at(kernel, (reach + rows, reach + columns), np.exp(-(steps**2) / (2 * c[1] ** 2)))
    return _filtered(image, kernel / kernel.sum(), edges="edge")


def _filtered(image: Pixels, kernel: Floats, *, edges: str) -> Pixels:
    """Each channel convolved with a kernel of odd sides; `edges` says what lies beyond the image."""
    from scipy.signal import fftconvolve

    reach = kernel.shape[0] // 2
    padded = np.pad(image / 255, ((0, 0), (reach, reach), (reach, reach)), mode=edges)  # type: ignore[call-overload]
    return _as_bytes(fftconvolve(padded, kernel[None], mode="valid", axes=(1, 2)))


def _zoom_blur(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    """The mean of the image and of copies of it enlarged up to 1 + c[0] times, about its middle."""
    values = image / 255
    count = round(c[1])
    total = values.copy()
    for zoom in np.linspace(1, 1 + c[0], count):
        total += _stretched(_stretched(values, zoom, axis=1), zoom, axis=2)
    return _as_bytes(total / (count + 1))


def _stretched(values: Floats, zoom: float, *, axis: int) -> Floats:
    """Enlarged along an axis about its middle, by linear interpolation; as large as before."""
    last = values.shape[axis] - 1
    places = last / 2 + (np.arange(last + 1) - last / 2) / zoom
    below = np.minimum(np.floor(places).astype(int), max(0, last - 1))
    share = (places - below).reshape([-1 if i == axis else 1 for i in range(3)])
    above = np.minimum(below + 1, last)
    found: Floats = values.take(below, axis) * (1 - share) + values.take(above, axis) * share
    return found


def _fog(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    values = image / 255
    height, width = values.shape[1:]
    side = 2 ** math.ceil(math.log2(max(height, width, 2)))
    foggy = values + c[0] * _plasma(side, c[1], random)[:height, :width]
    brightest = values.max()
    return _as_bytes(foggy * brightest / (brightest + c[0]))


def _plasma(side: int, decay: float, random: np.random.Generator) -> Floats:
    """Clouds (side, side) in [0, 1] by the diamond-square algorithm; `side` is a power of two."""
    found = np.zeros((side, side))
    step, wobble = side, 100.0

    def near(total: Floats) -> Floats:
        return total / 4 + wobble * random.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = found[::step, ::step]
        sides = corners + np.roll(corners, -1, axis=0)
        found[half::step, half::step] = near(sides + np.roll(sides, -1, axis=1))
        middles = found[half::step, half::step]
        above = middles + np.roll(middles, 1, axis=0)
        found[::step, half::step] = near(above + corners + np.roll(corners, -1, axis=1))
        beside = middles + np.roll(middles, 1, axis=1)
        found[half::step, ::step] = near(beside + corners + np.roll(corners, -1, axis=0))
        step, wobble = half, wobble / decay
    found -= found.min()
    return found / (found.max() or 1.0)


def _brightness(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    """More of HSV's value, hue and saturation kept; of grey, more of it."""
    values = image / 255
    if len(values) != 3:
        return _as_bytes(values + c[0])
    value = values.max(axis=0)
    more = np.minimum(value + c[0], 1)
    return _as_bytes(np.where(value > 0, values * (more / np.where(value > 0, value, 1)), more))


def _contrast(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    values = image / 255
    means = values.mean(axis=(1, 2), keepdims=True)
    return _as_bytes((values - means) * c[0] + means)


def _pixelate(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    height, width = image.shape[1:]
    small = (max(1, int(width * c[0])), max(1, int(height * c[0])))

    def coarse(picture: Image.Image) -> Image.Image:
        return picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _by_pictures(image, coarse)


def _jpeg_compression(image: Pixels, c: Values, random: np.random.Generator) -> Pixels:
    def packed(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=round(c[0]))
        return Image.open(file)

    return _by_pictures(image, packed)


def _by_pictures(image: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    """A change of PIL images: of the colours together where there are three, else of each channel."""
    if len(image) == 3:
        return np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))).transpose(2, 0, 1)
    return np.stack([np.asarray(change(Image.fromarray(channel))) for channel in image])


_KINDS: Mapping[str, Callable[[Pixels, Values, np.random.Generator], Pixels]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
