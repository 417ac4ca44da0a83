"""Auto-RGN: multiples by their formula, over steps and epochs, and the rate that each tensor really moves at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import RunTiny, tiny_config

from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.records.store import find_runs
from headstart.records.tables import read_rows
from headstart.training.checkpoints import read_checkpoint
from headstart.training.module import TransferModule
from headstart.training.relative_gradients import RelativeGradientNorms


def drawn() -> torch.Generator:
    """Other numbers every time."""
    generator = torch.Generator()
    generator.seed()
    return generator


def parameters(generator: torch.Generator) -> list[torch.nn.Parameter]:
    shapes = ((3, 4), (7,), (2, 3, 3, 3), (1,), (5, 2))
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def by_hand(steps: list[list[tuple[np.ndarray, np.ndarray]]]) -> np.ndarray:
    """Means over steps of ||g||/||w||, over their maximum."""
    ratios = np.array([[np.linalg.norm(g) / np.linalg.norm(w) for w, g in step] for step in steps])
    means = ratios.mean(axis=0)
    return means / means.max()


def test_multiples_by_their_formula() -> None:
    generator = drawn()
    tensors = parameters(generator)
    rgn = RelativeGradientNorms([str(i) for i in range(5)])
    assert [rgn.of(str(i)) for i in range(5)] == [1.0] * 5
    for _ in range(3):
        seen = []
        for _ in range(4):
            row = []
            for p in tensors:
                p.grad = torch.randn(p.shape, generator=generator) * 10 ** float(torch.rand(1, generator=generator))
                row.append((p.detach().double().numpy().ravel(), p.grad.double().numpy().ravel()))
            seen.append([(w.copy(), g.copy()) for w, g in row])
            rgn.look(tensors)
            with torch.no_grad():
                for p in tensors:
                    p.add_(p.grad, alpha=-0.1)  # type: ignore[arg-type]
        rgn.settle(forget=True)
        got = np.array([rgn.of(str(i)) for i in range(5)])
        assert got == pytest.approx(by_hand(seen), rel=1e-6)
        assert got.max() == 1
        assert got.min() >= 0
    assert rgn.of("of no tensor") == 1


def test_zero_tensors_and_missing_gradients() -> None:
    tensors = parameters(drawn())
    rgn = RelativeGradientNorms([str(i) for i in range(5)])
    with torch.no_grad():
        tensors[0].zero_()  # with a gradient: no finite ratio
        tensors[1].zero_()  # without: it does not move
    for p in (tensors[0], tensors[2], tensors[3]):
        p.grad = torch.ones_like(p)
    tensors[1].grad = torch.zeros_like(tensors[1])
    rgn.look(tensors)
    rgn.settle(forget=True)
    got = [rgn.of(str(i)) for i in range(5)]
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in got)
    assert got[0] == 1
    assert got[1] == got[4] == 0
    ratios = [float(p.grad.double().norm() / p.detach().double().norm()) for p in (tensors[2], tensors[3])]  # type: ignore[union-attr]
    assert got[2:4] == pytest.approx([value / max(ratios) for value in ratios], rel=1e-6)


def test_all_gradients_zero_or_not_finite() -> None:
    tensors = parameters(drawn())
    rgn = RelativeGradientNorms([str(i) for i in range(5)])
    for p in tensors:
        p.grad = torch.zeros_like(p)
    rgn.look(tensors)
    rgn.settle(forget=True)
    assert [rgn.of(str(i)) for i in range(5)] == [1.0] * 5
    for p in tensors:
        p.grad = torch.ones_like(p)
    rgn.look(tensors)
    tensors[0].grad = torch.full_like(tensors[0], float("inf"))
    rgn.look(tensors)  # a step that mixed precision will skip
    rgn.settle(forget=True)
    expected = by_hand([[(p.detach().double().numpy(), np.ones(p.shape)) for p in tensors]])
    assert [rgn.of(str(i)) for i in range(5)] == pytest.approx(list(expected), rel=1e-6)


def test_its_state_is_all_there_is() -> None:
    tensors = parameters(drawn())
    one, other = (RelativeGradientNorms([str(i) for i in range(5)]) for _ in range(2))
    for p in tensors:
        p.grad = torch.rand_like(p)
    one.look(tensors)
    one.settle(forget=False)
    other.load_state_dict(one.state_dict())
    for rgn in (one, other):
        rgn.look(tensors)
        rgn.settle(forget=True)
    assert torch.equal(one.multiples, other.multiples)


class Watch:
    """Per step and tensor of a real run: its weight, its gradient and how far it moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[dict[str, tuple[float, float, float]]] = []

        before: dict[str, torch.Tensor] = {}
        begins, ends = TransferModule.on_before_optimizer_step, TransferModule.on_train_batch_end

        def begin(module: TransferModule, optimizer: torch.optim.Optimizer) -> None:
            before.update({key: p.detach().double().clone() for key, p in module.model.named_parameters()})
            begins(module, optimizer)

        def end(module: TransferModule, *rest: Any) -> None:
            ends(module, *rest)
            named, row = dict(module.model.named_parameters()), {}
            for key, p in named.items():
                if p.grad is None:
                    continue
                g = p.grad.double()
                moved = before[key] - p.detach().double()
                size = float(g.square().sum())
                row[key] = (
                    float(before[key].norm()),
                    float(g.norm()),
                    float((moved * g).sum()) / size if size else 0.0,
                )
            self.steps.append(row)

        monkeypatch.setattr(TransferModule, "on_before_optimizer_step", begin)
        monkeypatch.setattr(TransferModule, "on_train_batch_end", end)


