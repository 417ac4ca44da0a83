"""Real photographs for the tests: scikit-learn's two, cut into pieces, and copies of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageEnhance


@lru_cache
def pieces(side: int = 100, contrast: float = 5.0) -> tuple[Image.Image, ...]:
    """Squares of `side` pixels that do not overlap and show more than plain sky."""
    from sklearn.datasets import load_sample_images

    found = []
    for array in load_sample_images().images:
        for y in range(0, array.shape[0] - side + 1, side):
            for x in range(0, array.shape[1] - side + 1, side):
                piece = Image.fromarray(array[y : y + side, x : x + side])
                if np.asarray(piece.convert("L").resize((16, 16), Image.Resampling.BILINEAR)).std() > contrast:
                    found.append(piece)
    return tuple(found)


def jpeg(image: Image.Image, quality: int = 50) -> Image.Image:
    target = io.BytesIO()
    image.save(target, "JPEG", quality=quality)
    return Image.open(io.BytesIO(target.getvalue())).convert("RGB")


def resized(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * 0.7), round(image.height * 0.7)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Image.Image:
    x, y = round(image.width * 0.03), round(image.height * 0.03)
    return image.crop((x, y, image.width - x, image.height - y))


def lighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.1)


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": jpeg,
    "resized": resized,
    "cropped": cropped,
    "lighter": lighter,
    "mirrored": mirrored,
}
