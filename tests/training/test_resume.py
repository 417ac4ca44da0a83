"""A run that was interrupted anywhere and resumed ends with the bits of the unbroken one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config

from headstart.config.schema.schedule import OPTIONS as SCHEDULES
from headstart.experiment import resume
from headstart.experiment import run as run_experiment
from headstart.records.schema import RunRecord
from headstart.records.store import read_record
from headstart.records.tables import read_rows
from headstart.training.module import TransferModule

PER_EPOCH = 3  # 66 images in batches of 32, the last one of 2
TOTAL = 4 * PER_EPOCH
COMMON = (
    "data.train_size=66",
    "data.test_size=30",
    "data.val_size=30",
    "trainer.max_epochs=4",
    "head.dropout=0.3",
    "data.augment=light",
    "optimizer.lr=0.01",
)
REFREEZING = (
    "strategy=phases",
    "strategy.unit=step",
    "strategy.phases=[{start: 0, groups: [head]}, {start: 2, groups: {block.*: 0.5, head: 1}}, "
    "{start: 6, groups: [block.3], lr_mult: 0.5, normalization: eval}, "
    "{start: 10, groups: ['*'], normalization: batch_stats}]",
)
STRATEGIES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "gradual": (
        ("strategy=gradual", "strategy.milestones=[2,6,7]", "strategy.unit=step", "strategy.groups_per_step=1"),
        (2, 6, 7),
    ),
    "lp_ft": (("strategy=lp_ft", "strategy.finetune_lr_mult=0.5"), (6,)),
    "phases": (REFREEZING, (2, 6, 10)),
    "auto_rgn": (("strategy=auto_rgn",), ()),
}

SLOW = pytest.mark.slow


def interrupted(at: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """A run that ends as by Ctrl-C where its global step `at` was about to begin; returns its folder."""
    before = TransferModule.on_train_batch_start

    def start(self: TransferModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == at:
            raise KeyboardInterrupt
        before(self, batch, batch_idx)

    folders: list[Path] = []
    with monkeypatch.context() as patch:
        patch.setattr(TransferModule, "on_train_batch_start", start)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(tiny_config(*overrides), announce=folders.append)
    (folder,) = folders
    assert read_record(folder).status == "interrupted"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert checkpoint.is_file() == (at >= PER_EPOCH)
    if checkpoint.is_file():
        assert torch.load(checkpoint, weights_only=True)["global_step"] == at // PER_EPOCH * PER_EPOCH
    return folder


def assert_same(folder: Path, record: RunRecord, unbroken: tuple[Path, RunRecord]) -> None:
    kept, expected = (load_file(f / "checkpoints" / "last.safetensors") for f in (folder, unbroken[0]))
    assert kept.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(kept[name], expected[name])] == []
    assert record.predictions_sha256 == unbroken[1].predictions_sha256
    assert record.best == unbroken[1].best
    assert without_seconds(folder) == without_seconds(unbroken[0])


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(folder / "metrics.csv")]


def check(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, stops: Iterable[int], *more: str) -> None:
    """Interrupt a run at each of `stops`, resume it, and compare it with the unbroken one."""
    words = (*COMMON, *more)
    unbroken = run_tiny(*words)
    assert len(without_seconds(unbroken[0])) == 4
    for at in stops:
        folder = interrupted(at, monkeypatch, *words)
        assert_same(folder, resume(folder), unbroken)


@pytest.mark.parametrize(
    ("stops", "more"),
    [
        pytest.param((5, 6), STRATEGIES["gradual"][0], id="gradual: before, at and after an unfreezing"),
        pytest.param((7,), ("strategy=lp_ft", "schedule=one_cycle"), id="lp_ft: its schedule restarts", marks=SLOW),
        pytest.param((7, 9), REFREEZING, id="phases: a group is frozen again", marks=SLOW),
        pytest.param(
            (10,), (*REFREEZING, "optimizer=sgd"), id="phases: momentum of a group frozen again", marks=SLOW
        ),
        pytest.param((2, 10), ("strategy=auto_rgn", "schedule=constant"), id="auto_rgn"),
        pytest.param(
            (5,),
            ("strategy.normalization=stochnorm", "strategy=gradual", "optimizer=adam"),
            id="stochnorm",
            marks=SLOW,
        ),
        pytest.param((7,), ("strategy=lp_ft", "regularizer=[bss]"), id="bss", marks=SLOW),
        pytest.param(
            (5,),
            ("data.augment=augmix", "data.mixup_alpha=0.3", "data.cutmix_alpha=0.5", "data.sampling=balanced"),
            id="augmentation, mixtures and balanced sampling",
        ),
        pytest.param((4,), ("strategy=lora", "strategy.rank=2", "strategy.dropout=0.3"), id="lora", marks=SLOW),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...], more: tuple[str, ...]
) -> None:
    check(run_tiny, monkeypatch, stops, *more)


@pytest.mark.parametrize(
    "regularizer",
    [
        pytest.param(
            (
                "regularizer=[delta]",
                "regularizer.delta.attention=true",
                "regularizer.delta.attention_epochs=1",
                "regularizer.delta.attention_batches=1",
            ),
            marks=pytest.mark.slow,
        ),
        ("regularizer=[co_tuning]",),
    ],
    ids=["delta with attention", "co_tuning"],
)
def test_what_a_penalty_has_learned_is_taken_up_again(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, regularizer: tuple[str, ...]
) -> None:
    source, _ = run_tiny("data.train_size=66", "seed=7")
    words = ("weights=run", f"weights.path={source}", "strategy=gradual", "schedule=one_cycle", *regularizer)
    check(run_tiny, monkeypatch, (7,), *words)


@pytest.mark.slow
def test_interrupted_twice_the_second_time_in_the_phase_of_the_first(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*COMMON, *REFREEZING)
    unbroken = run_tiny(*words)
    folder = interrupted(7, monkeypatch, *words)
    before = TransferModule.on_train_batch_start

    def start(self: TransferModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == 9:
            raise KeyboardInterrupt
        before(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TransferModule, "on_train_batch_start", start)
        with pytest.raises(KeyboardInterrupt):
            resume(folder)
    assert_same(folder, resume(folder), unbroken)


@pytest.mark.slow
def test_a_checkpoint_without_the_optimisers_state_does_not_give_the_same_bits(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above sees a state that is not taken up again."""
    words = (*COMMON, *STRATEGIES["gradual"][0])
    unbroken = run_tiny(*words)
    folder = interrupted(7, monkeypatch, *words)
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["optimizer_states"][0]["state"] = {}
    torch.save(checkpoint, path)
    with pytest.raises(AssertionError):
        assert_same(folder, resume(folder), unbroken)


SCHEDULE_WORDS: dict[str, tuple[str, ...]] = {
    "step": ("schedule.milestones=[1,3]", "schedule.unit=step"),
    "bit_hyperrule": ("trainer.max_epochs=null", f"trainer.max_steps={TOTAL}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_with_phases_under_every_schedule(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: str, schedule: str
) -> None:
    words, unfreezings = STRATEGIES[strategy]
    stops = {epoch * PER_EPOCH + 1 for epoch in range(4)}
    stops |= {start + by for start in unfreezings for by in (-1, 0, 1)}
    own = SCHEDULE_WORDS.get(schedule, ())
    keys = {word.partition("=")[0] for word in own}
    common = [word for word in COMMON if word.partition("=")[0] not in keys]
    everything = (*common, *words, f"schedule={schedule}", *own)
    unbroken = run_tiny(*everything)
    assert unbroken[1].steps == TOTAL
    for at in sorted(stops):
        folder = interrupted(at, monkeypatch, *everything)
        assert_same(folder, resume(folder), unbroken)
