"""Heads side by side: what torch.nn and torch.optim give one by one, the same bits in any company, own ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headstart.config.schema.optimizer import AdamConfig, AdamWConfig, OptimizerConfig, SGDConfig
from headstart.config.schema.trainer import LossConfig
from headstart.data.sampler import EpochSampler
from headstart.errors import RunFailed, RunPruned
from headstart.facts import DataFacts, Task
from headstart.features.course import Course, HeadFit
from headstart.features.engine import fit_together
from headstart.features.stack import Stack, Standing
from headstart.features.updates import Updates
from headstart.models.heads import InUnits, mlp
from headstart.records.tables import read_rows
from headstart.training.engine import Fitted
from headstart.training.losses import build_loss, build_terms
from headstart.training.trainer import Budget

WIDTH, COUNT, BATCH = 24, 75, 16
OPTIMIZERS: tuple[OptimizerConfig, ...] = (
    AdamWConfig(lr=1e-2, weight_decay=0.1),
    AdamConfig(lr=2e-2, weight_decay=0.1, betas=[0.5, 0.9], eps=1e-3),
    SGDConfig(lr=1e-2, weight_decay=0.1),
    SGDConfig(lr=1e-2, momentum=0.5, nesterov=False),
    SGDConfig(lr=1e-2, momentum=0.0, nesterov=False),
)
LOSSES: tuple[tuple[Task, int, LossConfig], ...] = (
    ("multiclass", 10, LossConfig()),
    ("multiclass", 3, LossConfig(label_smoothing=0.1, class_weights="balanced")),
    ("multiclass", 7, LossConfig(name="focal", class_weights="balanced")),
    ("multilabel", 5, LossConfig(label_smoothing=0.1, class_weights="balanced")),
    ("multilabel", 5, LossConfig(name="focal", gamma=0.5)),
    ("binary", 1, LossConfig(class_weights="balanced")),
    ("binary", 1, LossConfig(name="focal")),
    ("regression", 1, LossConfig()),
    ("regression", 3, LossConfig(name="mae")),
    ("regression", 3, LossConfig(name="smooth_l1")),
)


def facts_of(task: Task, outputs: int) -> DataFacts:
    names = 2 if task == "binary" else outputs
    return DataFacts(
        task, tuple(map(str, range(names))), 3, (1, 1), {"train": COUNT}, {"train": tuple(range(5, 5 + names))}, "f", "s",
        target_mean=tuple(map(float, range(outputs))), target_std=tuple(float(i + 1) for i in range(outputs)),
    )  # fmt: skip


def examples(facts: DataFacts, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(COUNT, WIDTH, generator=generator)
    outputs = facts.num_outputs
    if facts.task == "regression":
        return features, torch.randn(COUNT, outputs, generator=generator)
    if facts.task == "multilabel":
        return features, torch.randint(0, 2, (COUNT, outputs), generator=generator).float()
    return features, torch.randint(0, facts.num_classes, (COUNT,), generator=generator)


def head_of(facts: DataFacts, *, seed: int, hidden: Sequence[int] = (), dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    head = mlp(WIDTH, hidden, facts.num_outputs, activation="gelu", dropout=dropout)
    if facts.units:
        head.append(InUnits(facts.units))
    return head


def batches(step: int, seed: int) -> torch.Tensor:
    """Whole ones, and now and then a shorter one, as at the end of an epoch."""
    generator = torch.Generator().manual_seed(100 * step + seed)
    return torch.randperm(COUNT, generator=generator)[: BATCH if step % 4 else 11]


Trained = dict[int, tuple[dict[str, torch.Tensor], torch.Tensor]]


def train(
    which: Sequence[int], task: Task, outputs: int, loss: LossConfig, *, steps: int = 9, **of_head: Any
) -> Trained:
    """Heads by number, each with its own seed, start, optimiser and rate, in this order: states and losses."""
    facts = facts_of(task, outputs)
    features, targets = examples(facts)
    terms = build_terms(loss, facts)
    heads = {i: head_of(facts, seed=i, **of_head) for i in which}
    stack = Stack(
        [Standing(heads[i], terms, "same", i, i % 2) for i in which],
        outputs=outputs,
        batch_size=BATCH,
        device=torch.device("cpu"),
    )
    updates = Updates([OPTIMIZERS[i % 5] for i in which], stack.parameters)
    updates.plan([tuple(OPTIMIZERS[i % 5].lr * (1 + i) / (1 + s) for s in range(steps)) for i in which])
    losses = []
    for step in range(steps):
        places = [batches(step, seed) for seed in (0, 1)]
        losses.append(stack.step([features[p] for p in places], [targets[p] for p in places], step=step))
        for place, i in enumerate(which):
            if i % 3 == 0:
                stack.clip(place, 0.5)
        updates.step(step, stack.gradients)
    return {i: (heads[i].state_dict(), torch.stack(losses)[:, place]) for place, i in enumerate(which)}


def plainly(
    i: int, task: Task, outputs: int, loss: LossConfig, *, steps: int = 9
) -> tuple[nn.Sequential, list[float]]:
    """The same head by torch.nn, the run's loss and torch.optim."""
    facts = facts_of(task, outputs)
    features, targets = examples(facts)
    head, config, minimised = head_of(facts, seed=i), OPTIMIZERS[i % 5], build_loss(loss, facts)
    groups = [
        {"params": [p for p in head.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in head.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if isinstance(config, SGDConfig):
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    else:
        assert isinstance(config, AdamConfig)
        kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
        optimizer = kind(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 + i) / (1 + step)
        place = batches(step, i % 2)
        value = minimised(head(features[place]), targets[place])
        optimizer.zero_grad()
        value.backward()
        if i % 3 == 0:
            nn.utils.clip_grad_norm_(head.parameters(), 0.5)
        optimizer.step()
        losses.append(value.item())
    return head, losses


@pytest.mark.parametrize(("task", "outputs", "loss"), LOSSES)
def test_a_head_is_what_torch_gives_by_itself(task: Task, outputs: int, loss: LossConfig) -> None:
    found = train(range(10), task, outputs, loss)  # each optimiser with and without clipping
    for i, (state, losses) in found.items():
        head, expected = plainly(i, task, outputs, loss)
        assert losses.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6), i
        for key, value in head.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5, msg=f"{i} {key}")


@pytest.mark.parametrize(("task", "outputs", "loss"), LOSSES)
@pytest.mark.parametrize(
    ("count", "threads", "of_head"), [(50, 1, {}), (50, 2, {}), (12, 1, {"hidden": (5,), "dropout": 0.3})]
)
def test_the_same_bits_in_any_company(
    task: Task, outputs: int, loss: LossConfig, count: int, threads: int, of_head: dict[str, Any]
) -> None:
    torch.set_num_threads(threads)
    everyone = train(range(count), task, outputs, loss, steps=5, **of_head)
    for which in ([0], [count - 1], [7, 3], [4, 5, 6], [6, 0, 3, 2, 5, 1, 4]):
        for i, (state, losses) in train(which, task, outputs, loss, steps=5, **of_head).items():
            assert torch.equal(losses, everyone[i][1]), (which, i)
            assert all(torch.equal(state[key], value) for key, value in everyone[i][0].items()), (which, i)


def test_the_same_bits_where_threads_divide_the_work() -> None:
    """All scores together are more than one thread takes; where it is divided must not matter."""
    torch.set_num_threads(3)
    loss = LossConfig(label_smoothing=0.1, class_weights="balanced")
    everyone = train(range(50), "multilabel", 41, loss, steps=3)
    for i, (state, losses) in train([16, 33, 4], "multilabel", 41, loss, steps=3).items():
        assert torch.equal(losses, everyone[i][1])
        assert all(torch.equal(state[key], value) for key, value in everyone[i][0].items())


def test_terms_are_what_the_loss_is_the_mean_of() -> None:
    for task, outputs, config in LOSSES:
        facts = facts_of(task, outputs)
        _, targets = examples(facts)
        scores = torch.randn(COUNT, outputs, generator=torch.Generator().manual_seed(1))
        terms, whole = build_terms(config, facts), build_loss(config, facts)(scores, targets)
        each = terms.each(scores, targets)
        mass = COUNT if terms.weight is None else terms.weight(targets).sum()
        torch.testing.assert_close(each.sum() / mass, whole)


class Table:
    def __init__(self, features: torch.Tensor) -> None:
        self.features, self.width = features, features.shape[1]

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, positions: torch.Tensor, *, view: int = 0) -> torch.Tensor:
        return self.features[positions]


