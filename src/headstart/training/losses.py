"""What is minimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from headstart.config.schema.trainer import LossConfig
from headstart.errors import ConfigError
from headstart.facts import DataFacts

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores (n, outputs) and targets -> the mean loss, a scalar."""


@dataclass(frozen=True)
class Terms:
    """A loss before its mean: each example's own, and the weight that it has in the mean."""

    each: Loss
    """Scores (n, outputs) and targets -> (n,)."""
    weight: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Targets -> (n,), by whose sum the mean divides; None where that is the number of examples."""


LOSSES = {
    "multiclass": ("cross_entropy", "focal"),
    "multilabel": ("binary_cross_entropy", "focal"),
    "binary": ("binary_cross_entropy", "focal"),
    "regression": ("mse", "mae", "smooth_l1"),
}
"""What a task can be trained by; `auto` is the first."""
_WORDS = {
    "multiclass": "images have one label each",
    "multilabel": "images have several labels each",
    "binary": "images are scored by one number (data.positive)",
    "regression": "targets are numbers",
}
GAMMA = 2.0
"""Of the focal loss, where nothing is said (Lin et al. 2017, section 4.1)."""
_TINY = 1e-8
_OF_NUMBERS: dict[str, Callable[..., torch.Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def resolve_loss(config: LossConfig, facts: DataFacts) -> LossConfig:
    """The same with what `auto` stands for; raises ConfigError where what is named does not fit the targets."""
    fitting, words = LOSSES[facts.task], _WORDS[facts.task]
    name = fitting[0] if config.name == "auto" else config.name
    if name not in fitting:
        raise ConfigError(f"loss.name={name}: the {words}; use {' or '.join(fitting)}.")
    if facts.task == "regression" and config.label_smoothing:
        raise ConfigError(f"loss.label_smoothing={config.label_smoothing:g}: is for classes; the {words}.")
    if facts.task == "regression" and config.class_weights != "none":
        raise ConfigError(f"loss.class_weights={config.class_weights}: are for classes; the {words}.")
    gamma = GAMMA if name == "focal" and config.gamma is None else config.gamma
    return replace(config, name=name, gamma=gamma)


def build_loss(config: LossConfig, facts: DataFacts) -> Loss:
    """The loss of scores before softmax or sigmoid, or of numbers in the data's own units.

    What weighs classes divides by the sum of the weights of the batch, as PyTorch's cross-entropy does, so that
    the focal loss with gamma 0 is the cross-entropy. With several labels per image, where positives alone are
    weighted, it is the mean over images and labels.
    """
    config = resolve_loss(config, facts)
    if facts.task == "regression":
        return _of_numbers(config.name, facts)
    weights = class_weights(config.class_weights, facts)
    gamma, smoothing = config.gamma, config.label_smoothing
    if facts.task == "multilabel":
        return _of_labels(weights, gamma=gamma, smoothing=smoothing)

    def of_classes(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        if facts.task == "binary":
            scores = two_columns(scores)
        weight = _on(weights, scores)
        if gamma is None:
            return F.cross_entropy(scores, targets, weight=weight, label_smoothing=smoothing)
        return focal(scores, targets, gamma=gamma, weight=weight)

    return of_classes


def build_terms(config: LossConfig, facts: DataFacts) -> Terms:
    """What `build_loss` is the mean of: the sum of its terms by the sum of their weights."""
    config = resolve_loss(config, facts)
    if facts.task == "regression":
        of_numbers = _of_numbers(config.name, facts, reduction="none")
        return Terms(lambda scores, targets: of_numbers(scores, targets).mean(dim=1))
    weights = class_weights(config.class_weights, facts)
    gamma, smoothing = config.gamma, config.label_smoothing
    if facts.task == "multilabel":
        of_labels = _of_labels(weights, gamma=gamma, smoothing=smoothing, reduction="none")
        return Terms(lambda scores, targets: of_labels(scores, targets).mean(dim=1))

    def of_classes(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        if facts.task == "binary":
            scores = two_columns(scores)
        weight = _on(weights, scores)
        if gamma is None:
            return F.cross_entropy(scores, targets, weight=weight, label_smoothing=smoothing, reduction="none")
        each = focal_terms(scores, targets, gamma=gamma)
        return each if weight is None else weight[targets] * each

    def weight_of(targets: torch.Tensor) -> torch.Tensor:
        assert weights is not None
        return weights.to(targets.device)[targets]

    return Terms(of_classes, None if weights is None else weight_of)


def build_weigh(config: LossConfig, facts: DataFacts) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What the mean of the loss over some targets divides by: the sum of their weights; None: their number."""
    weights = class_weights(config.class_weights, facts) if facts.task in ("multiclass", "binary") else None
    return None if weights is None else lambda targets: weights.to(targets.device)[targets].sum()


