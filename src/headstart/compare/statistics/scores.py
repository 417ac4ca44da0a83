"""Metrics from stored predictions, in float64 and without torch: what a test over examples computes again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALIBRATION_BINS = 15
TOP = 5
ADDITIVE = {
    "multiclass": ("accuracy_micro", "accuracy_macro", "log_loss", "accuracy_top5"),
    "binary": ("accuracy_micro", "accuracy_macro", "log_loss"),
    "regression": ("mse", "mae"),
}
"""By task, metrics that are a sum over examples."""


FROM_PREDICTED = (
    "accuracy_micro", "accuracy_macro", "f1_macro", "f1_micro", "f1", "precision", "recall", "specificity",
    "mse", "mae", "rmse", "r2",
)  # fmt: skip
"""Metrics that need the predicted classes or numbers alone."""


@dataclass(frozen=True)
class Predictions:
    """What a run said of its test images.

    `ids` is (n,); `targets` and `predicted` are (n,) of class indices, (n, labels) of 0 and 1, or (n, numbers) of
    floats; `probabilities` is (n, classes), or None where they were not read.
    """

    ids: npt.NDArray[np.str_]
    targets: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: Floats | None = None
    task: str = "multiclass"

    def take(self, rows: Ints) -> Predictions:
        """Some of the images, in that order, or several times."""
        scores = None if self.probabilities is None else self.probabilities[rows]
        return Predictions(self.ids[rows], self.targets[rows], self.predicted[rows], scores, self.task)

    def exchanged(self, other: Predictions, turn: npt.NDArray[np.bool_]) -> Predictions:
        """The same images, with the other's predictions where `turn` (n,) says so."""
        column = turn if self.predicted.ndim == 1 else turn[:, None]
        scores = None
        if self.probabilities is not None and other.probabilities is not None:
            scores = np.where(turn[:, None], other.probabilities, self.probabilities)
        predicted = np.where(column, other.predicted, self.predicted)
        return Predictions(self.ids, self.targets, predicted, scores, self.task)

    @property
    def scores(self) -> Floats:
        """The probabilities; raises ValueError where they were not read."""
        if self.probabilities is None:
            raise ValueError("this metric needs probabilities")
        return self.probabilities


def contributions(metric: str, of: Predictions) -> Floats:
    """What each example adds to a metric that is `ADDITIVE` for its task: (n,), and their sum is the metric.

    A class without test images has no part in `accuracy_macro`.
    """
    n = len(of.targets)
    if metric in ("mse", "mae"):
        off = np.abs(of.predicted - of.targets)
        return np.asarray((off**2 if metric == "mse" else off).mean(axis=1) / n, np.float64)
    if metric == "log_loss":
        tiny = np.finfo(np.float32).tiny
        return np.asarray(-np.log(np.maximum(of.scores[np.arange(n), of.targets], tiny)) / n, np.float64)
    if metric == "accuracy_top5":
        own = of.scores[np.arange(n), of.targets][:, None]
        earlier = np.arange(of.scores.shape[1]) < of.targets[:, None]
        return np.asarray((((of.scores > own) | ((of.scores == own) & earlier)).sum(axis=1) < TOP) / n, np.float64)
    right = (of.predicted == of.targets).astype(np.float64)
    if metric == "accuracy_micro":
        return right / n
    counts = np.bincount(of.targets)
    return np.asarray(right / (counts[of.targets] * np.count_nonzero(counts)), np.float64)


def score(metric: str, of: Predictions) -> float:
    """A metric over a whole split, as in docs/records.md.

    Raises ValueError for a metric that the task does not have, or that needs probabilities that are not there.
    """
    if metric in ADDITIVE.get(of.task, ()):
        return float(contributions(metric, of).sum())
    value = _SCORES[of.task](metric, of)
    if value is None:
        raise ValueError(f"{metric} is no metric of this task")
    return value


def _of_classes(metric: str, of: Predictions) -> float | None:
    if metric == "ece":
        return _calibration_error(of.scores.max(axis=1), of.predicted == of.targets)
    classes = 1 + int(max(of.targets.max(), of.predicted.max()))
    if metric == "auroc":
        one_hot = np.eye(max(classes, of.scores.shape[1]), dtype=np.int64)[of.targets]
        present = one_hot.any(axis=0) & ~one_hot.all(axis=0)
        return float(_auroc(one_hot[:, present], of.scores[:, present]).mean())
    if metric == "f1_macro":
        either = np.eye(classes, dtype=np.int64)
        return _f1_macro(either[of.targets], either[of.predicted], drop_absent=True)
    return None


