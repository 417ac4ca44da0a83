"""A step waits for nothing: what would ask a GPU for a value fails on a device that has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import RunTiny, tiny_config

from headstart.assembly import module_of
from headstart.preparation import prepare
from headstart.training.loss_watch import LOOK_EVERY, LossWatch


@pytest.mark.parametrize(
    "words",
    [
        ("data.mixup_alpha=0.3", "data.cutmix_alpha=0.5", "head.dropout=0.3"),
        ("strategy=auto_rgn", "loss.class_weights=balanced", "trainer.micro_batch_size=3"),
        ("strategy.normalization=stochnorm", "trainer.ema_decay=0.9"),
        (
            "trainer.grad_checkpointing=true",
            "trainer.channels_last=true",
            "strategy=gradual",
            "trainer.max_epochs=3",
        ),
    ],
    ids=["mixing", "auto_rgn in pieces", "stochnorm and averages", "checkpointing"],
)
def test_no_value_is_asked_for(words: tuple[str, ...]) -> None:
    """On PyTorch's meta device tensors have shapes and no values: float(), if and .cpu() of one raise."""
    module = module_of(prepare(tiny_config(*words, "optimizer.fused=false"))).to("meta").train()
    if module.rgn is not None:
        module.rgn._in_force = [1.0] * len(module.rgn.names)  # asked for once per epoch
    made = module.configure_optimizers()
    optimizer = made["optimizer"]

    class Trainer:
        global_rank, num_training_batches = 0, 100
        global_step, optimizers, precision_plugin = 0, [optimizer], None

    trainer = Trainer()
    module._trainer = trainer  # type: ignore[assignment]
    module._rgn_settled = True
    batch: Any = {
        "image": torch.empty(8, 3, 32, 32, device="meta"),
        "target": torch.empty(8, dtype=torch.long, device="meta"),
    }
    for step in range(3):
        trainer.global_step = step
        module.on_train_batch_start(batch, step)
        module.backward(module.training_step(batch, step))
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
        trainer.global_step = step + 1
        module.on_train_batch_end({}, batch, step)
    with pytest.raises((RuntimeError, NotImplementedError)):  # and asking is seen
        module.stop_if_diverged()


def test_losses_are_looked_at_together() -> None:
    """Means and the first that is not finite, however often somebody looks."""
    losses = [torch.tensor(float(i)) for i in range(7)]
    losses[4] = torch.tensor(float("nan"))
    seldom, often = LossWatch(), LossWatch()
    for watch in (seldom, often):
        for step, loss in enumerate(losses):
            watch._waiting.append((step, {"loss": loss, "l2": 2 * loss}))
            if watch is often:
                watch.look()
        watch.look()
        assert watch.first_bad == 4
        watch.begin_epoch()
        watch.add(7, {"loss": torch.tensor(3.0)})
        watch.add(8, {"loss": torch.tensor(5.0)})
        assert watch.means() == {"loss": 4.0}
        assert watch.first_bad == 4
    far = LossWatch()
    for step in range(LOOK_EVERY - 1):
        far.add(step, {"loss": torch.empty((), device="meta")})
    with pytest.raises((RuntimeError, NotImplementedError)):
        far.add(LOOK_EVERY - 1, {"loss": torch.empty((), device="meta")})


def test_nothing_piles_up_in_pytorch(run_tiny: RunTiny) -> None:
    """Seeding each step with torch.manual_seed would, where there is no GPU, keep a traceback of each."""
    queued = len(torch.cuda._queued_calls)
    run_tiny("trainer.max_steps=6", "trainer.max_epochs=null")
    assert len(torch.cuda._queued_calls) - queued <= 4
