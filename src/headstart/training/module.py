"""The Lightning module: one step of training, and scores of a whole split."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from headstart.config.schema.optimizer import OptimizerConfig
from headstart.data.datamodule import Batch
from headstart.errors import RunFailed
from headstart.facts import LayerMap, Task
from headstart.models.classifier import Classifier
from headstart.seeds import derive
from headstart.strategies.plan import Phase, TrainingPlan
from headstart.training.freezing import frozen_modules, set_trainable
from headstart.training.losses import Loss
from headstart.training.metrics import evaluate
from headstart.training.optimizers import build_optimizer, build_scheduler, rates_of
from headstart.training.schedules import Factor

_LOOK_EVERY = 50
"""Steps between two looks at the loss on a GPU, each of which waits for it."""


class TransferModule(pl.LightningModule):
    """Trains a classifier as its plan says."""

    def __init__(
        self,
        model: Classifier,
        *,
        layers: LayerMap,
        plan: TrainingPlan,
        loss: Loss,
        optimizer: OptimizerConfig,
        factor: Factor,
        task: Task,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.layers = layers
        self.plan = plan
        self.loss = loss
        self.optimizer_config = optimizer
        self.factor = factor
        self.task: Task = task
        self.seed = seed
        self.scores = torch.empty(0)
        self.targets = torch.empty(0)
        self.values: dict[str, float] = {}
        self._phase: Phase | None = None
        self._frozen: list[torch.nn.Module] = []
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._loss_sum: torch.Tensor | float = 0.0
        self._loss_count = 0
        self._first_bad: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, channels, height, width) -> class scores (n, classes)."""
        scores: torch.Tensor = self.model(images)
        return scores

    def train(self, mode: bool = True) -> TransferModule:
        """Set the mode; what is frozen stays in evaluation mode whatever asks for another."""
        super().train(mode)
        if mode:
            for module in self._frozen:
                module.training = False
        return self

    def enter(self, phase: Phase) -> None:
        """Freeze and unfreeze as `phase` says."""
        self._phase = phase
        set_trainable(self.model, self.layers, phase)
        self._frozen = frozen_modules(self.model, self.layers, phase)
        self.train(self.training)

    def configure_optimizers(self) -> Any:
        """Every parameter group is there from step 0."""
        optimizer = build_optimizer(self.optimizer_config, self.model, self.layers, self.plan)
        scheduler = build_scheduler(optimizer, self.plan, self.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Freeze as the step says, which after a resume need not be the first."""
        self.enter(self.plan.at(self.global_step))

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's sums; validation may have left another mode behind."""
        self.train()
        self._loss_sum, self._loss_count = 0.0, 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the step's phase; draws inside a step come from (seed, step) alone."""
        phase = self.plan.at(self.global_step)
        if phase is not self._phase:
            self.enter(phase)
        torch.manual_seed(derive(self.seed, "step", self.global_step))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss of a batch."""
        loss = self.loss(self(batch["image"]), batch["target"])
        value = loss.detach()
        self._loss_sum = self._loss_sum + value
        self._loss_count += 1
        self._watch(value)
        return loss

    def _watch(self, value: torch.Tensor) -> None:
        """Remember the first step without a finite loss, and stop there; a GPU is asked now and then only."""
        step = self.global_step
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.long, device=value.device)
        fresh = (self._first_bad < 0) & ~torch.isfinite(value)
        self._first_bad = torch.where(fresh, step, self._first_bad)
        if value.device.type == "cpu" or step % _LOOK_EVERY == 0:
            self.stop_if_diverged()

    def stop_if_diverged(self) -> None:
        """Raise RunFailed, with the step and the rate, where a loss was not finite."""
        bad = -1 if self._first_bad is None else int(self._first_bad)
        if bad >= 0:
            rate = self.optimizer_config.lr * self.factor(bad)
            raise RunFailed(
                f"the loss was not finite at step {bad}, learning rate {rate:.3g}; try a lower optimizer.lr, "
                "a warm-up or trainer.gradient_clip_val."
            )

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far; waits for the device."""
        return float(self._loss_sum) / max(1, self._loss_count)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate in use, per layer group that is in the optimiser."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return rates_of(optimizer)

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the last split."""
        self._outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep a batch's scores."""
        self._outputs.append((self(batch["image"]).float(), batch["target"]))

    def on_validation_epoch_end(self) -> None:
        """Metrics over the whole split; callbacks find them in Lightning's own place too."""
        self._score("val")
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
        self.values = evaluate(self.scores, self.targets, task=self.task, split=split)
