"""Two processes train one run: the ranks hold equal weights after an unfreezing, and gradients are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config

from headstart.data.sampler import EpochSampler
from headstart.errors import ConfigError, RunFailed
from headstart.records.store import find_runs
from headstart.training import distributed

TWO = ("trainer.devices=2", "trainer.threads=2", "data.train_size=66", "trainer.max_epochs=3")

KEEPING = """
import sys
import torch
from headstart.training.module import TransferModule

def keep(self):
    torch.save(self.model.state_dict(), sys.argv[1] + "/rank1.pt")

TransferModule.on_fit_end = keep
from headstart.experiment import train_rank
train_rank(sys.argv[1], resume=sys.argv[2] == "1")
"""


def test_shares_of_a_batch() -> None:
    def order(rank: int, world: int) -> list[int]:
        sampler = EpochSampler(71, seed=3, epoch=lambda: 2, batch_size=16, rank=rank, world=world)
        found = [position for _, position in sampler]
        assert len(found) == len(sampler)
        return found

    alone, first, second = order(0, 1), order(0, 2), order(1, 2)
    assert len(first) == len(second) == 35  # the last of 71 cannot be divided
    for i in range(5):
        batch = alone[16 * i : 16 * i + 16]
        assert first[8 * i : 8 * i + 8] + second[8 * i : 8 * i + 8] == batch[: len(batch) // 2 * 2]


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(("strategy=gradual", "strategy.milestones=[1,2]"), id="gradual"),
        pytest.param(
            (
                "strategy=phases",
                "strategy.phases=[{start:0,groups:[head]},{start:1,groups:['*']},{start:2,groups:[block.3]}]",
            ),
            id="phases",
            marks=pytest.mark.slow,
        ),
        pytest.param(("strategy=auto_rgn",), id="auto_rgn", marks=pytest.mark.slow),
        pytest.param(
            ("strategy=lp_ft", "regularizer=bss", "data.mixup_alpha=0.3"), id="lp_ft", marks=pytest.mark.slow
        ),
    ],
)
def test_ranks_hold_equal_weights(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: tuple[str, ...]
) -> None:
    from headstart.preparation import prepare

    monkeypatch.setattr(distributed, "_PROGRAM", KEEPING)
    folder, record = run_tiny(*TWO, *strategy)
    assert record.status == "completed"
    first = load_file(folder / "checkpoints" / "last.safetensors")
    second = torch.load(folder / "rank1.pt", weights_only=True)
    assert set(first) == set(second)
    model = prepare(tiny_config(*TWO, *strategy)).built.model
    parameters = {name for name, _ in model.named_parameters()}
    start = model.state_dict()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    moved = {name for name in parameters if not torch.equal(first[name], start[name])}
    assert {"backbone.layer1.0.conv1.weight", "head.0.weight"} <= moved


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(run_tiny: RunTiny) -> None:
    """Without batch normalisation the gradient of a batch is the mean of its shares'."""
    words = (
        "backbone.name=test_vit", "data.train_size=64", "data.batch_size=16", "trainer.max_epochs=2", "optimizer=sgd",
        "optimizer.lr=0.05", "trainer.threads=2",
    )  # fmt: skip
    kept = [
        load_file(run_tiny(*words, *more)[0] / "checkpoints" / "last.safetensors")
        for more in ((), ("trainer.devices=2",))
    ]
    for name in kept[0]:
        assert torch.allclose(kept[0][name], kept[1][name], atol=1e-4), name


def test_a_batch_that_cannot_be_divided() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: cannot divide data\.batch_size=31"):
        tiny_config("trainer.devices=2", "data.batch_size=31")


def test_a_process_that_does_not_start_ends_the_run(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(RunFailed, match=r"process 1 of 2 did not get ready .exit status 3."):
        run_tiny(*TWO)
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"
