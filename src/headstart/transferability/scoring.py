"""All scores of one candidate, with what each could have been on other images. Never imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from headstart.transferability.bootstrap import Draws, bootstrap
from headstart.transferability.scores import Examples, Score, Scored
from headstart.transferability.scores.examples import Array, Places

_SEED = 0


@dataclass
class Outcome:
    """By score: its value, and its values under draws that all candidates on the same images share."""

    values: dict[str, Scored] = field(default_factory=dict)
    drawn: dict[str, Array] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """`scores` and `bootstrap`."""


def score_all(scores: Sequence[Score], examples: Examples, *, no_source: str, draws: int) -> Outcome:
    """Compute `scores`, and `draws` bootstrap values of each that has a value (none where that is 0).

    Scores whose cost grows too fast see `Score.most` images, the same ones for every candidate, and say so. A score
    that needs the source's classifier has no value without one, for the reason `no_source`. Raises DataError where
    features are not finite.
    """
    found = Outcome(seconds={"scores": 0.0, "bootstrap": 0.0})
    for score in scores:
        began = time.monotonic()
        seen = examples
        if score.most is not None and len(examples) > score.most:
            seen = examples.take(_some(len(examples), score.most))
        if not score.needs_source and seen.source is not None:
            seen = replace(seen, source=None)  # large, and copied with each draw
        lacks = score.needs_source and examples.source is None
        value = Scored(None, no_source) if lacks else score.compute(seen)
        if len(seen) < len(examples):
            said = f"on {len(seen):,} of {len(examples):,} images"
            value = replace(value, note=f"{value.note}; {said}" if value.note else said)
        found.values[score.name] = value
        computed = time.monotonic()
        if draws and value.value is not None:
            found.drawn[score.name] = bootstrap(score, seen, value, _draws(len(seen), draws))
        found.seconds["scores"] += computed - began
        found.seconds["bootstrap"] += time.monotonic() - computed
    found.seconds = {name: round(seconds, 3) for name, seconds in found.seconds.items()}
    return found


@lru_cache(maxsize=4)
def _some(count: int, most: int) -> Places:
    """(most,) places in rising order, of 0..count-1."""
    return np.sort(np.random.default_rng([_SEED, count]).permutation(count)[:most])


@lru_cache(maxsize=4)
def _draws(count: int, draws: int) -> Draws:
    return Draws(count, draws, seed=_SEED)
