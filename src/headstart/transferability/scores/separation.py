"""H-score and its shrunk form: how much of the features' spread is between the classes."""

from __future__ import annotations

import numpy as np

from headstart.transferability.scores.examples import Array, Examples, Scored, checked, indicators, present
from headstart.transferability.scores.spectrum import Spectrum, spectrum_of


def hscore(examples: Examples) -> Scored:
    """tr(pinv(cov f) cov(E[f|y])) (Bao et al. 2019, definition 2); from 0 to min(classes - 1, width).

    With F = U diag(sigma) V' centred it is the sum over classes of n_c |mean of U's rows in c|^2: no inverse is
    needed, and collinear features count once. With no more examples than features it is classes - 1, whatever the
    features are.
    """
    checked(examples)
    spectrum, sizes = _centred(examples)
    value = float((np.square(spectrum.along) / sizes).sum())
    each = value + len(examples) * influence(spectrum, examples, sizes, ridge=0.0)
    if not len(spectrum.squares):
        return Scored(0.0, "the features do not differ from image to image")
    if value > len(sizes) - 1 - 1e-6 and len(spectrum.squares) >= _different(examples) - 1:
        return Scored(value, "classes - 1 whatever the features are: fewer examples than features", forced=True)
    return Scored(value, per_example=each)


def hscore_shrunk(examples: Examples) -> Scored:
    """The H-score with Ledoit and Wolf's covariance (Ibrahim et al. 2022, equation 8).

    cov_a = (1 - a) S + a tr(S) / D I with S over n, as scikit-learn's LedoitWolf; between classes over n - 1, as
    NumPy's cov. In the basis of the singular vectors cov_a is diagonal, so no D x D matrix is inverted.
    """
    checked(examples)
    spectrum, sizes = _centred(examples)
    if not len(spectrum.squares):
        return Scored(0.0, "the features do not differ from image to image")
    count, width = examples.features.shape
    shrinkage = ledoit_wolf(spectrum, count, width)
    level = spectrum.squares.sum() / count / width
    between = spectrum.squares * (np.square(spectrum.along) / sizes).sum(axis=1) / (count - 1)
    within = (1 - shrinkage) * spectrum.squares / count + shrinkage * level
    value = float(((1 - shrinkage) * between / within).sum())
    if shrinkage == 1.0:
        return Scored(value, "the covariance is shrunk to the identity: nothing is left of it")
    ridge = shrinkage * level * count / (1 - shrinkage)
    each = count * count / (count - 1) * influence(spectrum, examples, sizes, ridge=ridge)
    return Scored(value, per_example=value + each - each.mean())


def influence(spectrum: Spectrum, examples: Examples, sizes: Array, *, ridge: float) -> Array:
    """(n,) what sum_c a_c' (F'F + ridge I)^-1 a_c / n_c gains per example of more weight, to first order.

    a_c is the sum of the centred features of a class. With z_ic = f_i' (F'F + ridge I)^-1 a_c, for an example of
    class c it is 2 z_ic / n_c - a_c' (F'F + ridge I)^-1 a_c / n_c^2 - sum_k z_ik^2 / n_k; that the mean moves
    changes nothing, as sum_c a_c = 0. The strength of the shrinkage is taken as known.
    """
    _, places = present(examples.targets)
    shrink = (spectrum.squares / (spectrum.squares + ridge))[:, None]
    said = spectrum.onto(shrink * spectrum.along)
    whole = (shrink * np.square(spectrum.along)).sum(axis=0)
    own = said[np.arange(len(places)), places]
    found: Array = 2 * own / sizes[places] - (whole / sizes**2)[places] - (np.square(said) / sizes).sum(axis=1)
    return found


def ledoit_wolf(spectrum: Spectrum, count: int, width: int) -> float:
    """The share of the identity that is best (Ledoit and Wolf 2004, lemma 3.4), from centred features.

    0 for a single feature, whose covariance is a multiple of the identity as it is.
    """
    if width == 1:
        return 0.0
    level = spectrum.squares.sum() / count / width
    apart = np.square(spectrum.squares).sum() / count**2
    noise = (np.square(spectrum.norms).sum() / count - apart) / (width * count)
    delta = (apart - width * level**2) / width
    return float(min(max(noise, 0.0), delta) / delta) if delta > 0 else 0.0


def _different(examples: Examples) -> int:
    """How many examples there are, those with the same features counted once: a draw repeats some."""
    return len({row.tobytes() for row in examples.features})


def _centred(examples: Examples) -> tuple[Spectrum, Array]:
    """The centred features with the classes along them, and how many examples each class has."""
    count, places = present(examples.targets)
    targets = indicators(places, count)
    return spectrum_of(examples.features, targets, centre=True), targets.sum(axis=0)
