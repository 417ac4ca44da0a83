"""What a regulariser is: a penalty on top of the loss, with what it is built from and what it sees of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from headstart.facts import DataFacts, LayerMap
from headstart.models.classifier import Classifier
from headstart.strategies.plan import TrainingPlan


@dataclass(frozen=True)
class Parts:
    """What penalties are built from, before the first step."""

    model: Classifier
    layers: LayerMap
    plan: TrainingPlan
    facts: DataFacts
    reference: Callable[[], nn.Module]
    """Makes a copy of the backbone as it started, with nothing added: frozen, in evaluation mode."""
    source_head: Callable[[], nn.Module]
    """Makes the classifier that the backbone was pretrained with; raises WeightsError where there is none."""
    backbone: str
    batch_size: int
    """Images that one process sees in a step."""
    seed: int
    first_k: int | None = None
    """How many layer groups came from the weights; None where all did."""

    def came_from_the_weights(self, group: str) -> bool:
        """Whether a layer group of the backbone is one of those."""
        names = [found.name for found in self.layers.backbone]
        return self.first_k is None or names.index(group) < self.first_k


@dataclass(frozen=True)
class Step:
    """One training step: images (n, channels, height, width), their targets, features (n, d) and scores."""

    images: torch.Tensor
    targets: torch.Tensor
    features: torch.Tensor
    scores: torch.Tensor


Batches = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
"""Passes over the training split in order, without augmentation: normalised images and targets, on the device."""


class Penalty(nn.Module):
    """Added to the loss. Strengths do not depend on the batch size: what sums over images is divided by n.

    Buffers that are learned (relations between classes, attention weights) are part of the checkpoint; copies
    of the start are not, because the start can be had again.
    """

    replaces_weight_decay = False
    """Whether it takes the place of the optimiser's weight decay, on all but what a strategy added."""

    def begin(self, batches: Batches) -> None:
        """Learn what must be known before the first step; not called again on a resume."""

    def forget(self) -> None:
        """Let go of what was kept of a step's activations."""

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        raise NotImplementedError