def two_columns(scores: torch.Tensor) -> torch.Tensor:
    """Scores (n, 1) of the positive class -> (n, 2): their softmax is (1 - sigmoid, sigmoid).

    So the binary cross-entropy is the cross-entropy of these.
    """
    return torch.cat([torch.zeros_like(scores), scores], dim=1)


def focal(
    scores: torch.Tensor, targets: torch.Tensor, *, gamma: float, weight: torch.Tensor | None
) -> torch.Tensor:
    """-alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5), of (n, classes) scores and (n,) classes.

    `weight` (classes,) is alpha; the mean is over its sum in the batch.
    """
    each = focal_terms(scores, targets, gamma=gamma)
    if weight is None:
        return each.mean()
    alpha = weight[targets]
    return (alpha * each).sum() / alpha.sum()


def focal_terms(scores: torch.Tensor, targets: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """(n,) the focal loss of each example, without alpha."""
    own = scores.log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    return -_power(-torch.expm1(own), gamma) * own


def _of_labels(
    weights: torch.Tensor | None, *, gamma: float | None, smoothing: float, reduction: str = "mean"
) -> Loss:
    def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smooth = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(
            scores.float(), smooth, pos_weight=_on(weights, scores), reduction=reduction
        )

    def focal_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each label by itself; the weight of its positives is alpha / (1 - alpha)."""
        assert gamma is not None
        scores, alpha = scores.float(), _on(weights, scores)
        there = -targets * _power(torch.sigmoid(-scores), gamma) * F.logsigmoid(scores)
        absent = -(1 - targets) * _power(torch.sigmoid(scores), gamma) * F.logsigmoid(-scores)
        both = (there if alpha is None else alpha * there) + absent
        return both.mean() if reduction == "mean" else both

    return cross_entropy if gamma is None else focal_loss


def _power(base: torch.Tensor, gamma: float) -> torch.Tensor:
    """base^gamma; kept off 0, where its slope is infinite for gamma below 1."""
    return base.clamp(min=_TINY) ** gamma


def _of_numbers(name: str, facts: DataFacts, *, reduction: str = "mean") -> Loss:
    """Of the differences in standard deviations of the training targets: several numbers count alike."""
    std = torch.tensor(facts.target_std)
    loss = _OF_NUMBERS[name]

    def standardised(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        differences = (scores.float() - targets) / std.to(scores.device)
        return loss(differences, torch.zeros_like(differences), reduction=reduction)

    return standardised


def class_weights(choice: Any, facts: DataFacts) -> torch.Tensor | None:
    """Weights per class, in the order of the classes.

    `balanced`: examples / (classes x count), as scikit-learn has it; with several labels per image the
    weight of a class's positives is negatives / positives. Raises ConfigError for a list of another length.
    """
    if choice == "none":
        return None
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        if len(choice) != facts.num_classes:
            raise ConfigError(f"loss.class_weights: has {len(choice)} numbers for {facts.num_classes} classes.")
        return torch.tensor([float(weight) for weight in choice])
    counts = torch.tensor(facts.class_counts["train"], dtype=torch.float64)
    size = facts.sizes["train"]
    balanced = (size - counts) / counts if facts.task == "multilabel" else size / (facts.num_classes * counts)
    return balanced.float()


def _on(weights: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor | None:
    return None if weights is None else weights.to(scores.device)