class Data:
    """As much of a data module as the engine asks."""

    sampling, batch_size = "natural", BATCH

    def __init__(self, facts: DataFacts, seed: int) -> None:
        self.facts, self.seed = facts, seed

    def training_batches(self, epoch: int) -> tuple[torch.Tensor, ...]:
        return EpochSampler(COUNT, seed=self.seed, epoch=None).order(epoch).split(BATCH)

    def targets(self, name: str) -> torch.Tensor:
        return examples(self.facts, seed=("train", "val", "test").index(name))[1]


class Bank:
    def __init__(self, facts: DataFacts) -> None:
        self.of = {name: Table(examples(facts, seed=i)[0]) for i, name in enumerate(("train", "val", "test"))}

    def tables(self, data: Any, names: Sequence[str], *, views: int | None = None) -> dict[str, Table]:
        return {name: self.of[name] for name in names}


FACTS = facts_of("multiclass", 3)
EPOCH = 5  # steps


def asked(folder: Path, *, seed: int = 0, epochs: int = 4, patience: int | None = None, **more: Any) -> HeadFit:
    folder.mkdir(parents=True)
    fit = HeadFit(
        head=head_of(FACTS, seed=seed), data=Data(FACTS, seed), terms=build_terms(LossConfig(), FACTS), loss="ce",  # type: ignore[arg-type]
        optimizer=AdamWConfig(lr=1e-2), factor=lambda step: 1.0, multiple=lambda step: 1.0,
        budget=Budget(epochs * EPOCH, EPOCH, patience=patience), clip=None, seed=seed, refit=False, threshold=None,
        monitor="val/log_loss", tested="best", test=True, folder=folder,
    )  # fmt: skip
    return replace(fit, **more)


