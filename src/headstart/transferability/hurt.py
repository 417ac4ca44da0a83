"""Where transfer is likely to buy nothing, or to hurt: a candidate's features against those of random weights."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_LEVEL = 0.95


def gain_over_control(
    value: float, control_value: float, draws: npt.ArrayLike, control_draws: npt.ArrayLike
) -> dict[str, float]:
    """What a score on a candidate's features exceeds that on its control's by: `value`, `low`, `high`.

    The control is the same backbone with random weights on the same images. `draws` and `control_draws` are the
    bootstrap values of both, (count,) each, over the same resampled images, so that what both find hard cancels:
    the interval is of the paired differences, 95 %, from percentile to percentile (Efron and Tibshirani 1993,
    chapter 13), and reaches to `value` where that lies outside. Pairs of which one is not finite are left out.
    Raises ValueError for draws of different lengths, or none that can be used.
    """
    a, b = (np.asarray(one, dtype=np.float64) for one in (draws, control_draws))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"draws {a.shape} and those of the control {b.shape} are not paired")
    apart = a - b
    apart = apart[np.isfinite(apart)]
    gain = float(value) - float(control_value)
    if not len(apart) or not np.isfinite(gain):
        raise ValueError("no pair of draws is finite")
    tail = (1 - _LEVEL) / 2
    low, high = (float(one) for one in np.quantile(apart, [tail, 1 - tail]))
    return {"value": gain, "low": min(low, gain), "high": max(high, gain)}


def warning_of(
    gain: Mapping[str, float] | None, *, score: str, value: float, control_value: float, then: str
) -> str | None:
    """One line where transfer is likely to buy nothing or to hurt; None where a gain is seen, or without a control.

    `score` is what was measured in words, `value` and `control_value` the candidate's and its control's, `then`
    the command that trains both. Features that are worse than those of random weights are the sign of negative
    transfer, which is training from a source that leaves one worse off than without (Rosenstein et al. 2005, "To
    Transfer or Not To Transfer"; Wang et al. 2019, "Characterizing and Avoiding Negative Transfer").
    It is a sign, no proof: it tells of frozen features, and fine-tuning changes them.
    """
    if gain is None or gain["low"] > 0:
        return None
    likely = "to hurt" if gain["high"] < 0 else "to buy nothing"
    below = "less than" if gain["high"] < 0 else "not decidedly more than"
    return (
        f"transfer is likely {likely}: {score} is {value:.3f} on its features, {below} the {control_value:.3f} of "
        f"the same backbone with random weights ({gain['value']:+.3f}, 95 % {gain['low']:+.3f} to "
        f"{gain['high']:+.3f}); compare measures it: {then}"
    )


def measuring_command(overrides: Sequence[str]) -> str:
    """What to type to measure what a candidate's weights buy: it and its baseline with three seeds, then compared.

    `overrides` make the candidate on the command line of `headstart train`, its data and weights included. Both
    are trained whole: that is the baseline that `compare` measures gains from.
    """
    rest = [one for one in overrides if not _of_group(one, "weights", "strategy", "seed")]
    weights = [one for one in overrides if _of_group(one, "weights")]
    lines = [[*rest, *(weights or ["weights=pretrained"])], [*rest, "weights=scratch"]]
    if weights in ([], ["weights=pretrained"]):
        lines = [[*rest, "weights=pretrained,scratch"]]  # with further keys of weights, scratch lacks these
    trained = [shlex.join(["headstart", "train", "-m", *line, "strategy=full", "seed=range(3)"]) for line in lines]
    return " && ".join([*trained, "headstart compare"])


def _of_group(override: str, *groups: str) -> bool:
    return override.lstrip("+~").partition("=")[0].partition(".")[0] in groups
