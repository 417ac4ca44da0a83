"""Metrics, each over a whole split at once: from a model's outputs and targets to named numbers."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchmetrics.functional import classification as tm

from headstart.config.checks import TOP
from headstart.facts import Task
from headstart.training.losses import two_columns

CALIBRATION_BINS = 15
DEFAULT_THRESHOLD = 0.5
THRESHOLD = "val/threshold"
"""In the row of a validation that chose one."""


def evaluate(
    scores: torch.Tensor,
    targets: torch.Tensor,
    *,
    task: Task,
    split: str,
    threshold: float = DEFAULT_THRESHOLD,
) -> dict[str, float]:
    """Metrics named `<split>/<metric>` of (n, outputs) scores before softmax or sigmoid, or of numbers.

    `targets` is (n,) of class indices, (n, classes) of 0 and 1, or (n, numbers). Computed from float64 scores;
    torchmetrics counts shares in float32. `threshold` is the probability above which a label counts as predicted.
    Expected calibration error: 15 equal bins, L1 (Guo
    et al. 2017, eq. 3), of two classes that of the positive one's probability. Macro averages weigh every class
    equally; auroc is one class against the rest, averaged so.
    """
    scores = scores.double().cpu()
    targets = targets.double().cpu() if task == "regression" else targets.long().cpu()
    if task == "multiclass":
        values = _multiclass(scores, targets)
    elif task == "multilabel":
        values = _multilabel(scores, targets, threshold)
    elif task == "binary":
        values = _binary(scores, targets, threshold)
    else:
        values = _regression(scores, targets)
    return {f"{split}/{name}": float(value) for name, value in values.items()}


def probabilities_of(scores: torch.Tensor, *, task: Task) -> torch.Tensor:
    """(n, outputs) scores -> (n, classes) in float64: of two classes 1 - p and p; raises ValueError for numbers."""
    if task == "regression":
        raise ValueError("numbers have no probabilities")
    scores = scores.double()
    if task == "binary":
        p = scores.sigmoid()
        return torch.cat([1 - p, p], dim=1)
    return scores.sigmoid() if task == "multilabel" else scores.softmax(dim=1)


def predicted_of(scores: torch.Tensor, *, task: Task, threshold: float = DEFAULT_THRESHOLD) -> torch.Tensor:
    """What a model says: (n,) of class indices, (n, classes) of 0 and 1, or (n, numbers) in float64."""
    if task == "regression":
        return scores.double()
    if task == "multiclass":
        return scores.argmax(dim=1)
    above = (scores.double().sigmoid() > threshold).long()
    return above if task == "multilabel" else above.squeeze(1)


def best_threshold(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """The threshold of probability with the best F1 over all scores together: of several labels the micro F1.

    `scores` are before the sigmoid; `targets` of 0 and 1 has as many. Exact: every set of labels that a
    threshold can leave is tried, each by the middle between two neighbouring probabilities, and 0.5. Of several
    that are best the one nearest to 0.5.
    """
    p, order = scores.double().cpu().flatten().sigmoid().sort(descending=True)
    hits = targets.cpu().flatten().long()[order].cumsum(0)
    ends = torch.ones_like(p, dtype=torch.bool)
    ends[:-1] = p[:-1] > p[1:]
    upper, predicted = p[ends], torch.arange(1, len(p) + 1)[ends]
    lower = torch.cat([upper[1:], upper.new_zeros(1)])
    middle = (upper + lower) / 2
    middle = torch.where(middle < upper, middle, lower)  # neighbours in float64 have nothing between them
    at_half = int((p > DEFAULT_THRESHOLD).sum())
    right = torch.cat([hits[ends], hits[at_half - 1 : at_half] if at_half else hits.new_zeros(1)])
    count = torch.cat([predicted, predicted.new_tensor([at_half])]) + hits[-1]
    f1 = 2 * right.double() / count.clamp(min=1)
    thresholds = torch.cat([middle, middle.new_tensor([DEFAULT_THRESHOLD])])
    possible = (thresholds > 0) & (thresholds < 1)
    best = possible & (f1 >= f1[possible].max())
    return float(thresholds[best][(thresholds[best] - DEFAULT_THRESHOLD).abs().argmin()])


def _multiclass(scores: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    classes = scores.shape[1]
    probabilities = scores.softmax(dim=1)
    values = {
        "accuracy_micro": tm.multiclass_accuracy(probabilities, targets, classes, average="micro"),
        "accuracy_macro": tm.multiclass_accuracy(probabilities, targets, classes, average="macro"),
        "f1_macro": tm.multiclass_f1_score(probabilities, targets, classes, average="macro"),
        "auroc": _auroc(probabilities, targets),
        "ece": tm.multiclass_calibration_error(probabilities, targets, classes, n_bins=CALIBRATION_BINS, norm="l1"),
        "log_loss": F.cross_entropy(scores, targets),
    }
    if classes > TOP:
        values["accuracy_top5"] = in_top(scores, targets, TOP).double().mean()
    return values


def _auroc(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean over the classes of the area under the ROC curve, each against the rest.

    By ranks (Hanley and McNeil 1982): the share of pairs of a positive and a negative in which the positive has
    more, ties as a half. All classes at once, as many heads are scored in every epoch; where a class has no
    positive or nothing else it is torchmetrics' word.
    """
    classes = probabilities.shape[1]
    positive = torch.nn.functional.one_hot(targets, classes).T.double()
    counts = positive.sum(dim=1)
    others = len(targets) - counts
    if not bool(((counts > 0) & (others > 0)).all()):
        return tm.multiclass_auroc(probabilities, targets, classes, average="macro")
    columns = probabilities.T.contiguous()
    ordered = columns.sort(dim=1).values
    below = torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True)
    ranks = (below + 1).double() / 2
    pairs = (ranks * positive).sum(dim=1) - counts * (counts + 1) / 2
    return (pairs / (counts * others)).mean()


