"""Example pictures: test images that one arm gets right and the other wrong, as the runs kept them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.classes import ClassGain
from headstart.compare.comparison import Comparison
from headstart.compare.details import changed_most, predictions_of
from headstart.compare.results import Result
from headstart.compare.rows import Row
from headstart.compare.statistics.scores import Predictions
from headstart.errors import RecordError
from headstart.records.thumbnails import THUMBNAILS, kind_of, read_thumbnails

MOST_PICTURE_BYTES = 16_000
"""A larger picture is left out: a report of many is mailed around."""
CLASSES = 6
PER_CLASS = 4


@dataclass(frozen=True)
class Example:
    """A picture with what it is and what each arm took it for."""

    uri: str
    id: str
    target: str
    arm_said: str
    baseline_said: str


@dataclass(frozen=True)
class ClassExamples:
    """A class whose recall changed, with pictures."""

    gain: ClassGain
    only_arm: tuple[Example, ...]
    """Right in the arm alone."""
    only_baseline: tuple[Example, ...]


def class_examples(comparison: Comparison, row: Row, gains: Sequence[ClassGain]) -> list[ClassExamples]:
    """Pictures for the classes of an arm that changed most; of what its runs and the baseline's kept."""
    names = _class_names(comparison, row)
    wanted = changed_most(gains, CLASSES)
    found = {gain.name: ([], []) for gain in wanted}  # type: dict[str, tuple[list[Example], list[Example]]]
    for mine, other in comparison.pairs_of(row):
        a, b = (predictions_of(run, probabilities=False) for run in (mine, other))
        if a is None or b is None or a.targets.ndim != 1:
            continue
        for kept, right_in_arm in ((_kept(other), True), (_kept(mine), False)):
            for example, label in _disagreements(a, b, kept, names, right_in_arm=right_in_arm):
                place = found.get(label)
                if place is None:
                    continue
                shelf = place[0 if right_in_arm else 1]
                if len(shelf) < PER_CLASS and example.id not in {one.id for one in shelf}:
                    shelf.append(example)
    return [ClassExamples(gain, tuple(found[gain.name][0]), tuple(found[gain.name][1])) for gain in wanted]


def _class_names(comparison: Comparison, row: Row) -> list[str]:
    record = comparison.arms_by_key[row.key].example.record
    return [str(name) for name in (record.data.get("class_names") if record else None) or []]


def _kept(run: Result) -> dict[str, bytes]:
    if run.folder is None:
        return {}
    try:
        return read_thumbnails(run.folder / THUMBNAILS)
    except RecordError:
        return {}


def _disagreements(
    a: Predictions, b: Predictions, kept: dict[str, bytes], names: Sequence[str], *, right_in_arm: bool
) -> Iterator[tuple[Example, str]]:
    places = {str(name): i for i, name in enumerate(b.ids)}
    for i in np.flatnonzero(np.isin(a.ids, list(kept))):
        j = places.get(str(a.ids[i]))
        if j is None or a.targets[i] != b.targets[j]:
            continue
        said_a, said_b, target = int(a.predicted[i]), int(b.predicted[j]), int(a.targets[i])
        if (said_a == target) != right_in_arm or (said_b == target) == right_in_arm:
            continue
        if max(said_a, said_b, target) >= len(names):
            continue
        image = kept[str(a.ids[i])]
        if len(image) > MOST_PICTURE_BYTES:
            continue
        encoded = base64.b64encode(image).decode()
        uri = f"data:image/{kind_of(image)};base64,{encoded}"
        yield Example(uri, str(a.ids[i]), names[target], names[said_a], names[said_b]), names[target]
