"""All that can be said of a comparison beyond its table: what reads more files than the records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.compare.classes import ClassGain, class_gains
from headstart.compare.comparison import Comparison
from headstart.compare.curves import Curve
from headstart.compare.labels import LabelEfficiency, label_efficiency
from headstart.compare.rankings import Ranking, rankings
from headstart.compare.results import Result
from headstart.compare.rows import Row
from headstart.compare.statistics.examples import ExampleTest, test_examples
from headstart.compare.statistics.scores import ADDITIVE, FROM_PREDICTED, Predictions
from headstart.compare.summary import MethodSummary, summarise
from headstart.compare.transfer import Along, along_training, read_curves
from headstart.errors import RecordError
from headstart.records.evaluations import evaluated_in, predictions_name
from headstart.records.tables import PREDICTIONS, read_predictions

MOST_TESTED = 20
"""Arms whose predictions are compared image by image: each reads the files of all its pairs."""
MOST_RESCORED = 6
"""The same for metrics that are no sum over images, which are scored anew for each draw."""


@dataclass(frozen=True)
class Details:
    """What the tables below the first one, and the report, are made of; lists by arm."""

    examples: dict[str, ExampleTest]
    along: list[Along]
    classes: dict[str, list[ClassGain]]
    labels: list[LabelEfficiency]
    summaries: list[MethodSummary]
    rankings: list[Ranking]
    curves: dict[str, Curve | None]
    """By run id."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "examples": {arm: dataclasses.asdict(test) for arm, test in self.examples.items()},
            "along_training": [dataclasses.asdict(one) for one in self.along],
            "classes": {
                arm: [dataclasses.asdict(gain) | {"negative": gain.is_negative} for gain in gains]
                for arm, gains in self.classes.items()
            },
            "labels": [dataclasses.asdict(one) for one in self.labels],
            "over_datasets": [dataclasses.asdict(one) for one in self.summaries],
            "rankings": [dataclasses.asdict(one) for one in self.rankings],
        }


def details_of(comparison: Comparison) -> Details:
    """All of them; predictions are read for the first `MOST_TESTED` arms."""
    paired = [row for row in comparison.rows if row.paired is not None]
    additive = comparison.metric.rpartition("/")[2] in ADDITIVE.get(comparison.task or "multiclass", ())
    tested = paired[: MOST_TESTED if additive else MOST_RESCORED]
    tests = {row.arm: test for row in tested if (test := example_test(comparison, row)) is not None}
    of_own_test = evaluated_in(comparison.metric) is None
    gains = {row.arm: found for row in paired if of_own_test and (found := class_gains(comparison, row))}
    curves = read_curves(comparison)
    return Details(
        examples=tests,
        along=along_training(comparison, curves),
        classes=gains,
        labels=label_efficiency(comparison),
        summaries=summarise(comparison),
        rankings=rankings(comparison),
        curves=curves,
    )


def example_test(comparison: Comparison, row: Row) -> ExampleTest | None:
    """The test over images of an arm; None where its metric is not of the test, or predictions are not there."""
    split, _, metric = comparison.metric.partition("/")
    name = evaluated_in(comparison.metric)
    if split != "test" and name is None:
        return None
    file = predictions_name(name) if name else PREDICTIONS
    wanted = metric not in FROM_PREDICTED
    pairs = []
    for mine, other in comparison.pairs_of(row):
        a = predictions_of(mine, probabilities=wanted, file=file)
        b = predictions_of(other, probabilities=wanted, file=file)
        if a is not None and b is not None:
            pairs.append((a, b))
    return test_examples(metric, pairs) if pairs else None


def predictions_of(run: Result, *, probabilities: bool, file: str = PREDICTIONS) -> Predictions | None:
    """A run's predictions, of its own test unless `file` says; None where it has none that can be read."""
    if run.folder is None:
        return None
    try:
        found = read_predictions(run.folder / file, probabilities=probabilities)
    except RecordError:
        return None
    task = _task_of(run, found["target"])
    kind = np.float64 if task == "regression" else np.int64
    targets, predicted = (found[key].astype(kind) for key in ("target", "predicted"))
    if task == "regression":
        targets, predicted = (values.reshape(len(values), -1) for values in (targets, predicted))
    return Predictions(
        ids=found["id"].astype(np.str_),
        targets=targets,
        predicted=predicted,
        probabilities=found.get("probability"),
        task=task,
    )


def _task_of(run: Result, targets: npt.NDArray[Any]) -> str:
    """The task that a record names, where predictions of it can have this shape; else what they look like."""
    several = targets.ndim == 2
    fitting = ("multilabel", "regression") if several else ("multiclass", "binary", "regression")
    return next((task for task in fitting if task == run.task), fitting[0])


def changed_most(gains: Sequence[ClassGain], count: int) -> list[ClassGain]:
    """The classes whose recall changed most, in either direction."""
    return sorted(gains, key=lambda gain: -abs(gain.gain.mean))[:count]
