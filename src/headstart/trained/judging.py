"""From the scores of further images to their metrics and predictions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import functional as tm

from headstart.facts import Task
from headstart.records.amend import Predicted
from headstart.training.metrics import evaluate


def metrics_of(scores: torch.Tensor, targets: torch.Tensor, *, task: Task) -> dict[str, float | None]:
    """The metrics of a test, without a split in their names; macro averages are over the classes that are there.

    `scores` (n, outputs) are before softmax or sigmoid, `targets` (n,) of class indices or (n, classes) of 0 and 1.
    Images may be taken for any class of the model, those without images among them. Of several labels per image,
    those that no image has are left out of all metrics. None for what has no value, such as auroc of one class.
    """
    if task == "multilabel":
        there = targets.bool().any(dim=0)
        scores, targets = scores[:, there], targets[:, there]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that are not there: seen to below
        values = evaluate(scores, targets, task=task, split="test")
    found = {name.partition("/")[2]: value for name, value in values.items()}
    if task == "multiclass":
        counts = torch.bincount(targets.long(), minlength=scores.shape[1])
        if bool((counts == 0).any()):
            found |= _of_those_there(scores.double(), targets.long(), counts > 0)
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


def predicted(scores: torch.Tensor, targets: torch.Tensor, *, ids: Sequence[str], task: Task) -> Predicted:
    """What the model said of each image, for the predictions beside the record."""
    exact = scores.double()
    probabilities = exact.sigmoid() if task == "multilabel" else exact.softmax(dim=1)
    return Predicted(list(ids), targets.long().numpy(), probabilities.numpy().astype(np.float32))
