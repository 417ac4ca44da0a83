"""Two arms, pair by pair: is one better, by how much, how surely, and how many more pairs would tell?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.compare.statistics.intervals import LEVEL, NO_SPREAD, SIGNS, Estimate, averaged, estimate, t_quantile

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_PAIRS = 10_000
MEANINGFUL = 0.75
"""The share of pairs that an arm must win to be meaningfully better (Bouthillier et al. 2021, section 5)."""
FEWEST_FOR_SUPERIORITY = SIGNS


@dataclass(frozen=True)
class Superiority:
    """How often the arm is the better one of a pair: P(A > B) of Bouthillier et al. (2021)."""

    wins: int
    ties: int
    losses: int
    probability: float
    low: float
    high: float
    """95 % percentile bootstrap interval over pairs; over splits, where several have several seeds."""
    verdict: str | None
    """`meaningful`, `significant`, `not significant`; None below six of them, where it would say nothing."""


@dataclass(frozen=True)
class Paired:
    """The paired comparison of an arm with its baseline; differences are arm minus baseline."""

    difference: Estimate
    effect_size: float | None
    """Mean difference over the standard deviation of the differences (Cohen's d of paired samples)."""
    cliffs_delta: float
    """P(a > b) - P(a < b) over all combinations of runs of the two arms, unpaired (Cliff 1993)."""
    superiority: Superiority
    p: float | None
    """Two-sided, of the paired t test; None for one pair."""
    p_holm: float | None
    """The same after Holm's correction over the comparisons of this table."""
    verdict: str
    """`better`, `worse` or `not decided`, by the corrected p at 0.05; `control` for what is not judged."""
    more: int | None
    """Where it is not decided: about how many more pairs would decide it with 80 % power, if the effect is as it
    seems; None where that is beyond all reason or cannot be said."""


def compare_pairs(
    arm: Sequence[float],
    baseline: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    lower_is_better: bool = False,
) -> Paired:
    """Compare paired values, one of each per pair; not corrected for other comparisons yet.

    `clusters` is as for `estimate`. Raises ValueError for no pairs or for lists of different lengths.
    """
    a, b = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError("pairs need as many values of one arm as of the other")
    differences = a - b
    difference = estimate(list(differences), clusters)
    spread = difference.std if difference.std and not _equal(differences) else None
    good = -differences if lower_is_better else differences
    p = paired_p(averaged(differences, clusters))
    return Paired(
        difference=difference,
        effect_size=difference.mean / spread if spread else None,
        cliffs_delta=cliffs_delta(a, b),
        superiority=superiority(averaged(good, clusters)),
        p=p,
        p_holm=None,
        verdict="not decided",
        more=None,
    )


def decide(
    found: Sequence[Paired | None], *, controls: Sequence[bool] = (), lower_is_better: bool = False
) -> list[Paired | None]:
    """Correct a table's comparisons for one another (Holm 1979) and say what each decides.

    Those that `controls` marks are not judged, and make the others no harder to decide.
    """
    judged = [i for i, one in enumerate(found) if one is not None and not (controls and controls[i])]
    p_values = {i: p for i in judged if (p := found[i].p) is not None}  # type: ignore[union-attr]
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    decided: list[Paired | None] = []
    for i, one in enumerate(found):
        if one is None:
            decided.append(None)
            continue
        p = corrected.get(i)
        verdict, more = "not decided" if i in judged else "control", None
        if p is not None and p <= ALPHA:
            verdict = "better" if (one.difference.mean > 0) != lower_is_better else "worse"
        elif i in judged and one.effect_size is not None:
            more = _more_pairs(one, alpha=ALPHA / max(1, len(corrected)))
        decided.append(replace(one, p_holm=p, verdict=verdict, more=more))
    return decided


def _more_pairs(one: Paired, *, alpha: float) -> int | None:
    units, n = one.difference.units, one.difference.n
    spread = _unit_spread(one.difference)
    if not spread:
        return None
    needed = pairs_needed(abs(one.difference.mean) / spread, alpha=alpha)
    per_unit = max(1, round(n / units))  # more seeds on the same splits would not do: more splits, as many on each
    return None if needed is None else max(1, needed - units) * per_unit


def _unit_spread(difference: Estimate) -> float | None:
    if difference.low is None or difference.high is None:
        return None
    half = (difference.high - difference.low) / 2
    return half * math.sqrt(difference.units) / t_quantile((1 + LEVEL) / 2, difference.units - 1)


def _equal(differences: npt.NDArray[np.float64]) -> bool:
    spread = float(differences.std())
    return spread <= NO_SPREAD * max(1.0, abs(float(differences.mean())))


def paired_p(differences: npt.NDArray[np.float64]) -> float | None:
    """Two-sided p of the paired t test; of the sign test where all differences are equal; None for one.

    Equal differences have no spread, so t would be infinite: what is left is that all have one sign, p = 2 / 2^n.
    """
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return None
    mean = float(differences.mean())
    if _equal(differences):
        return 1.0 if abs(mean) <= NO_SPREAD else min(1.0, 2.0 ** (1 - n))
    t = mean * math.sqrt(n) / float(differences.std(ddof=1))
    return float(2 * stdtr(n - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: max over j <= i of min(1, (m - j + 1) p_(j)), in the order given (Holm 1979)."""
    order = np.argsort(np.asarray(p_values, dtype=np.float64), kind="stable")
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * float(p_values[place])))
        corrected[place] = running
    return corrected


def cliffs_delta(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """P(a > b) - P(a < b) over all combinations (Cliff 1993); from -1 to 1."""
    return float(np.sign(np.subtract.outer(a, b)).mean())


def superiority(good: npt.NDArray[np.float64]) -> Superiority:
    """P(A > B) = (1/k) sum 1[A_i > B_i] from `good` = A - B, so signed that more is better.

    The interval is that of the percentile bootstrap over pairs, exactly: resampling k pairs of which w are won
    gives Binomial(k, w/k) wins. Significant where it lies above 0.5, meaningful where it reaches beyond 0.75 as
    well (Bouthillier et al. 2021, section 5).
    """
    n, wins = len(good), int((good > 0).sum())
    low, high = (_binomial_quantile(q, n, wins / n) / n for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    verdict = None
    if n >= FEWEST_FOR_SUPERIORITY:
        verdict = "not significant" if low <= 0.5 else "meaningful" if high > MEANINGFUL else "significant"
    ties = int((good == 0).sum())
    return Superiority(wins, ties, n - wins - ties, wins / n, low, high, verdict)


def _binomial_quantile(probability: float, n: int, p: float) -> int:
    from scipy.special import bdtr

    below = bdtr(np.arange(n), n, p) if n else np.zeros(0)
    return int((below < probability - 1e-12).sum())


def pairs_needed(effect_size: float, *, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Pairs for which a paired t test finds an effect of this size with this power; None beyond 10,000.

    The power of the two-sided test at level alpha is that of the noncentral t with noncentrality d sqrt(n).
    """
    high = 2
    while power_of(effect_size, high, alpha=alpha) < power:
        if high > MOST_PAIRS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect_size, middle, alpha=alpha) >= power else (middle, high)
    return high if high <= MOST_PAIRS else None


def power_of(effect_size: float, n: int, *, alpha: float = ALPHA) -> float:
    """Probability that a paired t test of n pairs finds an effect of this size."""
    from scipy.special import nctdtr

    shift = abs(effect_size) * math.sqrt(n)
    bound = t_quantile(1 - alpha / 2, n - 1)
    power = float(1 - nctdtr(n - 1, shift, bound) + nctdtr(n - 1, shift, -bound))
    return power if math.isfinite(power) else float(shift > bound)  # scipy gives up far from the middle
