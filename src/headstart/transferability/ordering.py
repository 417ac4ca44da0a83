"""From candidates that were examined one by one to their order: places, the static baseline, warnings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.transferability.bootstrap import rank_intervals
from headstart.transferability.candidates import Candidate
from headstart.transferability.hurt import gain_over_control, measuring_command, warning_of
from headstart.transferability.ranking import PROBE, STATIC, Interval, Ranked
from headstart.transferability.scores.examples import Array
from headstart.transferability.static import static_scores


@dataclass
class Found:
    """One candidate that was examined."""

    candidate: Candidate
    ranked: Ranked
    drawn: dict[str, Array] = field(default_factory=dict)
    """By score: its values under the draws of the bootstrap, which all candidates share."""


@dataclass(frozen=True)
class Ordered:
    """Candidates in their order, best first."""

    by: str
    """The score that it goes by."""
    instead: str
    """Why that is not the one that was asked for; empty where it is."""
    static: str
    """What the static baseline is."""
    candidates: tuple[Ranked, ...]


def ordered(
    found: Sequence[Found],
    scores: Sequence[str],
    *,
    by: str | None,
    shared: Sequence[str],
    elsewhere: Sequence[Path],
    fingerprint: str,
    dataset: str,
) -> Ordered:
    """Order `found` by the score `by` (else the first of `scores`), or by the first that any candidate has.

    `shared` are the overrides of all candidates, `elsewhere` results on other data sets than `dataset`.
    """
    words, static = static_scores(
        [one.ranked for one in found], elsewhere, fingerprint=fingerprint, dataset=dataset
    )
    places = _places(scores, found)
    ranked = []
    for one in found:
        values = {**one.ranked.scores, STATIC: static.get(one.ranked.name)}
        gain, warning = _against_control(one, found, shared)
        own = places.get(one.ranked.name, {})
        ranked.append(replace(one.ranked, scores=values, ranks=own, gain=gain, warning=warning))
    wanted = by or scores[0]
    chosen = next(name for name in (wanted, *scores, STATIC) if any(r.scores.get(name) is not None for r in ranked))
    instead = ""
    if chosen != wanted:
        why = next((one.notes[wanted] for one in ranked if wanted in one.notes), "no candidate has it")
        instead = f"ordered by {chosen}, not by {wanted}: {why}"
    ranked.sort(key=lambda one: _sort_key(one.scores.get(chosen)))
    return Ordered(chosen, instead, words, tuple(ranked))


def _sort_key(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)


def _places(scores: Sequence[str], found: Sequence[Found]) -> dict[str, dict[str, Interval]]:
    """Candidate -> score -> 95 % interval of its place, for those whose draws are known."""
    places: dict[str, dict[str, Interval]] = {}
    for score in scores:
        drawn = {one.ranked.name: one.drawn[score] for one in found if score in one.drawn}
        for name, place in rank_intervals(drawn).items():
            places.setdefault(name, {})[score] = place
    return places


def _against_control(
    one: Found, found: Sequence[Found], shared: Sequence[str]
) -> tuple[dict[str, Any] | None, str | None]:
    """The probe's gain over the same backbone with random weights, and the warning that follows from it."""
    ranked = one.ranked
    value, drawn = ranked.scores.get(PROBE), one.drawn.get(PROBE)
    if ranked.weights["source"] == "scratch" or value is None or drawn is None:
        return None, None
    for other in found:
        control, others = other.ranked.scores.get(PROBE), other.drawn.get(PROBE)
        if control is not None and others is not None and _is_control(other.ranked, ranked):
            gain = gain_over_control(value, control, drawn, others)
            then = measuring_command(one.candidate.after(shared))
            warning = warning_of(gain, score="a linear probe", value=value, control_value=control, then=then)
            return gain, warning and f"{ranked.label}: {warning}"
    return None, None


def _is_control(one: Ranked, of: Ranked) -> bool:
    same = one.backbone.partition(".")[0] == of.backbone.partition(".")[0] and one.library == of.library
    return same and one.weights["source"] == "scratch"
