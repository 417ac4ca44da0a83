"""Lightning's loop over the batches of an epoch, without what no run of ours needs in a step."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from headstart.training.step import StepModule

KNOWN = ("2.6.",)
"""Releases of Lightning whose loop this one was written against; others run their own, with the same results."""
_NEVER = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


def shorten(trainer: pl.Trainer) -> None:
    """Put the short loop into a trainer, where Lightning's release is known and nothing needs the long one.

    Gradients that are scaled (float16) and callbacks inside a step do: there Lightning's own loop stays.
    """
    if (
        not version("pytorch-lightning").startswith(KNOWN)
        or getattr(trainer.precision_plugin, "scaler", None) is not None
    ):
        return
    if any(_overrides(callback, hook) for callback in _callbacks(trainer) for hook in _NEVER):
        return
    before = trainer.fit_loop.epoch_loop
    trainer.fit_loop.epoch_loop = ShortLoop(trainer, min_steps=before.min_steps, max_steps=before.max_steps)


class ShortLoop(_TrainingEpochLoop):
    """A step as in a plain loop: batch to the device, loss, gradients, update, next rates, and who wants to know.

    Lightning's own goes through its profiler, hooks of every callback, closures and signatures some hundred times
    in a step; and where several processes train, it asks all of them in each step whether one got a SIGTERM, which
    waits for the GPU. What counts steps, validates, saves and resumes is Lightning's.
    """

    def advance(self, data_fetcher: Any) -> None:
        """One batch of training; the first one after a resume is Lightning's."""
        if self.restarting:
            super().advance(data_fetcher)
            return
        trainer = self.trainer
        module, strategy = trainer.lightning_module, trainer.strategy
        assert isinstance(module, StepModule)
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        self.batch_progress.is_last_batch = data_fetcher.done
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        batch = trainer.datamodule.on_after_batch_transfer(batch, 0)
        self.batch_progress.increment_ready()
        for callback in _callbacks(trainer):
            if _overrides(callback, "on_train_batch_start"):
                callback.on_train_batch_start(trainer, module, batch, index)
        module.on_train_batch_start(batch, index)
        self.batch_progress.increment_started()

        counted = self.automatic_optimization.optim_progress.optimizer.step
        counted.increment_ready()
        optimizer = trainer.optimizers[0]
        module.backward(strategy.training_step(batch, index))
        module.on_before_optimizer_step(optimizer)
        if trainer.gradient_clip_val is not None:
            module.clip_gradients(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        counted.increment_completed()
        self.batch_progress.increment_processed()

        self.scheduler_progress.increment_ready()
        trainer.lr_scheduler_configs[0].scheduler.step()
        self.scheduler_progress.increment_completed()
        for callback in _callbacks(trainer):
            if _overrides(callback, "on_train_batch_end"):
                callback.on_train_batch_end(trainer, module, {"loss": module.step_loss}, batch, index)
        module.on_train_batch_end({"loss": module.step_loss}, batch, index)
        self.batch_progress.increment_completed()


def _callbacks(trainer: pl.Trainer) -> list[Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]


def _overrides(callback: Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(Callback, hook)