def _of_two_classes(metric: str, of: Predictions) -> float | None:
    """A metric whose denominator is 0 is 0, as it is recorded."""
    there, said = of.targets == 1, of.predicted == 1
    if metric in ("recall", "specificity"):
        kept = there if metric == "recall" else ~there
        return float((said == there)[kept].mean()) if kept.any() else 0.0
    if metric == "precision":
        return float(there[said].mean()) if said.any() else 0.0
    columns = of.targets[:, None]
    if metric == "f1":
        return float(_f1(columns, of.predicted[:, None])[0])
    if metric == "auroc":
        return float(_auroc(columns, of.scores[:, 1:])[0]) if there.any() and not there.all() else 0.0
    if metric == "average_precision":
        return float(_average_precision(columns, of.scores[:, 1:])[0]) if there.any() else 0.0
    return _calibration_error(of.scores[:, 1], there) if metric == "ece" else None


def _of_labels(metric: str, of: Predictions) -> float | None:
    if metric == "log_loss":
        tiny = np.finfo(np.float32).tiny
        kept = np.where(of.targets == 1, of.scores, 1 - of.scores)
        return float(-np.log(np.maximum(kept, tiny)).mean())
    if metric == "map_macro":
        present = of.targets.any(axis=0)
        return float(_average_precision(of.targets[:, present], of.scores[:, present]).mean())
    if metric == "f1_macro":
        return _f1_macro(of.targets, of.predicted, drop_absent=False)
    if metric == "f1_micro":
        return float(_f1(of.targets.reshape(-1, 1), of.predicted.reshape(-1, 1))[0])
    return None


def _of_numbers(metric: str, of: Predictions) -> float | None:
    if metric == "rmse":
        return float(np.sqrt(contributions("mse", of).sum()))
    if metric != "r2":
        return None
    residual = ((of.predicted - of.targets) ** 2).sum(axis=0)
    total = ((of.targets - of.targets.mean(axis=0)) ** 2).sum(axis=0)
    varies = (of.targets != of.targets[:1]).any(axis=0)
    return float(np.where(varies, 1 - residual / np.where(varies, total, 1.0), residual == 0).mean())


_SCORES: dict[str, Callable[[str, Predictions], float | None]] = {
    "multiclass": _of_classes,
    "binary": _of_two_classes,
    "multilabel": _of_labels,
    "regression": _of_numbers,
}


def _f1(targets: Ints, predicted: Ints) -> Floats:
    both = (targets * predicted).sum(axis=0)
    either = targets.sum(axis=0) + predicted.sum(axis=0)
    return 2.0 * both / np.maximum(either, 1)


def _f1_macro(targets: Ints, predicted: Ints, *, drop_absent: bool) -> float:
    values = _f1(targets, predicted)
    if drop_absent:  # a class that is neither there nor predicted has no value
        values = values[(targets.any(axis=0)) | (predicted.any(axis=0))]
    return float(values.mean())


def _ties(ordered: Floats) -> tuple[Ints, Ints]:
    """First and last place of the group of equal values that each place is in, per column of sorted values."""
    n = len(ordered)
    places = np.broadcast_to(np.arange(n)[:, None], ordered.shape)
    new = np.ones(ordered.shape, dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=0)
    ends = np.ones(ordered.shape, dtype=bool)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, places, n)[::-1], axis=0)[::-1]
    return first, last


def _average_precision(targets: Ints, scores: Floats) -> Floats:
    """Sum over thresholds of (recall gained) x precision, per column; equal scores share a threshold."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ordered = np.take_along_axis(targets, order, axis=0)
    _, last = _ties(np.take_along_axis(-scores, order, axis=0))
    precision = np.cumsum(ordered, axis=0) / np.arange(1, len(ordered) + 1)[:, None]
    return (ordered * np.take_along_axis(precision, last, axis=0)).sum(axis=0) / ordered.sum(axis=0)


def _auroc(targets: Ints, scores: Floats) -> Floats:
    """Mann-Whitney U over the number of pairs, per column; equal scores count half."""
    order = np.argsort(scores, axis=0, kind="stable")
    ordered = np.take_along_axis(targets, order, axis=0)
    first, last = _ties(np.take_along_axis(scores, order, axis=0))
    ranks = (first + last) / 2 + 1
    positives = ordered.sum(axis=0)
    u = (ranks * ordered).sum(axis=0) - positives * (positives + 1) / 2
    return u / (positives * (len(ordered) - positives))


def _calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error, 15 equal bins, L1 (Guo et al. 2017, eq. 3)."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(right))
