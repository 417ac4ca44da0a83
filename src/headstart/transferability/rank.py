"""Rank candidates: each is examined in turn, scored on its features, and compared with the others."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.compare.results import dataset_name
from headstart.config.plain import to_plain
from headstart.config.schema.data import DataConfig
from headstart.errors import ConfigError, HeadstartError
from headstart.installed import packages
from headstart.records.store import now
from headstart.rehearsal import Rehearsal
from headstart.transferability.bootstrap import intervals, rank_intervals
from headstart.transferability.candidates import Candidate, is_of
from headstart.transferability.examine import Examined, config_of, examine, read_data
from headstart.transferability.hurt import gain_over_control, measuring_command, warning_of
from headstart.transferability.ranking import STATIC, Ranked, Ranking
from headstart.transferability.scores import SCORES, Score, check_scores
from headstart.transferability.scoring import score_all
from headstart.transferability.source_images import distance_of
from headstart.transferability.static import check_elsewhere, static_scores

Drawn = dict[str, npt.NDArray[np.float64]]
"""By score: its values under the draws of the bootstrap."""


@dataclass(frozen=True)
class Asked:
    """What to rank, and how."""

    candidates: Sequence[Candidate]
    shared: Sequence[str] = ()
    """Overrides of all candidates, of data above all."""
    scores: Sequence[str] = ()
    """Names; empty for all that the task has."""
    by: str | None = None
    """The score that orders them."""
    draws: int = 100
    """Resamples of the images; 0 gives no intervals."""
    elsewhere: Sequence[Path] = ()
    """Results on other data sets, for the static baseline."""
    source: DataConfig | None = None
    """Images that all candidates were pretrained on, where they are at hand."""
    config_dirs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass
class _Found:
    """One candidate that was examined, until all of them are."""

    candidate: Candidate
    ranked: Ranked
    drawn: Drawn = field(default_factory=dict)


def rank(asked: Asked, *, say: Callable[[str], None] = lambda line: None) -> Ranking:
    """Examine, score and order candidates (best first).

    A candidate that cannot be had is left out, and the ranking says why. `say` is told how far it is. Raises
    ConfigError for scores that the task has not, the error of the first candidate where none can be had.
    """
    began = time.monotonic()
    check_elsewhere(asked.elsewhere)
    configs = [config_of(one, asked.shared, asked.config_dirs) for one in asked.candidates]
    rehearsal = Rehearsal(runs=True)
    read_data(configs[0], rehearsal)
    found: list[_Found] = []
    left_out: dict[str, str] = {}
    errors: list[HeadstartError] = []
    facts: tuple[Examined, list[Score]] | None = None
    for place, (candidate, config) in enumerate(zip(asked.candidates, configs, strict=True), start=1):
        where = f"[{place}/{len(configs)}] {candidate.name}"
        started = time.monotonic()
        try:
            examined = examine(config, rehearsal, with_source=_asks_source(asked))
            computed = facts or (examined, _what_to_compute(asked, examined))
            one = _scored(candidate, examined, asked, scores=computed[1], rehearsal=rehearsal)
        except _Impossible as error:
            raise ConfigError(str(error)) from error
        except HeadstartError as error:
            left_out[candidate.name] = str(error)
            errors.append(error)
            say(f"{where}: left out: {error}")
            continue
        facts = computed
        found.append(one)
        left = (time.monotonic() - began) / place * (len(configs) - place)
        so_far = f", about {left:.0f} s left" if place < len(configs) else ""
        say(f"{where}: {time.monotonic() - started:.1f} s{so_far}")
    if facts is None:
        raise errors[0]
    return _ranking(asked, facts[0], facts[1], found, left_out)


class _Impossible(Exception):
    """Scores that no candidate can have, as the task has not."""


def _asks_source(asked: Asked) -> bool:
    return not asked.scores or any(name in ("leep", "nce") for name in asked.scores)


def _what_to_compute(asked: Asked, examined: Examined) -> list[Score]:
    """The scores, checked against the task."""
    examples = examined.examples
    names = list(asked.scores) or [name for name, score in SCORES.items() if examples.task in score.tasks]
    if asked.by and asked.by not in (*names, STATIC):
        names.append(asked.by)
    present = len(np.unique(examples.targets)) if examples.targets.ndim == 1 else examples.outputs
    try:
        scores = check_scores(names, task=examples.task, outputs=examples.outputs, classes_present=present)
    except ConfigError as error:
        raise _Impossible(str(error)) from error
    return scores


def _scored(
    candidate: Candidate,
    examined: Examined,
    asked: Asked,
    *,
    scores: Sequence[Score],
    rehearsal: Rehearsal,
) -> _Found:
    config, examples = examined.prepared.config, examined.examples
    outcome = score_all(scores, examples, no_source=examined.no_source, draws=asked.draws)
    began = time.monotonic()
    distance = distance_of(examined, rehearsal, source=asked.source)
    ranked = Ranked(
        name=candidate.name,
        overrides=candidate.overrides,
        backbone=config.backbone.name,
        library=config.backbone.library,
        weights=examined.weights,
        parameters=examined.parameters,
        images_per_second=round(examined.images_per_second, 3),
        memory=examined.memory,
        seconds={
            **examined.seconds,
            **outcome.seconds,
            "distance": round(time.monotonic() - began, 3),
        },
        scores={name: one.value for name, one in outcome.values.items()},
        intervals=intervals(outcome.drawn),
        notes={name: one.note for name, one in outcome.values.items() if one.note},
        distance=distance,
    )
    return _Found(candidate, ranked, outcome.drawn)


def _ranking(
    asked: Asked, first: Examined, scores: Sequence[Score], found: list[_Found], left_out: dict[str, str]
) -> Ranking:
    config, facts = first.prepared.config, first.prepared.facts
    name = dataset_name(to_plain(config)["data"])
    words, static = static_scores(
        [one.ranked for one in found], asked.elsewhere, fingerprint=facts.fingerprint, dataset=name
    )
    by = _order(asked, scores, found, static)
    places = _places(scores, found)
    ranked = []
    for one in found:
        values = {**one.ranked.scores, STATIC: static.get(one.ranked.name)}
        gain, warning = _against_control(one, found, asked.shared)
        ranked.append(
            replace(one.ranked, scores=values, ranks=places.get(one.ranked.name, {}), gain=gain, warning=warning)
        )
    ranked.sort(key=lambda one: _sort_key(one.scores.get(by)))
    identity = {
        "data": to_plain(config)["data"],
        "candidates": sorted(one.name for one in ranked),
        "fingerprint": facts.fingerprint,
    }
    return Ranking(
        id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        created=now(),
        command=asked.command,
        task=facts.task,
        dataset=name,
        fingerprint=facts.fingerprint,
        images=facts.sizes["train"],
        outputs=facts.num_classes,
        by=by,
        static=words,
        candidates=tuple(ranked),
        left_out=left_out,
        overrides=tuple(asked.shared),
        versions=packages(),
    )


def _sort_key(value: float | None) -> tuple[bool, float]:
    return value is None, -(value or 0.0)


def _order(asked: Asked, scores: Sequence[Score], found: Sequence[_Found], static: dict[str, float]) -> str:
    """The score that orders; raises ConfigError where no candidate has it."""
    by = asked.by or next(score.name for score in scores)
    have = static if by == STATIC else [one for one in found if one.ranked.scores.get(by) is not None]
    if not have:
        why = next((one.ranked.notes[by] for one in found if by in one.ranked.notes), "no candidate has it")
        raise ConfigError(f"--by {by}: {why}")
    return by


def _places(scores: Sequence[Score], found: Sequence[_Found]) -> dict[str, dict[str, tuple[float, float]]]:
    """Candidate -> score -> 95 % interval of its place."""
    places: dict[str, dict[str, tuple[float, float]]] = {}
    for score in scores:
        drawn = {one.ranked.name: one.drawn[score.name] for one in found if score.name in one.drawn}
        for name, place in (rank_intervals(drawn) if drawn else {}).items():
            places.setdefault(name, {})[score.name] = place
    return places


def _against_control(
    one: _Found, found: Sequence[_Found], shared: Sequence[str]
) -> tuple[dict[str, Any] | None, str | None]:
    """The probe's gain over the same backbone with random weights, and the warning that follows from it."""
    name, ranked = "linear_probe", one.ranked
    if ranked.weights["source"] == "scratch" or name not in one.drawn:
        return None, None
    architecture = ranked.backbone.partition(".")[0]
    for other in found:
        same = other.ranked.backbone.partition(".")[0] == architecture and other.ranked.library == ranked.library
        if same and other.ranked.weights["source"] == "scratch" and name in other.drawn:
            value, control = ranked.scores[name], other.ranked.scores[name]
            assert value is not None
            assert control is not None
            gain = gain_over_control(value, control, one.drawn[name], other.drawn[name])
            own = one.candidate.weights  # which take the place of everybody's
            kept = [text for text in shared if not (own and is_of("weights", text))]
            then = measuring_command([*kept, *ranked.overrides])
            warning = warning_of(gain, score="a linear probe", value=value, control_value=control, then=then)
            return gain, warning and f"{ranked.label}: {warning}"
    return None, None
