"""Rank candidates: each is examined in turn, scored on its features, and compared with the others."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headstart.compare.results import dataset_name
from headstart.config.plain import to_plain
from headstart.config.schema.data import DataConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError, HeadstartError, OutOfMemory, RunFailed
from headstart.facts import DataFacts
from headstart.installed import packages
from headstart.records.store import now
from headstart.rehearsal import Rehearsal
from headstart.transferability.bootstrap import intervals
from headstart.transferability.candidates import Candidate
from headstart.transferability.examine import Examined, config_of, examine, read_data
from headstart.transferability.ordering import Found, ordered
from headstart.transferability.ranking import INTERRUPTED, STATIC, Ranked, Ranking
from headstart.transferability.scores import SCORES, Score, check_scores
from headstart.transferability.scoring import score_all
from headstart.transferability.source_images import distance_of
from headstart.transferability.static import check_elsewhere
from headstart.trouble import ran_out_of_memory

_MACHINE = (RuntimeError, MemoryError, np.linalg.LinAlgError)
"""What a backbone of others may come to, beside mistakes that have words of their own."""


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


@dataclass(frozen=True)
class _Facts:
    """What all candidates share, known from the first."""

    config: Config
    data: DataFacts
    scores: list[Score]


class _Impossible(Exception):
    """Scores that no candidate can have, as the task has not."""


def rank(asked: Asked, *, say: Callable[[str], None] = lambda line: None) -> Ranking:
    """Examine, score and order candidates (best first).

    A candidate that cannot be had, or fails, is left out, and the ranking says why; so are those that an interrupt
    (Ctrl-C) did not let it reach. `say` is told how far it is. Raises ConfigError for scores that the task or the
    candidates have not, whatever is wrong with data or results elsewhere, and the error of the first candidate
    where none can be had.
    """
    began = time.monotonic()
    configs = [config_of(one, asked.shared, asked.config_dirs) for one in asked.candidates]
    _check_by(asked, configs)
    check_elsewhere(asked.elsewhere)
    rehearsal = Rehearsal(runs=True)
    read_data(configs[0], rehearsal)
    found: list[Found] = []
    left_out: dict[str, str] = {}
    errors: list[HeadstartError] = []
    facts: _Facts | None = None
    try:
        for place, (candidate, config) in enumerate(zip(asked.candidates, configs, strict=True), start=1):
            where = f"[{place}/{len(configs)}] {candidate.name}"
            started = time.monotonic()
            try:
                examined = examine(config, rehearsal, with_source=_asks_source(asked))
                known = facts or _Facts(examined.prepared.config, examined.prepared.facts, _scores(asked, examined))
                found.append(_scored(candidate, examined, asked, scores=known.scores, rehearsal=rehearsal))
            except _Impossible as error:
                raise ConfigError(str(error)) from error
            except (HeadstartError, *_MACHINE) as error:
                own = error if isinstance(error, HeadstartError) else _in_words(error)
                left_out[candidate.name] = str(own)
                errors.append(own)
                say(f"{where}: left out: {own}")
                continue
            facts = known
            left = (time.monotonic() - began) / place * (len(configs) - place)
            so_far = f", about {left:.0f} s left" if place < len(configs) else ""
            say(f"{where}: {time.monotonic() - started:.1f} s{so_far}")
    except KeyboardInterrupt:
        if facts is None:
            raise
        seen = {*left_out, *(one.candidate.name for one in found)}
        left_out |= {one.name: INTERRUPTED for one in asked.candidates if one.name not in seen}
    if facts is None:
        raise errors[0]
    return _ranking(asked, facts, found, left_out, say=say)


def _in_words(error: BaseException) -> HeadstartError:
    """What went wrong in the machine or in a backbone's own code, in a line; what it held is let go."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if ran_out_of_memory(error):
        return OutOfMemory("out of memory; a smaller features.batch_size or data.image_size takes less.")
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return RunFailed(f"{type(error).__name__}: {first[:200]}")


def _check_by(asked: Asked, configs: Sequence[Config]) -> None:
    """Raise ConfigError where no candidate can have the score that is to order them."""
    wanted = asked.by or next(iter(asked.scores), "")
    score = SCORES.get(wanted)
    if score and score.needs_source and all(config.weights.source == "scratch" for config in configs):
        flag = "--by" if asked.by else "--scores"
        raise ConfigError(f"{flag} {wanted}: needs the source's classifier, and weights=scratch has none.")


def _asks_source(asked: Asked) -> bool:
    wanted = {*asked.scores, *([asked.by] if asked.by else [])} if asked.scores else SCORES.keys()
    return any(name in SCORES and SCORES[name].needs_source for name in wanted)


def _scores(asked: Asked, examined: Examined) -> list[Score]:
    """What is computed, checked against the task."""
    examples = examined.examples
    names = list(asked.scores) or [name for name, score in SCORES.items() if examples.task in score.tasks]
    if asked.by and asked.by not in (*names, STATIC):
        names.append(asked.by)
    present = len(np.unique(examples.targets)) if examples.targets.ndim == 1 else examples.outputs
    try:
        return check_scores(names, task=examples.task, outputs=examples.outputs, classes_present=present)
    except ConfigError as error:
        raise _Impossible(str(error)) from error


def _scored(
    candidate: Candidate,
    examined: Examined,
    asked: Asked,
    *,
    scores: Sequence[Score],
    rehearsal: Rehearsal,
) -> Found:
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
    return Found(candidate, ranked, outcome.drawn)


def _ranking(
    asked: Asked, facts: _Facts, found: list[Found], left_out: dict[str, str], *, say: Callable[[str], None]
) -> Ranking:
    plain = to_plain(facts.config)
    dataset = dataset_name(plain["data"])
    order = ordered(
        found,
        [score.name for score in facts.scores],
        by=asked.by,
        shared=asked.shared,
        elsewhere=asked.elsewhere,
        fingerprint=facts.data.fingerprint,
        dataset=dataset,
    )
    if order.instead:
        say(order.instead)
    identity = {
        "data": plain["data"],
        "candidates": sorted(one.name for one in order.candidates),
        "fingerprint": facts.data.fingerprint,
    }
    return Ranking(
        id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        created=now(),
        command=asked.command,
        task=facts.data.task,
        dataset=dataset,
        fingerprint=facts.data.fingerprint,
        images=facts.data.sizes["train"],
        outputs=facts.data.num_classes,
        by=order.by,
        static=order.static,
        candidates=order.candidates,
        left_out=left_out,
        overrides=tuple(asked.shared),
        versions=packages(),
    )
