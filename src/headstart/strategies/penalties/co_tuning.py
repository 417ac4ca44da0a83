"""Co-Tuning: the source's classifier goes on learning, from how its classes relate to the target's."""

from __future__ import annotations

import torch
from torch import nn

from headstart.config.schema.regularizer import CoTuningConfig
from headstart.errors import ConfigError
from headstart.strategies.penalties.base import Batches, Parts, Penalty, Step


class CoTuning(Penalty):
    """strength * CE(P(source class | target class), source head), mean over the batch.

    You et al. 2020. P(y_s | y_t) is the mean, over the training images of class y_t, of what the
    pretrained classifier says of them (the direct approach); it is learned before the
    first step and is part of the checkpoint.
    """

    needs_images = False
    relation: torch.Tensor

    def __init__(self, config: CoTuningConfig, parts: Parts) -> None:
        super().__init__()
        if parts.facts.task != "multiclass":
            raise ConfigError(
                f"regularizer=co_tuning: is for one class per image; this task is {parts.facts.task}."
            )
        self.strength = config.strength
        self.head = parts.source_head()
        # as it started: what a strategy adds at random is no part of what the source's classifier knows
        self._reference = (parts.reference(),)
        sources = next(self.head.parameters()).shape[0]
        self.register_buffer("relation", torch.zeros(parts.facts.num_classes, sources))

    @torch.no_grad()
    def begin(self, batches: Batches) -> None:
        """Learn how source classes relate to target classes, from the training split."""
        (reference,) = self._reference
        backbone = reference.to(self.relation).eval()
        sums = torch.zeros_like(self.relation, dtype=torch.float64)
        counts = torch.zeros(len(self.relation), dtype=torch.float64, device=self.relation.device)
        for images, targets in batches():
            said = self.head(backbone(images)).double().softmax(dim=1)
            sums.index_add_(0, targets, said)
            counts.index_add_(0, targets, torch.ones_like(targets, dtype=torch.float64))
        self.relation.copy_(sums / counts[:, None])

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        wanted = self.relation[step.targets]
        return self.strength * nn.functional.cross_entropy(self.head(step.features).to(wanted), wanted)
