"""What is minimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from headstart.config.schema.trainer import LossConfig
from headstart.errors import ConfigError
from headstart.facts import DataFacts

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores (n, classes) and targets -> the mean loss, a scalar."""


def resolve_loss(config: LossConfig, facts: DataFacts) -> str:
    """The loss that `auto` stands for; raises ConfigError where the one named does not fit the labels."""
    fitting = {"multiclass": "cross_entropy", "multilabel": "binary_cross_entropy"}[facts.task]
    if config.name not in ("auto", fitting):
        several = "several labels" if facts.task == "multilabel" else "one label"
        raise ConfigError(f"loss.name={config.name}: the images have {several} each; use {fitting}.")
    return fitting


def build_loss(config: LossConfig, facts: DataFacts) -> Loss:
    """Cross-entropy, or binary cross-entropy over the classes."""
    weights = class_weights(config.class_weights, facts)
    smoothing = config.label_smoothing
    if resolve_loss(config, facts) == "cross_entropy":
        return lambda scores, targets: F.cross_entropy(
            scores.float(), targets, weight=_on(weights, scores), label_smoothing=smoothing
        )

    def binary(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        smooth = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(scores.float(), smooth, pos_weight=_on(weights, scores))

    return binary


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
    balanced = size / (facts.num_classes * counts) if facts.task == "multiclass" else (size - counts) / counts
    return balanced.float()


def _on(weights: torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor | None:
    return None if weights is None else weights.to(scores.device)
