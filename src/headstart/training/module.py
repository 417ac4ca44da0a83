"""The Lightning module: one step of training, and scores of a whole split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch

from headstart.config.schema.optimizer import OptimizerConfig
from headstart.data.dataset import Batch
from headstart.errors import RunFailed
from headstart.facts import LayerMap, Task
from headstart.models.classifier import Classifier
from headstart.seeds import derive
from headstart.strategies.penalties import Penalty, Step
from headstart.strategies.plan import Phase, TrainingPlan
from headstart.training.freezing import frozen_modules, set_ever_trainable, set_trainable
from headstart.training.losses import Loss
from headstart.training.metrics import DEFAULT_THRESHOLD, THRESHOLD, best_threshold, evaluate
from headstart.training.mixup import Mixing
from headstart.training.normalization import Policies
from headstart.training.optimizers import build_optimizer, build_scheduler, rates_of
from headstart.training.relative_gradients import RelativeGradientNorms
from headstart.training.schedules import Factor

_LOOK_EVERY = 50
"""Steps between two looks at the loss on a GPU, each of which waits for it."""


class TransferModule(pl.LightningModule):
    """Trains a classifier as its plan says."""

    penalties_begun: torch.Tensor

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
        penalties: torch.nn.ModuleDict | None = None,
        mixing: Mixing | None = None,
        refit: bool = False,
        threshold: float | Literal["validation"] | None = None,
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
        self.mixing = mixing or Mixing()
        self.validation = "fit" if refit else "val"
        """How the metrics of the validation images are named: those that are trained on are no validation."""
        self.chooses_threshold = threshold == "validation"
        self.threshold = DEFAULT_THRESHOLD if threshold in (None, "validation") else float(cast(float, threshold))
        """The probability above which a label counts as predicted; of the last validation where that chooses it."""
        self.penalties = penalties if penalties is not None else torch.nn.ModuleDict()
        self.rgn: RelativeGradientNorms | None = None
        if plan.adapts_rates:
            self.rgn = RelativeGradientNorms(self._adapted_names())
        self.scores = torch.empty(0)
        self.targets = torch.empty(0)
        self.values: dict[str, float] = {}
        self._phase: Phase | None = None
        self._frozen: list[torch.nn.Module] = []
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._policies = Policies()
        self._sums: dict[str, torch.Tensor] = {}
        self._loss_count = 0
        self._rates: dict[str, float] = {}
        self._first_bad: torch.Tensor | None = None
        self._rgn_settled = False
        self.register_buffer("penalties_begun", torch.zeros((), dtype=torch.bool))
        set_ever_trainable(model, layers, plan)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, channels, height, width) -> class scores or numbers (n, outputs)."""
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
        """Freeze and unfreeze as `phase` says; what is frozen holds no optimiser state."""
        self._phase = phase
        frozen = set_trainable(self.model, self.layers, phase)
        held = self._policies.apply(self.model, self.layers, phase, stochnorm_p=self.plan.stochnorm_p)
        self._frozen = [*frozen_modules(self.model, self.layers, phase), *held]
        self.train(self.training)
        optimizer = self._optimizer
        for parameter in frozen if optimizer else ():
            parameter.grad = None
            optimizer.state.pop(parameter, None)  # type: ignore[union-attr]

    @property
    def _optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser, where a trainer has made it."""
        if self._trainer is None or not self.trainer.optimizers:
            return None
        return self.trainer.optimizers[0]

    def configure_optimizers(self) -> Any:
        """Every parameter group is there from step 0."""
        extra = [(name, penalty) for name, penalty in self.penalties.items() if list(penalty.parameters())]
        optimizer = build_optimizer(
            self.optimizer_config,
            self.model,
            self.layers,
            self.plan,
            decay=not any(penalty.replaces_weight_decay for penalty in self._each_penalty().values()),
            extra=extra,
        )
        scheduler = build_scheduler(
            optimizer,
            self.plan,
            self.factor,
            adapted=self.rgn.of if self.rgn is not None else lambda name: 1.0,
            extra=[name for name, _ in extra],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _each_penalty(self) -> dict[str, Penalty]:
        return {name: cast(Penalty, penalty) for name, penalty in self.penalties.items()}

    def _adapted_names(self) -> list[str]:
        return [
            f"{group.name}:{p.name}"
            for group in self.layers.groups
            for p in group.parameters
            if self.plan.ever_trains(group.name, p.kind)
        ]

    def on_fit_start(self) -> None:
        """Let penalties learn what they must know, once; a resumed run has it in its checkpoint."""
        if not bool(self.penalties_begun):
            for penalty in self._each_penalty().values():
                penalty.begin(self._training_split)
        self.penalties_begun.fill_(True)

    def _training_split(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The training split in order, without augmentation, on the device."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        for batch in data.plain_train_dataloader():
            moved = data.on_after_batch_transfer(self.transfer_batch_to_device(batch, self.device, 0), 0)
            yield moved["image"], moved["target"]

    def on_train_start(self) -> None:
        """Freeze as the step says, which after a resume need not be the first."""
        self._rgn_settled = self.rgn is not None and bool(self.rgn.settled)
        self.enter(self.plan.at(self.global_step))

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's sums; validation may have left another mode behind."""
        self.train()
        self._sums, self._loss_count = {}, 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the step's phase; draws inside a step come from (seed, step) alone."""
        phase = self.plan.at(self.global_step)
        if phase is not self._phase:
            self.enter(phase)
        rank = (self.global_rank,) if self.global_rank else ()
        torch.manual_seed(derive(self.seed, "step", self.global_step, *rank))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss of a batch, with its penalties."""
        images, targets = batch["image"], batch["target"]
        share, partners = 1.0, targets
        if self.mixing.is_on:
            mixed = self.mixing(images)
            images, share, partners = mixed.images, mixed.share, targets[mixed.partners]
        features = self.model.backbone(images)
        scores = self.model.head(features)
        loss = self.loss(scores, targets)
        if share < 1:
            loss = share * loss + (1 - share) * self.loss(scores, partners)
        parts = {"loss": loss}
        for name, penalty in self._each_penalty().items():
            parts[name] = penalty(Step(images, targets, features, scores))
            loss = loss + parts[name]
        parts["loss"] = loss
        for name, part in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + part.detach()
        self._loss_count += 1
        self._watch(loss.detach())
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the rates of this step: what comes after it moves them on to the next one's."""
        if self.rgn is not None:
            self._adapt(self.rgn, optimizer)
        self._rates = rates_of(optimizer)

    def _adapt(self, rgn: RelativeGradientNorms, optimizer: torch.optim.Optimizer) -> None:
        """Look at the gradients that rates follow; they settle with the first step and with each epoch."""
        rgn.look([group["params"][0] for group in optimizer.param_groups if ":" in group["name"]])
        first, ends = not self._rgn_settled, (self.global_step + 1) % self.trainer.num_training_batches == 0
        if first or ends:
            rgn.settle(forget=ends)
            self._rgn_settled = bool(rgn.settled)
        if first and self._rgn_settled:
            for group in optimizer.param_groups:
                group["lr"] = group["lr"] * rgn.of(group["name"])

    def _watch(self, value: torch.Tensor) -> None:
        """Remember the first step without a finite loss, and stop there; a GPU is asked now and then only."""
        step = self.global_step
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.long, device=value.device)
        fresh = (self._first_bad < 0) & ~torch.isfinite(value)
        self._first_bad = torch.where(fresh, step, self._first_bad)
        if self.global_rank:  # what is wrong in one process is wrong in the first a step later
            return
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
    def mean_losses(self) -> dict[str, float]:
        """Means over the epoch so far: `loss`, penalties included, and each penalty; waits for the device."""
        return {name: float(value) / max(1, self._loss_count) for name, value in self._sums.items()}

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far; waits for the device."""
        return self.mean_losses.get("loss", 0.0)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of the last step, per layer group that is in the optimiser."""
        return self._rates

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the last split; processes that train together agree on running statistics."""
        self._outputs = []
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

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
