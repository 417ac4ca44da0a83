"""Metrics, each over a whole split at once: from class scores and targets to named numbers."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchmetrics import functional as tm

from headstart.facts import Task

CALIBRATION_BINS = 15


def evaluate(scores: torch.Tensor, targets: torch.Tensor, *, task: Task, split: str) -> dict[str, float]:
    """Metrics of (n, classes) scores before softmax or sigmoid, named `<split>/<metric>`.

    `targets` is (n,) of class indices or (n, classes) of 0 and 1. Computed in float64. Expected calibration
    error: 15 equal bins, L1 (Guo et al. 2017, eq. 3). Macro averages weigh every class equally; auroc is one
    class against the rest, averaged so.
    """
    scores = scores.double().cpu()
    targets = targets.long().cpu()
    values = _multiclass(scores, targets) if task == "multiclass" else _multilabel(scores, targets)
    return {f"{split}/{name}": float(value) for name, value in values.items()}


def _multiclass(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    classes = scores.shape[1]
    probabilities = scores.softmax(dim=1)
    return {
        "accuracy_micro": tm.classification.multiclass_accuracy(probabilities, targets, classes, average="micro"),
        "accuracy_macro": tm.classification.multiclass_accuracy(probabilities, targets, classes, average="macro"),
        "f1_macro": tm.classification.multiclass_f1_score(probabilities, targets, classes, average="macro"),
        "auroc": tm.classification.multiclass_auroc(probabilities, targets, classes, average="macro"),
        "ece": tm.classification.multiclass_calibration_error(
            probabilities, targets, classes, n_bins=CALIBRATION_BINS, norm="l1"
        ),
        "log_loss": F.cross_entropy(scores, targets),
    }


def _multilabel(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    labels = scores.shape[1]
    probabilities = scores.sigmoid()
    return {
        "map_macro": tm.classification.multilabel_average_precision(
            probabilities, targets, labels, average="macro"
        ),
        "f1_micro": tm.classification.multilabel_f1_score(probabilities, targets, labels, average="micro"),
        "f1_macro": tm.classification.multilabel_f1_score(probabilities, targets, labels, average="macro"),
        "log_loss": F.binary_cross_entropy_with_logits(scores, targets.double()),
    }


def confusion(scores: torch.Tensor, targets: torch.Tensor, *, task: Task) -> list[list[int]]:
    """Counts: row = class, column = predicted class; with several labels a row [tn, fp, fn, tp] per class."""
    scores, targets = scores.cpu(), targets.long().cpu()
    if task == "multiclass":
        matrix = tm.classification.multiclass_confusion_matrix(scores, targets, scores.shape[1])
        return [[int(count) for count in row] for row in matrix]
    matrix = tm.classification.multilabel_confusion_matrix(scores.sigmoid(), targets, scores.shape[1])
    return [[int(count) for count in label.flatten()] for label in matrix]


def default_monitor(task: Task) -> str:
    """What chooses the checkpoint where nothing is said."""
    return "val/accuracy_micro" if task == "multiclass" else "val/map_macro"