def fitted(fits: Sequence[HeadFit]) -> list[Fitted | Exception]:
    found: dict[int, Fitted | Exception] = {}

    def done(place: int, outcome: Fitted | Exception, course: Course) -> None:
        found[place] = outcome

    fit_together(fits, Bank(FACTS), device=torch.device("cpu"), progress="none", live=False, done=done)
    return [found[i] for i in range(len(fits))]


def same(one: Fitted | Exception, other: Fitted | Exception) -> bool:
    assert isinstance(one, Fitted)
    assert isinstance(other, Fitted)
    assert one.scores is not None
    assert other.scores is not None
    return one.metrics == other.metrics and one.best == other.best and torch.equal(one.scores, other.scores)


def test_what_becomes_of_one_head_touches_no_other(tmp_path: Path) -> None:
    asks = [0]

    def prune() -> bool:
        asks[0] += 1
        return asks[0] == 2

    wild: Callable[[int], float] = lambda step: 1.0 if step < 7 else float("inf")  # noqa: E731
    alone = [fitted([asked(tmp_path / f"alone-{i}", seed=i, epochs=6)])[0] for i in range(2)]
    one, diverged, pruned, early, short, other = fitted(
        [
            asked(tmp_path / "0", seed=0, epochs=6),
            asked(tmp_path / "1", seed=0, epochs=6, factor=wild),
            asked(tmp_path / "2", seed=1, epochs=6, prune=prune),
            asked(tmp_path / "3", seed=1, epochs=6, patience=1, optimizer=AdamWConfig(lr=1e-12, weight_decay=0.0)),
            asked(tmp_path / "4", seed=1, budget=Budget(7, EPOCH)),
            asked(tmp_path / "5", seed=1, epochs=6),
        ]
    )
    assert same(one, alone[0])
    assert same(other, alone[1])
    assert isinstance(diverged, RunFailed)
    assert "not finite at step 8, learning rate inf" in str(diverged)
    assert isinstance(pruned, RunPruned)
    assert str(pruned) == "stopped after step 10: other trials were better by then."
    assert isinstance(early, Fitted)
    assert (early.stopped_by, early.epochs) == ("early_stopping", 2)
    assert isinstance(short, Fitted)
    assert (short.stopped_by, short.steps, short.epochs) == ("budget", 7, 2)
    rows = read_rows(tmp_path / "4" / "metrics.csv")
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 5), (2, 7)]


def test_patience_counts_from_where_the_last_phase_begins(tmp_path: Path) -> None:
    still = AdamWConfig(lr=1e-12, weight_decay=0.0)
    for begins, epochs in ((0, 2), (EPOCH, 3), (3 * EPOCH, 5)):
        budget = Budget(10 * EPOCH, EPOCH, patience=1, patient_from=begins)
        (found,) = fitted([asked(tmp_path / str(begins), optimizer=still, budget=budget)])
        assert isinstance(found, Fitted)
        assert found.epochs == epochs


def test_patience_begins_anew_with_each_better_epoch(tmp_path: Path) -> None:
    course = Course(asked(tmp_path / "0", epochs=9, patience=2), live=False)
    right = nn.functional.one_hot(course.fit.data.targets("val"), 3).float()
    for epoch, sure in enumerate((1.0, 2.0, 1.5, 3.0, 2.5, 2.4), start=1):
        assert course.stopped_by == ""
        course.end_epoch(epoch * EPOCH, first=(epoch - 1) * EPOCH, losses=[1.0] * EPOCH, scores=sure * right)
    assert course.stopped_by == "early_stopping"
    assert course.best["epoch"] == 4


def test_the_clock_ends_one_head_alone(tmp_path: Path) -> None:
    timed, other = fitted(
        [
            asked(tmp_path / "0", epochs=10**6, budget=Budget(10**9, EPOCH, max_time="00:00:00:01")),
            asked(tmp_path / "1", epochs=3),
        ]
    )
    assert isinstance(timed, Fitted)
    assert isinstance(other, Fitted)
    assert timed.stopped_by == "max_time"
    assert (other.stopped_by, other.epochs) == ("budget", 3)
