"""The short loop: Lightning's own, step for step, with less around each."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.conftest import RunTiny, tiny_config
from tests.training.test_resume import COMMON, REFREEZING, assert_same, interrupted

from headstart.assembly import machine_of, module_of
from headstart.experiment import resume
from headstart.preparation import Prepared, prepare
from headstart.training import fit, loop
from headstart.training.loop import ShortLoop


@pytest.fixture
def lightnings_own(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Lets runs have Lightning's own loop, or the short one."""
    known = loop.KNOWN

    def choose(own: bool) -> None:
        monkeypatch.setattr(loop, "KNOWN", () if own else known)

    return choose


@pytest.mark.parametrize(
    "more",
    [
        ("strategy=gradual", "strategy.milestones=[1,3]", "trainer.gradient_clip_val=0.3", "trainer.ema_decay=0.9"),
        ("strategy=auto_rgn", "trainer.micro_batch_size=9", "logger=csv", "logger.every_n_steps=2"),
        pytest.param(
            (*REFREEZING, "trainer.precision=bf16-mixed", "optimizer=sgd", "schedule=one_cycle"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("trainer.max_steps=10", "trainer.max_epochs=null", "trainer.early_stopping_patience=1"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_has_the_bits_of_lightnings_own_loop(
    more: tuple[str, ...], run_tiny: RunTiny, lightnings_own: Callable[[bool], None]
) -> None:
    words = (*(word for word in COMMON if word.split("=")[0] not in {m.split("=")[0] for m in more}), *more)
    lightnings_own(True)
    expected = run_tiny(*words)
    lightnings_own(False)
    folder, record = run_tiny(*words)
    assert_same(folder, record, expected)
    assert (record.steps, record.epochs, record.stopped_by) == (
        expected[1].steps, expected[1].epochs, expected[1].stopped_by,
    )  # fmt: skip
    for name in ("steps.csv",):
        if (expected[0] / name).is_file():
            assert (folder / name).read_text() == (expected[0] / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_a_checkpoint_of_one_loop_is_resumed_by_the_other(
    own: bool, run_tiny: RunTiny, lightnings_own: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*COMMON, "strategy=gradual")
    unbroken = run_tiny(*words)
    lightnings_own(own)
    folder = interrupted(7, monkeypatch, *words)
    lightnings_own(not own)
    assert_same(folder, resume(folder), unbroken)


def test_time_runs_out_in_a_step(run_tiny: RunTiny) -> None:
    """Lightning's timer is asked after each step."""
    _, record = run_tiny("trainer.max_time=00:00:00:01", "trainer.max_epochs=100000", "data.batch_size=50")
    assert record.stopped_by == "max_time"
    assert 0 < record.steps < 2000


class _Nosy(pl.Callback):
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks on inside a step."""


def test_where_lightnings_own_loop_stays() -> None:
    def trainer(**options: Any) -> pl.Trainer:
        made = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=3, **options)
        loop.shorten(made)
        return made

    assert isinstance(trainer().fit_loop.epoch_loop, ShortLoop)
    assert trainer().fit_loop.epoch_loop.max_steps == 3
    assert not isinstance(trainer(callbacks=[_Nosy()]).fit_loop.epoch_loop, ShortLoop)


def test_what_a_step_costs_beside_the_model() -> None:
    """Calls of Python functions in a step, counted: at most a few hundred more than those of a plain loop."""

    def calls(run: Callable[[Prepared, int], object], steps: int) -> float:
        profile = cProfile.Profile()
        prepared = prepare(tiny_config("trainer.max_epochs=null", f"trainer.max_steps={steps}", *SMALL))
        profile.enable()
        run(prepared, steps)
        profile.disable()
        return pstats.Stats(profile).total_calls  # type: ignore[attr-defined]

    def each(run: Callable[[Prepared, int], object]) -> float:
        return (calls(run, 28) - calls(run, 8)) / 20  # what a run costs once is in both

    assert each(_ours) - each(_plain) < 500


SMALL = ("data.train_size=150", "data.batch_size=5", "data.val_size=10", "backbone.name=test_vit")


def _ours(prepared: Prepared, steps: int) -> None:
    fit(
        module_of(prepared), prepared.data, folder=Path(), budget=prepared.budget, machine=machine_of(prepared.config),
        gradient_clip_val=None, monitor="val/accuracy_micro", tested="last", test=False, progress="none", loggers=[],
        every_n_steps=None,
    )  # fmt: skip


def _plain(prepared: Prepared, steps: int) -> None:
    model = prepared.built.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for _, batch in zip(range(steps), prepared.data.train_dataloader(), strict=False):
        batch = prepared.data.on_after_batch_transfer(batch, 0)
        loss = torch.nn.functional.cross_entropy(model(batch["image"]), batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
