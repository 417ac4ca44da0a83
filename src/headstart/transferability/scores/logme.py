"""LogME: the evidence of a Bayesian linear model of the targets."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headstart.transferability.scores.examples import CLASSES, Array, Examples, Scored, checked, indicators, present
from headstart.transferability.scores.spectrum import EPS, ROUNDED, Spectrum, spectrum_of

ROUNDS = 11
CLOSE = 0.01
"""Share by which alpha / beta may still change at the end."""


def logme(examples: Examples) -> Scored:
    """The mean over outputs of the log evidence per example (You et al. 2021, algorithm 1).

    Outputs are the classes that there are examples of, as 0 and 1, the labels, or the numbers to predict. Labels
    that no image has and numbers that are all 0 are left out: any model says them perfectly.
    """
    checked(examples)
    if examples.task in CLASSES:
        count, places = present(examples.targets)
        targets = indicators(places, count)
    else:
        targets = np.asarray(examples.targets, dtype=np.float64)
    some = targets.any(axis=0)
    if not some.any():
        return Scored(None, "the targets are all 0")
    spectrum = spectrum_of(examples.features, targets[:, some], centre=False)
    alphas, betas, capped = precisions(spectrum, len(examples))
    values = log_evidence(spectrum, len(examples), alphas, betas) / len(examples)
    notes = []
    if not some.all():
        notes.append(f"without {int((~some).sum())} outputs that are all 0")
    if capped.any():
        notes.append(f"precision of {int(capped.sum())} of {len(capped)} outputs held at what float64 resolves")
    value = float(values.mean())
    each = contributions(spectrum, targets[:, some], alphas, betas).mean(axis=1)
    if capped.any() or not np.isfinite(each).all():
        return Scored(value, "; ".join([*notes, "no interval: the noise cannot be known"]), spread=False)
    return Scored(value, "; ".join(notes), value + each - each.mean())


def precisions(spectrum: Spectrum, count: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """alpha of the weights, beta of the noise, (outputs,) each, by MacKay's fixed point, and where a cap held them.

    As the reference code: both start at 1, at most 11 rounds, an output stops when alpha / beta changes by less
    than 1 %. N - gamma and the residual are sums of what is positive, so nothing cancels where there are fewer
    examples than features. Two caps: beta <= N / (eps ||y||^2), as a residual below that cannot be told from none;
    alpha <= beta sigma_max^2 / eps, beyond which the features say nothing. Where they are all 0 alpha stays at 1.
    """
    squares, shares = spectrum.squares[:, None], np.square(spectrum.along)
    outputs = shares.shape[1]
    alphas, betas, capped = np.ones(outputs), np.ones(outputs), np.zeros(outputs, dtype=bool)
    highest = count / (EPS * (shares.sum(axis=0) + spectrum.across))
    if not len(squares):
        return alphas, count / spectrum.across, capped
    going = np.arange(outputs)
    ratio = np.ones(outputs)
    for _ in range(ROUNDS):
        at = ratio[going]
        left = at / (squares + at)
        gamma = (squares / (squares + at)).sum(axis=0)
        norm = (squares / (squares + at) * (shares[:, going] / (squares + at))).sum(axis=0)
        residual = (np.square(left) * shares[:, going]).sum(axis=0) + spectrum.across[going]
        rest = left.sum(axis=0) + (count - len(squares))
        beta, beta_held = _capped(rest, residual, highest[going])
        alpha, alpha_held = _capped(gamma, norm, beta * squares.max() / EPS)
        alphas[going], betas[going], capped[going] = alpha, beta, alpha_held | beta_held
        ratio[going] = alpha / beta
        going = going[np.abs(ratio[going] - at) / at >= CLOSE]
        if not len(going):
            break
    return alphas, betas, capped


def log_evidence(spectrum: Spectrum, count: float, alphas: Array, betas: Array) -> Array:
    """ln p(y) of y ~ N(0, FF' / alpha + I / beta), per output (MacKay 1992; You et al. 2021, equation 2).

    D / 2 ln alpha and the log-determinant over all D directions, those without spread included, are put together
    to -1/2 sum ln(1 + beta sigma^2 / alpha), which has no large terms that cancel.
    """
    squares, shares, ratio = spectrum.squares[:, None], np.square(spectrum.along), alphas / betas
    residual = (np.square(ratio / (squares + ratio)) * shares).sum(axis=0) + spectrum.across
    norm = (squares / (squares + ratio) * (shares / (squares + ratio))).sum(axis=0)
    found: Array = (
        count / 2 * np.log(betas)
        - np.log1p(squares / ratio).sum(axis=0) / 2
        - betas / 2 * residual
        - alphas / 2 * norm
        - count / 2 * math.log(2 * math.pi)
    )
    return found


def contributions(spectrum: Spectrum, targets: Array, alphas: Array, betas: Array) -> Array:
    """(n, outputs) log evidence less that without the example, at the same alphas and betas; NaN where unknown.

    That is the log density of an example's target given all other examples, N(y - e / (1 - h), 1 / (beta (1 - h)))
    with the residual e = y - Fm and the leverage h = beta f' (alpha I + beta F'F)^-1 f (Rasmussen, Williams 2006,
    section 5.4.2). As pseudo-values of the jackknife they hold where the model interpolates: residuals are small
    there and leverages near 1, and both cancel. That alpha and beta would follow changes nothing to first order, as
    the evidence is at its highest in them.
    """
    squares = spectrum.squares[:, None]
    left = alphas / betas / (squares + alphas / betas)
    if len(squares) == len(targets):  # all of each target lies along: by what is left, which does not cancel
        residual, free = spectrum.onto(left * spectrum.along), spectrum.leverages(left)
    else:
        residual = targets - spectrum.onto((1 - left) * spectrum.along)
        free = 1 - spectrum.leverages(1 - left)
        free[free < ROUNDED] = np.nan
    found: Array = (np.log(betas * free / (2 * math.pi)) - betas * np.square(residual) / free) / 2
    return found


def _capped(above: Array, below: Array, highest: Array) -> tuple[Array, NDArray[np.bool_]]:
    """above / below, at most the highest; and where that was so."""
    held: NDArray[np.bool_] = above >= highest * below
    return np.where(held, highest, above / np.where(held, 1.0, below)), held
