"""How far the source lies from the target, in the features of one backbone: Fréchet distance and linear CKA.

They are facts to look at. None of them has a value from which on transfer hurts: see docs/distance.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_IMAGES = 2000
"""Of source and target each: the work grows with the cube, and what few images add to the distance falls slowly."""
_SEED = 0


def distances(source: npt.ArrayLike, target: npt.ArrayLike, *, most: int = MOST_IMAGES) -> dict[str, Any]:
    """What is said of a candidate whose features of source images are (n, d) and of target images (m, d).

    Plain data for a record: `frechet` (squared, in the features' own units), `frechet_relative` (that over the
    target's total variance: the same for features in other units), `frechet_floor` (what the two halves of the
    target's own images lie apart, in the relative units: a distance near it is none), `structure_cka` (0 to 1,
    1 where source and target vary in the same directions), `source_images`, `target_images`: of more than `most`
    images a random `most`, the same in each call. None where a number cannot be had: fewer than two images,
    features that do not vary, or that are not finite. Raises ValueError for features of different widths.
    """
    s, t = _some(_matrix(source), most), _some(_matrix(target), most)
    if s.shape[1] != t.shape[1]:
        raise ValueError(f"source features have {s.shape[1]} dimensions, target features {t.shape[1]}")
    found: dict[str, Any] = dict.fromkeys(("frechet", "frechet_relative", "frechet_floor", "structure_cka"))
    found |= {"source_images": len(s), "target_images": len(t)}
    if not (np.isfinite(s).all() and np.isfinite(t).all()):
        return found
    scale = max(float(np.abs(s).max(initial=0)), float(np.abs(t).max(initial=0)))
    if scale == 0:
        return found
    s, t = s / scale, t / scale  # squares of squares neither overflow nor vanish
    if (squared := frechet_distance(s, t)) is not None:
        found["frechet"] = squared * scale**2
        if spread := _spread(t):
            found["frechet_relative"] = squared / spread
            found["frechet_floor"] = _floor(t, spread)
    found["structure_cka"] = structure_cka(s, t)
    return found


def frechet_distance(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Squared Fréchet distance of the normal distributions fitted to (n, d) and (m, d) features.

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), with unbiased covariances (Dowson and Landau 1982;
    Heusel et al. 2017, eq. 6). The eigenvalues of C1 C2 are the squared singular values of F1 F2' for any factors
    with C = F'F, so that the trace of its root is the sum of these singular values: no root of a matrix is taken,
    nothing is complex, and where there are fewer images than features the work is that of the images. None for
    fewer than two images, where there is no covariance. Estimates from few images lie too high.
    """
    a, b = _matrix(x), _matrix(y)
    if min(len(a), len(b)) < 2:
        return None
    gap = a.mean(axis=0) - b.mean(axis=0)
    f, g = _factor(a), _factor(b)
    roots = np.linalg.svd(f @ g.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + np.square(f).sum() + np.square(g).sum() - 2 * roots))


def structure_cka(source: npt.ArrayLike, target: npt.ArrayLike) -> float | None:
    """How alike the features of source (n, d) and target (m, d) vary: <Cs, Ct>_F / (||Cs||_F ||Ct||_F), 0 to 1.

    Linear CKA compares two representations of the same examples. Source and target are different images, which
    nothing pairs, so it cannot be had between them; what they share is the backbone's d dimensions. This is its
    formula with the roles of examples and dimensions exchanged: with Xs' and Xt', of d rows each, in the place of
    the two representations, ||Xs Xt'||_F^2 / (||Xs Xs'||_F ||Xt Xt'||_F) of centred features. 1 where both vary in
    the same directions in the same proportions, 0 where in directions at right angles; the means play no part.
    The same for a scaling of either and a rotation of both. None where one does not vary.
    """
    s, t = _unit(_centred(_matrix(source))), _unit(_centred(_matrix(target)))
    if s.shape[1] != t.shape[1]:
        raise ValueError(f"source features have {s.shape[1]} dimensions, target features {t.shape[1]}")
    if s.shape[1] < min(len(s), len(t)):
        c, k = s.T @ s, t.T @ t
        return _ratio(float((c * k).sum()), float(np.linalg.norm(c) * np.linalg.norm(k)))
    return _ratio(float(np.square(s @ t.T).sum()), _gram_norm(s) * _gram_norm(t))


def _matrix(features: npt.ArrayLike) -> Floats:
    found = np.asarray(features, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"features must be (images, dimensions), found {found.shape}")
    return found


def _some(x: Floats, most: int) -> Floats:
    if len(x) <= most:
        return x
    return np.asarray(x[np.random.default_rng(_SEED).permutation(len(x))[:most]])


def _centred(x: Floats) -> Floats:
    """Columns of mean zero; exactly zero where a column is constant, whose mean may be off by a rounding."""
    if not len(x):
        return x
    centred = x - x.mean(axis=0)
    centred[:, (x == x[0]).all(axis=0)] = 0.0
    return centred


def _unit(x: Floats) -> Floats:
    """Scaled to a largest magnitude of 1, which changes no CKA."""
    scale = np.abs(x).max(initial=0.0)
    return x / scale if scale > 0 else x


def _factor(x: Floats) -> Floats:
    """F with F'F = the unbiased covariance of the columns, and no more rows than columns."""
    centred = _centred(x) / np.sqrt(len(x) - 1)
    if len(x) <= x.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))  # more exact than roots of the covariance's eigenvalues


def _gram_norm(x: Floats) -> float:
    """||X'X||_F, which is ||XX'||_F: of the smaller of the two."""
    return float(np.linalg.norm(x @ x.T if len(x) < x.shape[1] else x.T @ x))


def _spread(x: Floats) -> float:
    """Total variance: the trace of the unbiased covariance."""
    return float(np.square(_centred(x)).sum() / (len(x) - 1))


def _floor(target: Floats, spread: float) -> float | None:
    """Distance between two random halves of the target, over its spread."""
    half = len(target) // 2
    order = np.random.default_rng(_SEED).permutation(len(target))
    apart = frechet_distance(target[order[:half]], target[order[half:]])
    return None if apart is None else apart / spread


def _ratio(above: float, below: float) -> float | None:
    return min(1.0, max(0.0, above / below)) if below > 0 else None
