"""How alike two pictures are: a hash that finds likely copies, and a comparison that is sure of them.

Sketches are (n, 16, 16) grey levels. The hash is the perceptual hash of the discrete cosine transform (pHash,
Zauner 2010), with the signs of the 64 lowest frequencies: mirroring a picture turns the signs of those that are odd
across, so that mirrored copies are found by one exclusive or.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

Sketches = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint64]

ZOOM = 0.94
"""What remains of a side when 3 % of each edge is cut off."""
_ROWS = 512


def _frequencies() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(64,) frequencies down and across, dealt out to four bands so that each has low ones and high ones."""
    down, across = np.meshgrid(np.arange(12), np.arange(12), indexing="ij")
    lowest = np.lexsort((down.ravel(), (down + across).ravel()))[1:65]  # the mean is no part of it
    dealt = np.concatenate([lowest[band::4] for band in range(4)])
    return down.ravel()[dealt], across.ravel()[dealt]


_DOWN, _ACROSS = _frequencies()


def _pack(bits: npt.NDArray[np.bool_]) -> Codes:
    return np.packbits(np.ascontiguousarray(bits), axis=1).view(np.uint64)[:, 0]


MIRROR = _pack((_ACROSS % 2 == 1)[None])[0]
"""A mirrored picture's hash is the picture's exclusive-or this."""


def hashes(sketches: Sketches, *, zoom: float = 1.0) -> Codes:
    """(n,) hashes of 64 bits, of the middle `zoom` of each side."""
    codes = np.empty(len(sketches), dtype=np.uint64)
    taken = _resampling(sketches.shape[1], zoom)
    for start in range(0, len(sketches), _ROWS):
        some = sketches[start : start + _ROWS].astype(np.float32)
        if zoom != 1:
            some = np.matmul(np.matmul(taken, some), taken.T).astype(np.float32)
        coefficients = dctn(some, axes=(1, 2), norm="ortho")[:, _DOWN, _ACROSS]
        codes[start : start + _ROWS] = _pack(coefficients > 0)
    return codes


def _resampling(side: int, zoom: float) -> npt.NDArray[np.float32]:
    """(side, side) matrix of linear interpolation that takes the middle `zoom` of a row to the whole row."""
    matrix = np.zeros((side, side), dtype=np.float32)
    places = (np.arange(side) + 0.5 - side / 2) * zoom + side / 2 - 0.5
    left = np.clip(np.floor(places).astype(int), 0, side - 2)
    matrix[np.arange(side), left] = 1 - (places - left)
    matrix[np.arange(side), left + 1] = places - left
    return matrix


def correlation(first: Sketches, second: Sketches) -> npt.NDArray[np.float32]:
    """(n,) Pearson's correlation of the grey levels of each pair; 0 where one of them is flat."""
    a, b = _centred(first), _centred(second)
    spread = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(spread > 0, (a * b).sum(1) / np.maximum(spread, 1e-12), 0)


def likeness(first: Sketches, second: Sketches) -> npt.NDArray[np.float64]:
    """(n,) from 0 to 1: the share of a picture's contrast that the other one explains, the lesser of the two ways.

    The other one may be lighter or darker, of more or less contrast, a little shifted and a little larger: the grey
    levels b are fitted by least squares to those of a and to how a changes under a small shift and stretch along
    each axis, b = c + k a + (s_x + z_x x) da/dx + (s_y + z_y y) da/dy (Lucas and Kanade 1981, one step), and the
    likeness is the coefficient of determination; 0 where k is not positive, as in a negative.
    """
    return np.minimum(_explained(first, second), _explained(second, first))


def _explained(first: Sketches, second: Sketches) -> npt.NDArray[np.float64]:
    result = np.empty(len(first))
    side = first.shape[1]
    places = np.arange(side) - (side - 1) / 2
    for start in range(0, len(first), _ROWS):
        a = first[start : start + _ROWS].astype(np.float64)
        down, across = np.gradient(a, axis=(1, 2))
        terms = np.stack([a, across, down, across * places, down * places[:, None]], axis=-1)
        # the outermost pixels have no neighbours on one side
        x = terms[:, 1:-1, 1:-1].reshape(len(a), (side - 2) ** 2, 5)
        y = second[start : start + _ROWS, 1:-1, 1:-1].reshape(len(a), (side - 2) ** 2).astype(np.float64)
        x -= x.mean(axis=1, keepdims=True)
        y -= y.mean(axis=1, keepdims=True)
        transposed = x.transpose(0, 2, 1)
        weights = np.linalg.solve(transposed @ x + 1e-3 * np.eye(5), transposed @ y[..., None])
        rest = ((y[..., None] - x @ weights) ** 2).sum(axis=(1, 2))
        share = 1 - rest / np.maximum((y * y).sum(axis=1), 1e-9)
        result[start : start + _ROWS] = np.where(weights[:, 0, 0] > 0, np.clip(share, 0, 1), 0)
    return result


def _centred(sketches: Sketches) -> npt.NDArray[np.float32]:
    flat = sketches.reshape(len(sketches), sketches.shape[1] * sketches.shape[2]).astype(np.float32)
    return flat - flat.mean(axis=1, keepdims=True)