WORDS = (
    "strategy=auto_rgn", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.lr=0.1",
    "data.train_size=66", "trainer.max_epochs=3",
)  # fmt: skip


def multiples_of(steps: list[dict[str, tuple[float, float, float]]]) -> dict[str, float]:
    """What the formula makes of what was seen in some steps; a tensor of zeros with a gradient has 1."""
    means = {
        key: sum(g / w if w else (math.inf if g else 0.0) for w, g, _ in (step[key] for step in steps)) / len(steps)
        for key in steps[0]
    }
    most = max(value for value in means.values() if math.isfinite(value))
    return {key: value / most if math.isfinite(value) else 1.0 for key, value in means.items()}


@pytest.mark.parametrize("more", [("schedule=constant",), ("schedule=cosine", "strategy.layer_decay=0.5")])
def test_a_run_moves_every_tensor_at_its_own_rate(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    watch = Watch(monkeypatch)
    folder, record = run_tiny(*WORDS, *more)
    assert record.steps == len(watch.steps) == 9
    prepared = prepare(tiny_config(*WORDS, *more))
    group_of = prepared.built.layers.group_of()
    sizes = {p.name: p.size for group in prepared.built.layers.groups for p in group.parameters}
    for step, row in enumerate(watch.steps):
        epoch = step // 3
        seen = watch.steps[:1] if epoch == 0 else watch.steps[3 * (epoch - 1) : 3 * epoch]
        multiples = multiples_of(seen)
        base = 0.1 * prepared.factor(step)
        for key, (_, g, rate) in row.items():
            expected = base * prepared.plan.at(step).rates[group_of[key]] * multiples[key]
            if g > 1e-4:  # a float32 weight loses the digits of a step that is small beside it
                assert rate == pytest.approx(expected, rel=5e-2, abs=2e-5), (step, key)
        assert max(multiples.values()) == 1
    if more == ("schedule=constant",):
        last = multiples_of(watch.steps[3:6])
        for row in read_rows(folder / "metrics.csv")[-1:]:
            for name in prepared.built.layers.names:
                members = [key for key in last if group_of[key] == name]
                mean = sum(last[key] * sizes[key] for key in members) / sum(sizes[key] for key in members)
                assert row[f"lr/{name}"] == pytest.approx(0.1 * mean, rel=1e-3, abs=1e-9)


def test_an_epoch_of_one_step_follows_the_step_before(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    run_tiny(*WORDS, "schedule=constant", "data.batch_size=66", "trainer.max_epochs=5")
    assert len(watch.steps) == 5
    for step, row in enumerate(watch.steps):
        multiples = multiples_of([watch.steps[max(0, step - 1)]])
        for key, (_, g, rate) in row.items():
            if g > 1e-4:
                assert rate == pytest.approx(0.1 * multiples[key], rel=5e-2, abs=2e-5), (step, key)


def test_the_multiples_are_in_the_checkpoint(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = run_tiny(*WORDS, "trainer.max_epochs=4")
    original = TransferModule.on_train_batch_start

    def stop(self: TransferModule, *rest: Any) -> None:
        if self.global_step == 7:
            raise KeyboardInterrupt
        original(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TransferModule, "on_train_batch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(*WORDS, "trainer.max_epochs=4")
    folder = next(folder for folder, record in find_runs([Path("outputs")])[0] if record.status == "interrupted")
    state = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    multiples = state["rgn.multiples"]
    assert multiples.dtype == torch.float64
    assert float(multiples.max()) == 1
    assert len(set(multiples.tolist())) > 5
    assert resume(folder).predictions_sha256 == expected.predictions_sha256


def test_the_first_step_that_counts_settles_the_first_epoch() -> None:
    """Under float16 the first steps may overflow: they are left out, and not the whole epoch with them."""
    tensors = parameters(drawn())
    rgn = RelativeGradientNorms([str(i) for i in range(5)])
    for p in tensors:
        p.grad = torch.ones_like(p)
    tensors[2].grad = torch.full_like(tensors[2], float("inf"))
    rgn.look(tensors)
    rgn.settle(forget=False)
    assert not bool(rgn.settled)
    assert [rgn.of(str(i)) for i in range(5)] == [1.0] * 5
    tensors[2].grad = torch.ones_like(tensors[2])
    rgn.look(tensors)
    rgn.settle(forget=False)
    assert bool(rgn.settled)
    ratios = np.array([1 / np.sqrt(p.detach().double().square().mean().item()) for p in tensors])
    assert [rgn.of(str(i)) for i in range(5)] == pytest.approx(list(ratios / ratios.max()), rel=1e-6)


def test_a_module_that_overflows_at_first_adapts_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    look = RelativeGradientNorms.look

    def spoiled(self: RelativeGradientNorms, tensors: Any) -> None:
        if not seen:
            tensors[0].grad.fill_(float("nan"))
        look(self, tensors)
        if not seen:
            tensors[0].grad.zero_()
        seen.append(self.multiples.tolist())

    monkeypatch.setattr(RelativeGradientNorms, "look", spoiled)
    from headstart.experiment import run

    run(tiny_config("strategy=auto_rgn", "data.batch_size=25"))
    assert set(seen[0]) == set(seen[1]) == {1.0}
    assert len(set(seen[2])) > 3, "the second step has settled them for the third"


def test_what_is_in_force_comes_from_a_checkpoint() -> None:
    rgn, other = (RelativeGradientNorms(["a", "b"]) for _ in range(2))
    assert other.of("b") == 1
    rgn.multiples[1] = 0.25
    other.load_state_dict(rgn.state_dict())
    assert other.of("b") == 0.25
