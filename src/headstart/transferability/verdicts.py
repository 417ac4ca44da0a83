"""What was warned of beside what training measured: the paired gain over training from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.results import Result
from headstart.errors import RecordError
from headstart.transferability.agreement import Figure
from headstart.transferability.matching import BestArm
from headstart.transferability.ranking import Ranked


@dataclass(frozen=True)
class Verdict:
    """One candidate: what was expected of transfer from it, and what came."""

    candidate: str
    arm: str
    warning: str | None
    """Of the ranking; None where it had nothing to warn of."""
    expected: Figure | None
    """What the warning, or its absence, rests on: gain of a linear probe over that on random features."""
    gain: Figure | None
    """Measured: paired gain over training from scratch, positive is better; None without a baseline or pairs."""
    pairs: int
    verdict: str
    """`confirmed`, `refuted`, `undecided` or `not measured`."""
    words: str


def verdicts_of(
    candidates: Sequence[Ranked], arms: Mapping[str, BestArm], results: Sequence[Result], metric: str
) -> tuple[list[Verdict], list[str]]:
    """A verdict for each transferred candidate that was trained, and notes.

    A warning is confirmed where the interval of the gain (Student's t over paired seeds and splits, as `headstart
    compare` has it) lies below zero, refuted where it lies above, undecided where it contains zero or there is one
    pair. Where nothing was warned of, a gain above zero confirms and one below refutes.
    """
    transferred = [one for one in candidates if one.weights.get("source") != "scratch" and one.name in arms]
    if not transferred:
        return [], []
    try:
        comparison = compare_results(results, metric=metric)
    except RecordError as error:
        return [], [f"gains over training from scratch: {error}"]
    return [_verdict(one, arms[one.name], comparison) for one in transferred], []


def _verdict(candidate: Ranked, arm: BestArm, comparison: Comparison) -> Verdict:
    row = next((row for row in comparison.rows if row.key == arm.key), None)
    gain = row.gain if row is not None and row.from_scratch else None
    figure = None
    side = 0
    if gain is not None:
        sign = -1.0 if comparison.lower_is_better else 1.0
        ends = None if gain.low is None or gain.high is None else sorted((sign * gain.low, sign * gain.high))
        figure = Figure(sign * gain.mean, *(ends or (None, None)))
        side = 0 if not gain.excludes_zero else (1 if sign * gain.mean > 0 else -1)
    warned = candidate.warning is not None
    if gain is None:
        verdict = "not measured"
    else:
        verdict = "undecided" if side == 0 else ("refuted" if (side > 0) == warned else "confirmed")
    return Verdict(
        candidate=candidate.name,
        arm=arm.label,
        warning=candidate.warning,
        expected=_expected(candidate),
        gain=figure,
        pairs=gain.n if gain else 0,
        verdict=verdict,
        words=_words(candidate.label, warned, figure, gain.n if gain else 0, side, verdict),
    )


def _expected(candidate: Ranked) -> Figure | None:
    gain = candidate.gain
    if not gain or gain.get("value") is None:
        return None
    return Figure(*(None if gain.get(key) is None else float(gain[key]) for key in ("value", "low", "high")))


def _words(name: str, warned: bool, gain: Figure | None, pairs: int, side: int, verdict: str) -> str:
    said = "warned" if warned else "no warning"
    if gain is None or gain.value is None:
        return f"{name}: {said}; not measured: no run from scratch of the same backbone, head and data beside it."
    if gain.low is None:
        return f"{name}: {said}; gain {gain.value:+.3f} of one pair; {verdict}: one pair has no interval."
    interval = f"gain {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over {pairs} pairs"
    outcome = {
        1: "transfer helped",
        -1: "transfer hurt",
        0: "the interval contains zero" if gain.low <= 0 <= (gain.high or 0) else "too few equal repeats to tell",
    }[side]
    return f"{name}: {said}; {interval}; {verdict}: {outcome}."
