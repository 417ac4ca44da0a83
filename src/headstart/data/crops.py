"""Where an image is cut: random resized crops, and crops of one size, for many images at once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from headstart.data.draws import Draws

Boxes = npt.NDArray[np.int64]
"""(n, 4): top, left, height and width in pixels."""

_TRIES = 10
RESIZED_DRAWS = 2 * _TRIES + 2
"""How many draws an image's random resized crop takes."""
PLACED_DRAWS = 2
"""How many draws the place of a crop takes."""


def random_resized(
    sizes: npt.NDArray[np.int64], draws: Draws, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> Boxes:
    """Boxes in images of `sizes` (n, 2): their share of the area is uniform in `scale`, the logarithm of width
    over height is in that of `ratio`.

    As torchvision's RandomResizedCrop: the first of ten tries that lies inside, else the whole image, its longer
    side cut to `ratio`. `draws` is (n, RESIZED_DRAWS).
    """
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    tries = draws[:, : 2 * _TRIES].reshape(len(draws), _TRIES, 2)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * tries[:, :, 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + (high - low) * tries[:, :, 1])
    widths, heights = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.argmax(axis=1)
    rows = np.arange(len(draws))
    inside = fits[rows, first]
    box_height = np.where(inside, heights[rows, first], np.minimum(height, np.rint(width / ratio[0]))[:, 0])
    box_width = np.where(inside, widths[rows, first], np.minimum(width, np.rint(height * ratio[1]))[:, 0])
    cut = np.stack([box_height, box_width], axis=1).astype(np.int64)
    cut = np.maximum(cut, 1)
    centred = (sizes - cut) // 2
    placed = _placed(sizes, cut, draws[:, 2 * _TRIES :])
    return np.concatenate([np.where(inside[:, None], placed, centred), cut], axis=1)


def random_placed(sizes: npt.NDArray[np.int64], draws: Draws, *, size: tuple[int, int]) -> Boxes:
    """Boxes of one `size` anywhere in images of `sizes`, none of which is smaller; `draws` is (n, PLACED_DRAWS)."""
    cut = np.tile(np.array(size, dtype=np.int64), (len(sizes), 1))
    return np.concatenate([_placed(sizes, cut, draws), cut], axis=1)


def _placed(sizes: npt.NDArray[np.int64], cut: npt.NDArray[np.int64], draws: Draws) -> npt.NDArray[np.int64]:
    return np.floor(draws * (sizes - cut + 1)).astype(np.int64)
