"""What a run gets wrong: its worst mistakes, the classes it confuses, how far its probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.errors import RecordError
from headstart.records.mistakes import misses
from headstart.records.schema import RunRecord
from headstart.records.store import read_record
from headstart.records.tables import PREDICTIONS, read_predictions
from headstart.records.thumbnails import THUMBNAILS, read_thumbnails

BINS = 15


@dataclass(frozen=True)
class Mistake:
    """A test image that was taken for something else."""

    id: str
    target: str
    said: str
    probability: float
    """Of what was said; with several labels of the label that is furthest off."""
    of_target: float
    """Of what it is."""
    picture: bytes | None = None


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another."""

    target: str
    said: str
    count: int
    of: int
    """Test images of the class."""


@dataclass(frozen=True)
class Calibration:
    """Per bin of confidence: how sure, how often right, how many; and the expected calibration error."""

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    counts: tuple[int, ...]
    ece: float


@dataclass(frozen=True)
class Tested:
    """A run with what it said of its test images."""

    record: RunRecord
    ids: npt.NDArray[np.str_]
    targets: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    """By the threshold that the run chose."""
    probabilities: npt.NDArray[np.float64]
    pictures: dict[str, bytes]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the columns."""
        return [str(name) for name in self.record.data["class_names"]]

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        return self.targets.ndim == 2

    @property
    def binary(self) -> bool:
        """Whether one of two classes is looked for."""
        return self.record.data.get("task") == "binary"


def tested_record(folder: Path) -> RunRecord:
    """A run's record; raises RecordError where it was not tested, naming what is missing."""
    record = read_record(folder)
    if not (folder / PREDICTIONS).is_file():
        why = "it was not tested" if record.status == "completed" else f"it is {record.status}"
        raise RecordError(f"{folder}: has no {PREDICTIONS} ({why}).")
    return record


def read_tested(folder: Path) -> Tested:
    """Read the predictions of a run whose test images have classes; raises RecordError as above."""
    record = tested_record(folder)
    found = read_predictions(folder / PREDICTIONS)
    targets, probabilities = found["target"].astype(np.int64), found["probability"].astype(np.float64)
    predicted = found["predicted"].astype(np.int64)
    classes = len(record.data.get("class_names") or [])
    if predicted.shape != targets.shape or probabilities.ndim != 2 or probabilities.shape[1] != classes:
        raise RecordError(f"{folder / PREDICTIONS}: does not fit the classes of {folder.name}.")
    pictures = read_thumbnails(folder / THUMBNAILS)
    return Tested(record, found["id"].astype(np.str_), targets, predicted, probabilities, pictures)


def worst_mistakes(tested: Tested, count: int) -> list[Mistake]:
    """The mistakes whose target the model thought least likely, the worst first."""
    names, p = tested.class_names, tested.probabilities
    found = misses(tested.targets, tested.predicted, p)
    mistakes = []
    for i in found.places[:count]:
        name, of_target = names[found.label[i]], float(found.of_target[i])
        if tested.several:
            there = bool(tested.targets[i, found.label[i]])
            true, said = (name, f"not {name}") if there else (f"not {name}", name)
            sure = 1 - of_target
        else:
            said = names[tested.predicted[i]]
            true, sure = name, float(p[i, tested.predicted[i]])
        id = str(tested.ids[i])
        mistakes.append(Mistake(id, true, said, sure, of_target, tested.pictures.get(id)))
    return mistakes


def confused_pairs(tested: Tested, count: int) -> list[Confusion]:
    """(class, taken for) by how often; none where an image may have several labels."""
    if tested.several:
        return []
    names = tested.class_names
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(table, (tested.targets, tested.predicted), 1)
    of = table.sum(axis=1)
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:count]
    places = [divmod(int(place), len(names)) for place in order]
    return [Confusion(names[i], names[j], int(table[i, j]), int(of[i])) for i, j in places if table[i, j]]


def calibration(tested: Tested) -> Calibration:
    """15 equal bins of confidence (Guo et al. 2017, eq. 1 to 3), those without images left out.

    One class per image: the confidence of the predicted class, and whether it is right. Several labels: each
    label's probability, and whether the image has it; of two classes that of the positive one.
    """
    if tested.binary:
        confidence, right = tested.probabilities[:, 1], tested.targets == 1
    elif tested.several:
        confidence, right = tested.probabilities.ravel(), tested.targets.ravel() == 1
    else:
        confidence = tested.probabilities.max(axis=1)
        right = tested.probabilities.argmax(axis=1) == tested.targets
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sure, hits = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    there = counts > 0
    gaps = np.abs(hits - sure).sum() / max(1, len(confidence))
    return Calibration(
        tuple((sure[there] / counts[there]).tolist()),
        tuple((hits[there] / counts[there]).tolist()),
        tuple(int(count) for count in counts[there]),
        float(gaps),
    )


def described(mistakes: Sequence[Mistake]) -> list[dict[str, object]]:
    """Plain data, without the pictures."""
    return [
        {"image": m.id, "class": m.target, "said": m.said, "probability": m.probability, "of_class": m.of_target}
        for m in mistakes
    ]
