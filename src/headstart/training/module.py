"""The Lightning module: one step of training, as the plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

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
from headstart.training.loss_watch import LossWatch
from headstart.training.losses import Loss
from headstart.training.mixup import Mixing
from headstart.training.normalization import Policies
from headstart.training.optimizers import build_optimizer, build_scheduler, rates_of
from headstart.training.relative_gradients import RelativeGradientNorms
from headstart.training.schedules import Factor
from headstart.training.scored import ScoredModule


class TransferModule(ScoredModule):
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
        super().__init__(task=task, refit=refit, threshold=threshold)
        self.model = model
        self.layers = layers
        self.plan = plan
        self.loss = loss
        self.optimizer_config = optimizer
        self.factor = factor
        self.seed = seed
        self.mixing = mixing or Mixing()
        self.penalties = penalties if penalties is not None else torch.nn.ModuleDict()
        self.rgn: RelativeGradientNorms | None = None
        if plan.adapts_rates:
            self.rgn = RelativeGradientNorms(self._adapted_names())
        self._phase: Phase | None = None
        self._frozen: list[torch.nn.Module] = []
        self._policies = Policies()
        self._losses = LossWatch()
        self._rates: dict[str, float] = {}
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
        self._losses.begin_epoch()

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
        self._losses.add(self.global_step, parts)
        if not self.global_rank:  # what is wrong in one process is wrong in the first a step later
            self._stop_at_first_bad()
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

    def stop_if_diverged(self) -> None:
        """Raise RunFailed, with the step and the rate, where a loss was not finite; waits for the device."""
        self._losses.look()
        self._stop_at_first_bad()

    def _stop_at_first_bad(self) -> None:
        bad = self._losses.first_bad
        if bad is not None:
            rate = self.optimizer_config.lr * self.factor(bad)
            raise RunFailed(
                f"the loss was not finite at step {bad}, learning rate {rate:.3g}; try a lower optimizer.lr, "
                "a warm-up or trainer.gradient_clip_val."
            )

    @property
    def mean_losses(self) -> dict[str, float]:
        """Means over the epoch so far: `loss`, penalties included, and each penalty; waits for the device."""
        return self._losses.means()

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far; waits for the device."""
        return self.mean_losses.get("loss", 0.0)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of the last step, per layer group that is in the optimiser."""
        return self._rates

    def on_validation_epoch_start(self) -> None:
        """Processes that train together agree on running statistics."""
        super().on_validation_epoch_start()
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)
