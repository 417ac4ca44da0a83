"""H-score and its shrunk form: how much of the features' spread is between the classes."""

from __future__ import annotations

import numpy as np

from headstart.transferability.scores.examples import (
    Array,
    Examples,
    Scored,
    checked,
    indicators,
    present,
    scale,
)
from headstart.transferability.scores.spectrum import ROUNDED, Spectrum, spectrum_of

EXTREME = 1e60
"""Features beyond this, or all below its inverse, have fourth powers that float64 does not hold."""
CROWDED = 0.5
"""Directions per example above which what one example gives says nothing of other samples."""


def hscore(examples: Examples) -> Scored:
    """tr(pinv(cov f) cov(E[f|y])) (Bao et al. 2019, definition 2); from 0 to min(classes - 1, width).

    With F = U diag(sigma) V' centred it is the sum over classes of n_c |mean of U's rows in c|^2: no inverse is
    needed, and collinear features count once. With no more examples than features it is classes - 1, whatever the
    features are.
    """
    checked(examples)
    spectrum, sizes = _centred(examples)
    value = float((np.square(spectrum.along) / sizes).sum())
    if not len(spectrum.squares):
        return Scored(0.0, "the features do not differ from image to image")
    if value > len(sizes) - 1 - 1e-6 and len(spectrum.squares) >= _different(examples) - 1:
        return Scored(value, "classes - 1 whatever the features are: fewer examples than features", forced=True)
    if len(spectrum.squares) > CROWDED * len(examples):
        note = f"no interval: {len(spectrum.squares)} directions of features, and {len(examples)} images"
        return Scored(value, note, spread=False)
    return _with_spread(value, without_each(spectrum, examples, sizes, ridge=0.0))


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
    shares = (np.square(spectrum.along) / sizes).sum(axis=1)
    between = spectrum.squares * shares / (count - 1)
    within = (1 - shrinkage) * spectrum.squares / count + shrinkage * level
    value = float(((1 - shrinkage) * between / within).sum())
    if shrinkage == 1.0:
        note = "the covariance is shrunk to the identity: nothing is left of it, and there is no interval"
        return Scored(value, note, spread=False)
    if count < 3:
        return Scored(value, "no interval: two images", spread=False)
    ridge = shrinkage * level * count / (1 - shrinkage)
    others = ridges_without_each(spectrum, width)
    # what another ridge changes, at all examples
    moved = np.array([(spectrum.squares / (spectrum.squares + one) * shares).sum() for one in (ridge, *others)])
    rest = without_each(spectrum, examples, sizes, ridge=ridge) + moved[1:] - moved[0]
    return _with_spread(value, rest * (count - 1) / (count - 2))


def _with_spread(value: float, without: Array) -> Scored:
    """A value with the jackknife's pseudo-values, from the values without each example."""
    each = -(len(without) - 1) * without
    if not np.isfinite(each).all():
        return Scored(value, "no interval: the features of an image are those of no other", spread=False)
    return Scored(value, per_example=value + each - each.mean())


def without_each(spectrum: Spectrum, examples: Examples, sizes: Array, *, ridge: float) -> Array:
    """(n,) sum_c a_c' (F'F + ridge I)^-1 a_c / n_c without each example in turn, F centred anew; NaN where unknown.

    a_c is the sum of the centred features of a class. The sum is that over classes of n_c - RSS_c over n_c, less 1,
    with RSS_c the penalised residual of a class's 0 and 1, regressed on features and a free constant; without an
    example, of residual e and leverage h, RSS_c is less by e^2 / (1 - h), which is exact. A class of one example is
    gone without it.
    """
    count, places = present(examples.targets)
    own = indicators(places, count)
    shrink = (spectrum.squares / (spectrum.squares + ridge))[:, None]
    residuals = own - sizes / len(places) - spectrum.onto(shrink * spectrum.along)
    free = 1 - 1 / len(places) - spectrum.leverages(shrink)
    free[free < ROUNDED] = np.nan
    said = (shrink * np.square(spectrum.along)).sum(axis=0) + np.square(sizes) / len(places)
    left = sizes - own
    found: Array = np.where(left > 0, (said - own + np.square(residuals) / free) / np.maximum(left, 1.0), 0.0)
    return found.sum(axis=1) - 1


def ridges_without_each(spectrum: Spectrum, width: int) -> Array:
    """(n,) a tr(S) / (1 - a) / D of Ledoit and Wolf's a, as a sum over examples, without each in turn; may be inf.

    Centred anew: without x the mean moves by -x / (n - 1), and F'F is less by n / (n - 1) xx'.
    """
    count, rest = len(spectrum.norms), len(spectrum.norms) - 1
    own, fourth = spectrum.norms, np.square(spectrum.norms)
    total, more = spectrum.squares.sum(), count / rest
    along = spectrum.leverages(np.square(spectrum.squares)[:, None])[:, 0]  # x' F'F x
    cubes = spectrum.onto(spectrum.squares[:, None] * spectrum.under(own[:, None]))[:, 0]  # sum |z|^2 z'x
    trace = total - more * own
    apart = (np.square(spectrum.squares).sum() - 2 * more * along + more**2 * fourth) / rest**2
    # sum over z other than x of |z + x / (n - 1)|^4
    norms = fourth.sum() - fourth + 4 / rest * (cubes - fourth) + 4 / rest**2 * (along - fourth)
    norms += 2 / rest**2 * own * (total - own) - 3 / rest**3 * fourth
    level = trace / rest / width
    delta = (apart - width * level**2) / width
    noise = ((norms / rest - apart) / (width * rest)).clip(min=0.0)
    if width == 1:
        return np.zeros(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(noise < delta, noise / (delta - noise) * level * rest, np.inf)
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
    """The centred features with the classes along them, and how many examples each class has.

    Neither score depends on the scale of the features. It is taken from those whose fourth powers float64 does not
    hold.
    """
    count, places = present(examples.targets)
    targets = indicators(places, count)
    features, largest = examples.features, scale(examples.features)
    if largest and not 1 / EXTREME <= largest <= EXTREME:
        features = features / largest
    return spectrum_of(features, targets, centre=True), targets.sum(axis=0)
