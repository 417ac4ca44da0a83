"""The Lightning module: what trains in a step, and how fast, as the plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch

from headstart.config.schema.optimizer import OptimizerConfig
from headstart.data.dataset import Batch
from headstart.errors import RunFailed
from headstart.facts import LayerMap, Task
from headstart.models.classifier import Classifier
from headstart.strategies.plan import Phase, TrainingPlan
from headstart.training.averaging import WeightAverage
from headstart.training.freezing import frozen_modules, set_ever_trainable, set_trainable
from headstart.training.losses import Loss
from headstart.training.micro_batches import Weigh
from headstart.training.mixup import Mixing
from headstart.training.normalization import Policies
from headstart.training.optimizers import build_optimizer, build_scheduler, rates_of
from headstart.training.ranks import average, moving_statistics, require_equal
from headstart.training.relative_gradients import RelativeGradientNorms
from headstart.training.schedules import Factor
from headstart.training.shortcut import epochs_without_images
from headstart.training.step import Computation, StepModule


class TransferModule(StepModule):
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
        computation: Computation | None = None,
        weigh: Weigh | None = None,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__(
            model,
            loss=loss,
            task=task,
            seed=seed,
            penalties=penalties,
            mixing=mixing,
            refit=refit,
            threshold=threshold,
            computation=computation,
            weigh=weigh,
        )
        self.layers = layers
        self.plan = plan
        self.optimizer_config = optimizer
        self.factor = factor
        self.average = WeightAverage(model, layers, plan, decay=ema_decay) if ema_decay is not None else None
        self.rgn: RelativeGradientNorms | None = None
        if plan.adapts_rates:
            self.rgn = RelativeGradientNorms(self._adapted_names())
        self._phase: Phase | None = None
        self._frozen: list[torch.nn.Module] = []
        self._policies = Policies()
        self._stepped: tuple[torch.optim.Optimizer, list[float]] | None = None
        self._rgn_settled = False
        self.begins_at = 0
        """The global step that training goes on from."""
        self.register_buffer("penalties_begun", torch.zeros((), dtype=torch.bool))
        set_ever_trainable(model, layers, plan)

    def train(self, mode: bool = True) -> TransferModule:
        """Set the mode; what is frozen stays in evaluation mode whatever asks for another."""
        super().train(mode)
        if mode:
            for module in self._frozen:
                module.training = False
        return self

    def enter(self, phase: Phase) -> None:
        """Freeze and unfreeze as `phase` says; what is frozen holds no optimiser state."""
        if self.ddp is not None:
            self._agree()
        if self.average is not None:
            self.average.enter(self.global_step, self.model)
        if self.compiled is not None and self._phase is not None:
            self.compiled.begin_anew()
        self._phase = phase
        frozen = set_trainable(self.model, self.layers, phase)
        held = self._policies.apply(self.model, self.layers, phase, stochnorm_p=self.plan.stochnorm_p)
        self._frozen = [*frozen_modules(self.model, self.layers, phase), *held]
        self.train(self.training)
        optimizer = self.optimizer
        for parameter in frozen if optimizer else ():
            parameter.grad = None
            optimizer.state.pop(parameter, None)  # type: ignore[union-attr]
        if self.ddp is not None:
            self.ddp.begin_phase()

    def _agree(self) -> None:
        """Have all processes hold the same: running statistics are averaged, all else must be equal already."""
        average(moving_statistics(self.model, frozen=self._frozen))
        held = {**self.model.state_dict(), **dict(self.penalties.named_parameters())}
        if self.average is not None:
            average(self.average.statistics_in(self.plan.at(max(0, self.global_step - 1))))
            held |= dict(self.average.named_buffers())
        require_equal(held, step=self.global_step)

    def configure_optimizers(self) -> Any:
        """Every parameter group is there from step 0."""
        extra = [(name, penalty) for name, penalty in self.penalties.items() if list(penalty.parameters())]
        optimizer = build_optimizer(
            self.optimizer_config,
            self.model,
            self.layers,
            self.plan,
            decay=not any(penalty.replaces_weight_decay for penalty in self.each_penalty().values()),
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
            for penalty in self.each_penalty().values():
                penalty.begin(self._training_split)
        self.penalties_begun.fill_(True)
        self._begin_shortcut()

    def _begin_shortcut(self) -> None:
        """Have what stands in for frozen layers; before the loaders, whose workers know epochs without images."""
        if self.shortcut is not None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.shortcut.begin(self.model, data, step=self.begins_at)
            total, per_epoch = int(self.trainer.max_steps), data.steps_per_epoch
            phases = self.shortcut.phases
            data.imageless |= epochs_without_images(self.plan, phases, total_steps=total, steps_per_epoch=per_epoch)

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
        self.losses.begin_epoch()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the step's phase; draws inside a step come from (seed, step) alone."""
        phase = self.plan.at(self.global_step)
        if phase is not self._phase:
            self.enter(phase)
        self.stand_in(batch, "train", phase)
        self.begin_step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the rates of this step: what comes after it moves them on to the next one's."""
        if self.rgn is not None:
            self._adapt(self.rgn, optimizer)
        self._stepped = optimizer, [group["lr"] for group in optimizer.param_groups]

    def clip_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten the gradient of all that the optimiser has to a norm of `gradient_clip_val`.

        Lightning refuses fused optimisers under any mixed precision; scaled gradients (float16) alone are a reason.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None or gradient_clip_val is None:
            super().clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(listed, gradient_clip_val)

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

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Take the step into the average."""
        if self.average is not None:
            self.average.update(self.global_step - 1)

    def on_train_end(self) -> None:
        """Processes that trained together end with the same; what comes now needs images."""
        self.trainer.datamodule.imageless.clear()  # type: ignore[attr-defined]
        if self.ddp is not None:
            self._agree()

    def refuse_divergence(self, step: int | None) -> None:
        """Raise RunFailed, with the rate, where the loss of `step` was not finite; None says that all were."""
        if step is not None:
            rate = self.optimizer_config.lr * self.factor(step)
            raise RunFailed(
                f"the loss was not finite at step {step}, learning rate {rate:.3g}; try a lower optimizer.lr, "
                "a warm-up or trainer.gradient_clip_val."
            )

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of the last step, per layer group that is in the optimiser."""
        return rates_of(*self._stepped) if self._stepped else {}

    def on_validation_start(self) -> None:
        """Validate, and keep, what all processes agree on: the average of the weights, where that is asked for."""
        if self.ddp is not None:
            self._agree()
        if self.average is not None:
            self.average.swap(self.model)

    def on_validation_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take what is there of images that were not loaded."""
        self.stand_in(batch, "val", self._phase)

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Go through the whole model."""
        self.stand_in(batch, "test", None)

    def on_validation_end(self) -> None:
        """Go on with the weights themselves."""
        if self.average is not None:
            self.average.swap(self.model)
