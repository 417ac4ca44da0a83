"""The moving average of the weights: by the formula, over phases, and as what is validated, kept and tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny
from tests.training.test_resume import COMMON, REFREEZING, assert_same, interrupted

from headstart.config.plain import read_config
from headstart.experiment import resume
from headstart.preparation import Prepared, prepare
from headstart.training.checkpoints import load_weights
from headstart.training.module import TransferModule

DECAY = 0.8
EMA = f"trainer.ema_decay={DECAY}"
SHORT = ("data.train_size=66", "data.test_size=30", "data.val_size=30", "optimizer.lr=0.01")
PHASES = (
    "strategy=phases", "strategy.unit=step",
    "strategy.phases=[{start: 0, groups: [head]}, {start: 2, groups: ['*']}, {start: 4, groups: [block.3, head]}]",
)  # fmt: skip

State = dict[str, torch.Tensor]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The weights after each step of the runs that follow, their start first, in float64."""
    kept: list[State] = []

    def keep(module: TransferModule) -> None:
        kept.append({k: v.double() for k, v in module.model.state_dict().items() if v.is_floating_point()})

    start, end = TransferModule.on_train_start, TransferModule.on_train_batch_end

    def on_train_start(self: TransferModule) -> None:
        keep(self)
        start(self)

    def on_train_batch_end(self: TransferModule, *arguments: object) -> None:
        keep(self)
        end(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TransferModule, "on_train_start", on_train_start)
    monkeypatch.setattr(TransferModule, "on_train_batch_end", on_train_batch_end)
    return kept


def averaged(states: list[State], name: str, *, begins: int = 0) -> torch.Tensor:
    average = states[begins][name]
    for age, state in enumerate(states[begins + 1 :]):
        d = min(DECAY, (1 + age) / (10 + age))
        average = d * average + (1 - d) * state[name]
    return average


def last(folder: Path) -> State:
    return load_file(folder / "checkpoints" / "last.safetensors")


def test_the_average_is_kept_validated_and_tested(run_tiny: RunTiny, states: list[State]) -> None:
    """By hand, running statistics too; the run's scores are those of the averaged weights alone."""
    folder, record = run_tiny(*SHORT, "trainer.max_epochs=2", "trainer.checkpoint=last", EMA)
    assert len(states) == 7
    found = last(folder)
    for name in states[0]:
        assert torch.allclose(found[name].double(), averaged(states, name), rtol=1e-5, atol=1e-6), name
    assert not torch.allclose(found["head.0.weight"].double(), states[-1]["head.0.weight"], atol=1e-5)
    prepared = prepare(read_config(folder / "config.yaml"))
    load_weights(folder / "checkpoints" / "last.safetensors", prepared.built.model)
    for split, loader in (("val", prepared.data.val_dataloader()), ("test", prepared.data.test_dataloader())):
        assert log_loss(prepared, loader) == pytest.approx(record.metrics[f"{split}/log_loss"], rel=1e-5)


def log_loss(prepared: Prepared, loader: Any) -> float:
    batches = [prepared.data.on_after_batch_transfer(batch, 0) for batch in loader]
    with torch.no_grad():
        scores = torch.cat([prepared.built.model.eval()(batch["image"]) for batch in batches])
    return float(torch.nn.functional.cross_entropy(scores, torch.cat([batch["target"] for batch in batches])))


def test_without_averaging_the_training_is_the_same(run_tiny: RunTiny, states: list[State]) -> None:
    """The weights that train do not know of their average."""
    run_tiny(*SHORT, "trainer.max_epochs=2", EMA)
    with_average = list(states)
    states.clear()
    run_tiny(*SHORT, "trainer.max_epochs=2")
    for one, other in zip(with_average, states, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_group_is_averaged_from_where_it_begins_and_frozen_at_its_average(
    run_tiny: RunTiny, states: list[State]
) -> None:
    folder, _ = run_tiny(*SHORT, *PHASES, "trainer.max_epochs=2", EMA)
    found = last(folder)
    stem = next(name for name in states[0] if name.startswith("backbone.conv1") and name.endswith("weight"))
    block = next(name for name in states[0] if name.startswith("backbone.layer4") and name.endswith("conv1.weight"))
    head = "head.0.weight"
    assert torch.allclose(found[head].double(), averaged(states, head), rtol=1e-5, atol=1e-6)
    assert torch.allclose(found[block].double(), averaged(states, block, begins=2), rtol=1e-5, atol=1e-6)
    frozen = averaged(states[:5], stem, begins=2)
    assert torch.allclose(found[stem].double(), frozen, rtol=1e-5, atol=1e-6)
    for state in states[5:]:  # what trains on top of it sees what is tested
        assert torch.equal(state[stem], found[stem].double())


def test_what_never_trains_keeps_its_bits(run_tiny: RunTiny, states: list[State]) -> None:
    folder, _ = run_tiny(*SHORT, "strategy=last_k", "strategy.k=1", "trainer.max_epochs=2", EMA)
    found = last(folder)
    kept = [name for name in states[0] if torch.equal(states[0][name], states[-1][name])]
    assert any(name.endswith("running_mean") for name in kept)
    assert len(kept) > len(found) / 3
    for name in kept:
        assert torch.equal(found[name].double(), states[0][name]), name


@pytest.mark.parametrize(
    ("stops", "more"),
    [
        pytest.param((4, 6), REFREEZING, id="a group is frozen again"),
        pytest.param(
            (7,), ("strategy=gradual", "trainer.micro_batch_size=9"), marks=pytest.mark.slow, id="gradual"
        ),
    ],
)
def test_resumed_with_averages(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...], more: tuple[str, ...]
) -> None:
    words = (*COMMON, *more, EMA)
    unbroken = run_tiny(*words)
    for at in stops:
        folder = interrupted(at, monkeypatch, *words)
        assert_same(folder, resume(folder), unbroken)
