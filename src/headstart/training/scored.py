"""A Lightning module that scores whole splits: validation and test."""

from __future__ import annotations

from typing import Literal, cast

import pytorch_lightning as pl
import torch

from headstart.data.dataset import Batch
from headstart.errors import RunFailed
from headstart.facts import Task
from headstart.training.metrics import DEFAULT_THRESHOLD, THRESHOLD, best_threshold, evaluate


class ScoredModule(pl.LightningModule):
    """Keeps the scores of a split, batch by batch, and turns them into metrics at its end."""

    def __init__(self, *, task: Task, refit: bool, threshold: float | Literal["validation"] | None) -> None:
        super().__init__()
        self.task: Task = task
        self.validation = "fit" if refit else "val"
        """How the metrics of the validation images are named: those that are trained on are no validation."""
        self.chooses_threshold = threshold == "validation"
        self.threshold = DEFAULT_THRESHOLD if threshold in (None, "validation") else float(cast(float, threshold))
        """The probability above which a label counts as predicted; of the last validation where that chooses it."""
        self.scores = torch.empty(0)
        self.targets = torch.empty(0)
        self.values: dict[str, float] = {}
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the last split."""
        self._outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's scores."""
        self._outputs.append((self(batch["image"]).float(), batch["target"]))

    def on_validation_epoch_end(self) -> None:
        """Metrics over the whole split; callbacks find them in Lightning's own place too."""
        self._score(self.validation)
        self.log_dict(self.values)

    def on_test_epoch_start(self) -> None:
        """Forget the scores of the last split."""
        self._outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's scores."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Metrics over the whole split."""
        self._score("test")

    def _score(self, split: str) -> None:
        self.scores = torch.cat([scores for scores, _ in self._outputs]).cpu()
        self.targets = torch.cat([targets for _, targets in self._outputs]).cpu()
        self._outputs = []
        if not bool(torch.isfinite(self.scores).all()):
            raise RunFailed(f"the scores of the {split} split are not finite at step {self.global_step}.")
        chosen: dict[str, float] = {}
        if self.chooses_threshold and split == "val":
            self.threshold = best_threshold(self.scores, self.targets)
            chosen[THRESHOLD] = self.threshold
        values = evaluate(self.scores, self.targets, task=self.task, split=split, threshold=self.threshold)
        self.values = values | chosen
