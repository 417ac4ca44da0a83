"""From the scores of further images to their metrics and predictions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics import functional as tm

from headstart.facts import Task
from headstart.records.amend import Predicted
from headstart.training.metrics import DEFAULT_THRESHOLD, evaluate, predicted_of, probabilities_of


def metrics_of(
    scores: torch.Tensor, targets: torch.Tensor, *, task: Task, threshold: float = DEFAULT_THRESHOLD
) -> dict[str, float | None]:
    """The metrics of a test, without a split in their names; macro averages are over the classes that are there.

    `scores` (n, outputs) are before softmax or sigmoid, or numbers; `targets` (n,) of class indices, (n, classes)
    of 0 and 1, or (n, numbers). `threshold` is the one that validation chose where labels have one. Images may be
    taken for any class of the model, those without images among them. Of several labels per image, those that no
    image has are left out of all metrics. None for what has no value, such as auroc of one class.
    """
    if task == "multilabel":
        there = targets.bool().any(dim=0)
        scores, targets = scores[:, there], targets[:, there]
        if scores.shape[1] == 1:
            return _of_one_label(scores.double()[:, 0], targets[:, 0].long(), threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are not there: seen to below
        values = evaluate(scores, targets, task=task, split="test", threshold=threshold)
    found = {name.partition("/")[2]: value for name, value in values.items()}
    if task == "multiclass":
        counts = torch.bincount(targets.long(), minlength=scores.shape[1])
        if bool((counts == 0).any()):
            found |= _of_those_there(scores.double(), targets.long(), counts > 0)
    elif task == "binary" and len(targets.unique()) == 1:
        found |= _of_one_class(targets, found)
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _of_those_there(scores: torch.Tensor, targets: torch.Tensor, there: torch.Tensor) -> dict[str, float]:
    """What torchmetrics averages over classes, over some of them alone: it counts absent ones as zero."""
    classes, probabilities = scores.shape[1], scores.softmax(dim=1)
    recall = tm.classification.multiclass_accuracy(probabilities, targets, classes, average="none")
    f1 = tm.classification.multiclass_f1_score(probabilities, targets, classes, average="none")
    places = torch.nonzero(there).flatten().tolist()
    areas = [
        float(tm.classification.binary_auroc(probabilities[:, i], (targets == i).long()))
        for i in (places if len(places) > 1 else ())
    ]
    return {
        "accuracy_macro": float(recall[there].double().mean()),
        "f1_macro": float(f1[there].double().mean()),
        "auroc": math.fsum(areas) / len(areas) if areas else math.nan,
    }


def _of_one_label(scores: torch.Tensor, targets: torch.Tensor, threshold: float) -> dict[str, float | None]:
    """The metrics of several labels where images have one of them alone; torchmetrics has them of two and more."""
    probabilities = scores.sigmoid()
    f1 = float(tm.classification.binary_f1_score(probabilities, targets, threshold=threshold))
    return {
        "map_macro": float(tm.classification.binary_average_precision(probabilities, targets)),
        "f1_micro": f1,
        "f1_macro": f1,
        "log_loss": float(torch.nn.functional.binary_cross_entropy_with_logits(scores, targets.double())),
    }


def _of_one_class(targets: torch.Tensor, found: Mapping[str, float]) -> dict[str, float]:
    """What is left of the metrics of two classes where there are images of one alone."""
    of_none = ("f1", "precision", "recall") if not bool(targets.any()) else ("specificity",)
    return {
        **dict.fromkeys(("auroc", "average_precision", *of_none), math.nan),
        "accuracy_macro": found["accuracy_micro"],
    }


def predicted(
    scores: torch.Tensor, targets: npt.NDArray[Any], *, ids: Sequence[str], task: Task, threshold: float
) -> Predicted:
    """What the model said of each image, to be kept beside the record; `targets` are as the data has them."""
    if task == "regression":
        said = scores.float().numpy()
        return Predicted(list(ids), np.asarray(targets, dtype=np.float64).reshape(said.shape), said, None)
    labels = predicted_of(scores, task=task, threshold=threshold).numpy()
    probabilities = probabilities_of(scores, task=task).float().numpy()
    return Predicted(list(ids), np.asarray(targets, dtype=np.int64), labels, probabilities)
