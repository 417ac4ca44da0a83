"""Singular values of features, and how much of each target lies along their singular vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import Array, blocks

EPS = float(np.finfo(np.float64).eps)
WEAK = 1e-8
"""Squared singular values below this share of the largest are not read from a Gram matrix, whose rounding errors
are a share `EPS` of the largest."""
RANK = 1e-9
"""Singular values below this share of the largest are rounding errors: what a decomposition by F'F leaves in
directions without spread is about EPS / sqrt(WEAK) = 2e-12 of the largest. See `_floor` for features that
come rounded."""

ROUNDING = 1.0
"""Root of the mean square of a rounding error, as a share of the precision times the number; above 1 / sqrt(12), as
what a network computes in a precision is off by more than its last rounding."""
ROUNDED = 1e-9
"""1 less a leverage: below this it is mostly rounding error."""


@dataclass(frozen=True)
class Spectrum:
    """F = U diag(sigma) V' without the directions that are rounding errors, and targets Y along U."""

    squares: Array
    """(k,) sigma squared; k is the numerical rank."""
    along: Array
    """(k, outputs) U'Y."""
    across: Array
    """(outputs,) squared norm of what of Y lies outside U's span."""
    norms: Array
    """(n,) squared norms of the rows of F."""
    features: NDArray[Any]
    """(n, d), as they were given."""
    mean: Array
    """(d,) what was taken from them."""
    left: Array | None
    """(n, k) U, where there are fewer examples than features; else it is made row by row."""
    right: Array
    """(d, k) V / sigma, so that F times it is U; empty where `left` is there."""

    def onto(self, weights: Array) -> Array:
        """U times weights (k, outputs): (n, outputs)."""
        if self.left is not None:
            return self.left @ weights
        turned = self.right @ weights
        found = np.empty((len(self.features), weights.shape[1]))
        for rows in blocks(len(found), width=len(self.mean)):
            found[rows] = (self.features[rows].astype(np.float64) - self.mean) @ turned
        return found

    def under(self, lines: Array) -> Array:
        """U' times lines (n, outputs): (k, outputs)."""
        if self.left is not None:
            return self.left.T @ lines
        found = np.zeros((len(self.mean), lines.shape[1]))
        for rows in blocks(len(lines), width=len(self.mean)):
            found += (self.features[rows].astype(np.float64) - self.mean).T @ lines[rows]
        return self.right.T @ found

    def leverages(self, weights: Array) -> Array:
        """U, each number squared, times weights (k, outputs): (n, outputs)."""
        if self.left is not None:
            return np.square(self.left) @ weights
        found = np.empty((len(self.features), weights.shape[1]))
        for rows in blocks(len(found), width=len(self.mean)):
            found[rows] = np.square((self.features[rows].astype(np.float64) - self.mean) @ self.right) @ weights
        return found


def spectrum_of(features: NDArray[Any], targets: Array, *, centre: bool) -> Spectrum:
    """Decompose features (n, d), less their mean where they are to be centred, in float64.

    By the smaller of F'F and FF', added up over blocks of rows; directions too weak for that are taken once more
    from F itself along them. The rank counts sigma > 1e-9 x the largest, and what is more than the rounding of
    features that are float32 or float16.
    """
    count, width = features.shape
    parts = blocks(count, width=width)
    mean = np.zeros(width)
    if centre:
        mean = np.sum([features[rows].sum(axis=0, dtype=np.float64) for rows in parts], axis=0) / count
    if width <= count:
        return _tall(features, targets, mean, parts)
    whole = np.asarray(features, dtype=np.float64) - mean
    squares, left = np.linalg.eigh(whole @ whole.T)
    weak = squares < WEAK * squares[-1]
    squares = squares.clip(min=0.0)
    if weak.any():
        turn, sigma, _ = np.linalg.svd(left[:, weak].T @ whole, full_matrices=False)
        squares[weak], left[:, weak] = sigma**2, left[:, weak] @ turn
    kept = squares > _floor(squares, features, mean)
    left = left[:, kept]
    along = left.T @ targets
    across = np.square(targets - left @ along).sum(axis=0)
    norms = np.square(whole).sum(axis=1)
    return Spectrum(squares[kept], along, across, norms, features, mean, left, np.empty((width, 0)))


def _floor(squares: Array, features: NDArray[Any], mean: Array) -> float:
    """Squared singular values up to this are rounding errors.

    Rounding to a precision `eps` errs by eps / sqrt(12) of a number or less, at the root of the mean square. A
    matrix of such errors has singular values up to that share of rms(F) (sqrt(n) + sqrt(d)) (Rudelson and Vershynin
    2010), with F as it was before its mean was taken off.
    """
    lowest = float(squares.max(initial=0.0)) * RANK**2
    eps = float(np.finfo(features.dtype).eps) if np.issubdtype(features.dtype, np.floating) else 0.0
    if eps <= EPS:
        return lowest
    count, width = features.shape
    mean_square = float(squares.sum()) / count / width + float(np.square(mean).mean())
    return max(lowest, (ROUNDING * eps * (count**0.5 + width**0.5)) ** 2 * mean_square)


def _tall(features: NDArray[Any], targets: Array, mean: Array, parts: list[slice]) -> Spectrum:
    """With as many examples as features, or more."""
    count, width = features.shape
    gram, product, norms = np.zeros((width, width)), np.zeros((width, targets.shape[1])), np.empty(count)
    for rows in parts:
        some = features[rows].astype(np.float64) - mean
        gram += some.T @ some
        product += some.T @ targets[rows]
        norms[rows] = np.square(some).sum(axis=1)
    squares, right = np.linalg.eigh(gram)
    weak = squares < WEAK * squares[-1]
    squares = squares.clip(min=0.0)
    if weak.any():
        lines = np.concatenate([(features[rows].astype(np.float64) - mean) @ right[:, weak] for rows in parts])
        _, sigma, turn = np.linalg.svd(np.linalg.qr(lines, mode="r"), full_matrices=False)
        squares[weak], right[:, weak] = sigma**2, right[:, weak] @ turn.T
    kept = squares > _floor(squares, features, mean)
    squares, right = squares[kept], right[:, kept]
    right /= np.sqrt(squares)
    along = right.T @ product
    across = np.zeros(targets.shape[1])
    # by the residual itself: ||y||^2 less what lies along would be all rounding error where y is nearly linear
    best = right @ along
    for rows in parts:
        across += np.square(targets[rows] - (features[rows].astype(np.float64) - mean) @ best).sum(axis=0)
    return Spectrum(squares, along, across, norms, features, mean, None, right)
