"""One training step: a batch through the model, its loss and its gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from headstart.data.dataset import Batch
from headstart.errors import RunFailed
from headstart.facts import Task
from headstart.models.classifier import Classifier
from headstart.seeds import derive
from headstart.strategies.penalties import Penalty, Step
from headstart.strategies.plan import Phase
from headstart.training.checkpointing import Recomputing
from headstart.training.compiling import Compiled
from headstart.training.loss_watch import LossWatch
from headstart.training.losses import Loss
from headstart.training.micro_batches import Shares, Weigh, pieces, sizes_of
from headstart.training.mixup import Mixing
from headstart.training.ranks import PhasedDDP
from headstart.training.scored import ScoredModule
from headstart.training.shortcut import Rest, Shortcut


@dataclass(frozen=True)
class Computation:
    """How a step is computed: what it takes in time and memory, and the last bits of its result."""

    batch_size: int = 0
    """Images of a whole batch in this process; 0 where it does not matter."""
    micro_batch_size: int | None = None
    channels_last: bool = False
    compile: str = "none"
    checkpointing: bool = False

    def sizes(self) -> frozenset[int]:
        """How many images go through the model at once in most steps."""
        return sizes_of(self.batch_size, most=self.micro_batch_size)


class StepModule(ScoredModule):
    """Computes the loss of a batch and adds up its gradients; draws come from (seed, step, piece) alone."""

    def __init__(
        self,
        model: Classifier,
        *,
        loss: Loss,
        task: Task,
        seed: int,
        penalties: torch.nn.ModuleDict | None = None,
        mixing: Mixing | None = None,
        refit: bool = False,
        threshold: float | Literal["validation"] | None = None,
        computation: Computation | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        """`weigh` is what the mean of the loss divides by, where that is not the number of images."""
        super().__init__(task=task, refit=refit, threshold=threshold)
        self.model = model
        self.loss = loss
        self.seed = seed
        self.mixing = mixing or Mixing()
        self.penalties = penalties if penalties is not None else torch.nn.ModuleDict()
        self.computation, self.weigh = computation or Computation(), weigh
        self.losses = LossWatch()
        """Losses of the epoch's steps."""
        self.step_loss = torch.zeros(())
        """The loss of the last step, penalties included, where it was computed."""
        self.compiled: Compiled | None = None
        """The backbone's compiled forward pass, if there is one."""
        self.shortcut: Shortcut | None = None
        """What stands in for the frozen layers where batches come without images."""
        self._above: Rest | None = None
        """The layers above those, while it does."""
        self._recomputing: AbstractContextManager[None] = nullcontext()
        if self.computation.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.computation.compile != "none":
            sizes = self.computation.sizes()
            self.compiled = Compiled(model.backbone, mode=self.computation.compile, sizes=sizes)
        if self.computation.checkpointing:
            self._recomputing = Recomputing(model.backbone)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, channels, height, width) -> class scores or numbers (n, outputs)."""
        parts = pieces(len(images), most=self.computation.micro_batch_size)
        scores: list[torch.Tensor] = [self.model.head(self.features(images[rows])) for rows in parts]
        return scores[0] if len(scores) == 1 else torch.cat(scores)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, channels, height, width), or what stands in for them -> features (n, width)."""
        if self.computation.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        features: torch.Tensor = (self._above or self.compiled or self.model.backbone)(images)
        return features

    def stand_in(self, batch: Batch, split: str, phase: Phase | None) -> None:
        """Where a batch comes without images, put what the frozen layers of `phase` give in their place."""
        self._above = None
        if self.shortcut is not None and phase is not None and "image" not in batch:
            batch["image"] = self.shortcut.kept(phase, split, batch["index"])
            self._above = self.shortcut.rest(phase)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss of a batch, with its penalties; of its last piece, where it comes in several.

        The gradients of the pieces before it are there already.
        """
        images, targets = batch["image"], batch["target"]
        *first, last = pieces(len(images), most=self.computation.micro_batch_size)
        shares = None
        if first or (self.weigh is not None and self.world > 1):
            shares = Shares(targets, weigh=self.weigh, world=self.world)
        totals: dict[str, torch.Tensor] = {}
        for i, rows in enumerate(first):
            self._backward_now(self._piece(images[rows], targets[rows], rows, shares, totals))
            self._seed(i + 1)
        loss = self._piece(images[last], targets[last], last, shares, totals)
        self.step_loss = totals["loss"]
        self.losses.add(self.global_step, totals)
        if not self.global_rank:  # what is wrong in one process is wrong in the first a step later
            self.refuse_divergence(self.losses.first_bad)
        return loss

    def _piece(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        rows: slice,
        shares: Shares | None,
        totals: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """The part of a batch's loss that is of some rows; adds it, and that of each penalty, to `totals`."""
        own = self._losses_of(images, targets)
        if shares is not None:
            of_images, of_loss = shares.of_images(rows), shares.of_loss(rows)
            own = {name: part * (of_loss if name == "loss" else of_images) for name, part in own.items()}
        for name in self.penalties:
            own["loss"] = own["loss"] + own[name]
        for name, part in own.items():
            totals[name] = totals[name] + part.detach() if name in totals else part.detach()
        return own["loss"]

    def _losses_of(self, images: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The mean `loss` of some images, and each penalty."""
        share, partners = 1.0, targets
        if self.mixing.is_on:
            mixed = self.mixing(images)
            images, share, partners = mixed.images, mixed.share, targets[mixed.partners]
        features = self.features(images)
        scores = self.model.head(features)
        loss = self.loss(scores, targets)
        if share < 1:
            loss = share * loss + (1 - share) * self.loss(scores, partners)
        step = Step(images, targets, features, scores)
        return {"loss": loss, **{name: penalty(step) for name, penalty in self.each_penalty().items()}}

    def each_penalty(self) -> dict[str, Penalty]:
        """Penalties by name."""
        return {name: cast(Penalty, penalty) for name, penalty in self.penalties.items()}

    def _backward_now(self, loss: torch.Tensor) -> None:
        """The backward pass of a piece that is not the last, whose gradients no process sends to another yet."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None) if self._trainer is not None else None
        kind = loss.device.type
        mixed = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if mixed else nullcontext():
            self.backward(loss if scaler is None else scaler.scale(loss))

    def backward(self, loss: torch.Tensor, *arguments: Any, **more: Any) -> None:
        """Add up gradients."""
        with self._recomputing:
            loss.backward(*arguments, **more)
        if self.computation.checkpointing:  # what is computed again passes by them again
            for penalty in self.each_penalty().values():
                penalty.forget()

    def optimizer_zero_grad(self, *arguments: Any) -> None:
        """Nothing: gradients are dropped before a step, and those of a batch's first pieces are kept in it."""

    def begin_step(self) -> None:
        """Drop the gradients of the step before, and let draws come from this one."""
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        self._seed(0)

    def _seed(self, piece: int) -> None:
        """Let the draws inside a piece of a step come from (seed, step, piece) alone."""
        path = (*((self.global_rank,) if self.global_rank else ()), *(("piece", piece) if piece else ()))
        seed = derive(self.seed, "step", self.global_step, *path)
        # torch.manual_seed formats three tracebacks where there is no GPU: a millisecond in each step
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The optimiser, where a trainer has made it."""
        if self._trainer is None or not self.trainer.optimizers:
            return None
        return self.trainer.optimizers[0]

    @property
    def ddp(self) -> PhasedDDP | None:
        """What holds processes together that train together; None where one trains alone."""
        strategy = getattr(self._trainer, "strategy", None)
        return strategy if isinstance(strategy, PhasedDDP) else None

    @property
    def world(self) -> int:
        """How many processes train together."""
        return self.ddp.world_size if self.ddp is not None else 1

    def stop_if_diverged(self) -> None:
        """Raise RunFailed, with the step and the rate, where a loss was not finite; waits for the device."""
        self.losses.look()
        self.refuse_divergence(self.losses.first_bad)

    def refuse_divergence(self, step: int | None) -> None:
        """Raise RunFailed where the loss of `step` was not finite; None says that all were."""
        if step is not None:
            raise RunFailed(f"the loss was not finite at step {step}.")

    @property
    def mean_losses(self) -> dict[str, float]:
        """Means over the epoch so far: `loss`, penalties included, and each penalty; waits for the device."""
        return self.losses.means()

    @property
    def mean_loss(self) -> float:
        """Mean training loss of the epoch so far; waits for the device."""
        return self.mean_losses.get("loss", 0.0)