def in_top(scores: torch.Tensor, targets: torch.Tensor, count: int) -> torch.Tensor:
    """Whether the target is among the `count` best scores, (n,) of bool; equal scores stand in the classes' order.

    Not torchmetrics', which leaves open which of equal ones come first.
    """
    own = scores.gather(1, targets[:, None])
    earlier = torch.arange(scores.shape[1]) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(dim=1) < count


def _multilabel(scores: torch.Tensor, targets: torch.Tensor, threshold: float) -> dict[str, torch.Tensor]:
    labels = scores.shape[1]
    predicted = predicted_of(scores, task="multilabel", threshold=threshold)
    return {
        "map_macro": tm.multilabel_average_precision(scores.sigmoid(), targets, labels, average="macro"),
        "f1_micro": tm.multilabel_f1_score(predicted, targets, labels, average="micro"),
        "f1_macro": tm.multilabel_f1_score(predicted, targets, labels, average="macro"),
        "log_loss": F.binary_cross_entropy_with_logits(scores, targets.double()),
    }


def _binary(scores: torch.Tensor, targets: torch.Tensor, threshold: float) -> dict[str, torch.Tensor]:
    p = scores.squeeze(1).sigmoid()
    predicted = predicted_of(scores, task="binary", threshold=threshold)
    return {
        "auroc": tm.binary_auroc(p, targets),
        "average_precision": tm.binary_average_precision(p, targets),
        "accuracy_micro": tm.binary_accuracy(predicted, targets),
        "accuracy_macro": tm.multiclass_accuracy(predicted, targets, 2, average="macro"),
        "f1": tm.binary_f1_score(predicted, targets),
        "precision": tm.binary_precision(predicted, targets),
        "recall": tm.binary_recall(predicted, targets),
        "specificity": tm.binary_specificity(predicted, targets),
        "ece": tm.binary_calibration_error(p, targets, n_bins=CALIBRATION_BINS, norm="l1"),
        "log_loss": F.cross_entropy(two_columns(scores), targets),
    }


def _regression(numbers: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """R2: mean over the numbers of 1 - SS_res / SS_tot.

    Where all targets of a number are equal it is 1 if they are met exactly, else 0, as in scikit-learn.
    """
    residual = ((numbers - targets) ** 2).sum(dim=0)
    total = ((targets - targets.mean(dim=0)) ** 2).sum(dim=0)
    varies = (targets != targets[:1]).any(dim=0)
    r2 = torch.where(varies, 1 - residual / torch.where(varies, total, 1.0), (residual == 0).double())
    mse = ((numbers - targets) ** 2).mean()
    return {"r2": r2.mean(), "rmse": mse.sqrt(), "mae": (numbers - targets).abs().mean(), "mse": mse}


def confusion(
    scores: torch.Tensor, targets: torch.Tensor, *, task: Task, threshold: float = DEFAULT_THRESHOLD
) -> list[list[int]]:
    """Counts: row = class, column = predicted class; with several labels a row [tn, fp, fn, tp] per class.

    Raises ValueError for numbers.
    """
    if task == "regression":
        raise ValueError("numbers have no confusion")
    predicted = predicted_of(scores.cpu(), task=task, threshold=threshold)
    targets = targets.long().cpu()
    if task == "multilabel":
        matrix = tm.multilabel_confusion_matrix(predicted, targets, scores.shape[1])
        return [[int(count) for count in label.flatten()] for label in matrix]
    matrix = tm.multiclass_confusion_matrix(predicted, targets, 2 if task == "binary" else scores.shape[1])
    return [[int(count) for count in row] for row in matrix]
