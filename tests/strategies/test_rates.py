"""Rates: the multiple of every layer group by its formula, and the rate that the weights really move at."""

from __future__ import annotations

import math
import random
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.conftest import RunTiny, tiny_config
from tests.models.test_layer_groups import build
from timm.optim import param_groups_layer_decay

from headstart.config.plain import read_config
from headstart.config.schema.optimizer import SGDConfig
from headstart.config.schema.schedule import OPTIONS as SCHEDULES
from headstart.config.schema.schedule import ScheduleConfig
from headstart.config.schema.strategy import (
    FreezeFirstKConfig,
    FullConfig,
    GradualConfig,
    GroupsConfig,
    LastKConfig,
    LinearProbeConfig,
    LpFtConfig,
    NormOnlyConfig,
    PhasesConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.models.classifier import Built
from headstart.preparation import prepare
from headstart.records.tables import read_rows
from headstart.strategies import Timing, build_plan
from headstart.strategies.plan import HEAD
from headstart.strategies.rates import multiples
from headstart.training.module import TransferModule
from headstart.training.optimizers import rates_of
from headstart.training.schedules import build_run_factor

TIMING = Timing(total_steps=24, steps_per_epoch=6)
MODELS = (
    ("test_resnet", 32),
    ("test_vit", 160),
    ("vgg11", 32),
    ("mobilenetv3_small_050", 32),
    ("test_efficientnet", 32),
    ("test_convnext", 32),
)
MORE = (("resnet50", 32), ("densenet121", 32), ("levit_128s", 224), ("swin_tiny_patch4_window7_224", 224))
SLOW = [pytest.param(*model, marks=pytest.mark.slow) for model in MORE]

built = cache(build)


def of_timm(name: str, decay: float, floor: float) -> dict[str, float]:
    """timm's multiple of every parameter of a whole model, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name)
    names = {id(p): key for key, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=decay, min_scale=floor)
    return {names[id(p)]: float(group["lr_scale"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize(("name", "size"), [*MODELS, *SLOW])
@pytest.mark.parametrize(("decay", "floor"), [(0.75, 0.0), (0.6, 0.2)])
def test_layer_decay_is_timms_parameter_by_parameter(name: str, size: int, decay: float, floor: float) -> None:
    layers = built(name, size).layers
    rates = multiples(FullConfig(layer_decay=decay, layer_decay_min=floor), layers)
    expected = of_timm(name, decay, floor)
    group_of = layers.group_of()
    compared = 0
    for key, _ in built(name, size).model.named_parameters():
        if key.startswith("head."):
            assert rates[group_of[key]] == 1
            continue
        assert rates[group_of[key]] == pytest.approx(expected.pop(key.removeprefix("backbone.")), rel=1e-12), key
        compared += 1
    assert compared > 10
    assert set(expected.values()) == {1.0}, "what is left is timm's own classifier"
    assert rates.get("neck", 1.0) == 1


def test_resnet50_has_eighteen_levels() -> None:
    layers = built("resnet50", 32).layers
    rates = multiples(FullConfig(layer_decay=0.75), layers)
    assert rates["stem"] == 0.75**17
    assert [rates[f"block.{i}"] for i in range(16)] == pytest.approx([0.75 ** (16 - i) for i in range(16)])
    assert rates["head"] == 1


def levels(layers: LayerMap) -> tuple[dict[str, int], int]:
    """Level of each group from the input up, and that of the head: counted here by hand."""
    below = [name for name in layers.names if name not in ("neck", "head")]
    return {name: below.index(name) if name in below else len(below) for name in layers.names}, len(below)


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 32), ("mobilenetv3_small_050", 32), ("vgg11", 32)])
def test_discriminative_and_span_by_their_formulas(name: str, size: int) -> None:
    layers = built(name, size).layers
    level, top = levels(layers)
    divisor, span = random.uniform(1.5, 4), random.uniform(10, 1000)
    assert multiples(FullConfig(discriminative=2.6), layers) == pytest.approx(
        {group: 2.6 ** (level[group] - top) for group in layers.names}, rel=1e-12
    )
    rates = multiples(FullConfig(discriminative=divisor), layers)
    assert rates["stem"] == pytest.approx(divisor**-top, rel=1e-12)
    rates = multiples(FullConfig(lr_span=span), layers)
    assert rates["stem"] == pytest.approx(1 / span, rel=1e-12)
    assert rates["head"] == 1
    logs = [math.log(rates[group]) for group in layers.names if group not in ("neck",)]
    steps = [b - a for a, b in pairwise(logs)]
    assert steps == pytest.approx([math.log(span) / top] * top, rel=1e-9)
    assert rates.get("neck", 1.0) == 1


@pytest.mark.parametrize("option", [{}, {"layer_decay": 0.5}, {"discriminative": 3.0}, {"lr_span": 50.0}])
def test_the_backbones_own_multiple_is_on_top(option: dict[str, float]) -> None:
    layers = built("mobilenetv3_small_050", 32).layers
    plain = multiples(FullConfig(**option), layers)
    got = multiples(FullConfig(**option, backbone_lr_mult=0.1), layers)
    assert got == pytest.approx({k: v * (1 if k == HEAD else 0.1) for k, v in plain.items()}, rel=1e-12)
    assert got["neck"] == pytest.approx(0.1)


@pytest.mark.parametrize("option", [{"layer_decay": 0.5}, {"discriminative": 2.0}, {"lr_span": 32.0}])
def test_rates_compose_with_every_strategy(option: dict[str, float]) -> None:
    layers = built("test_resnet", 32).layers
    rates = multiples(FullConfig(**option), layers)
    assert rates["stem"] == pytest.approx(1 / 32)
    for strategy, expected in (
        (LastKConfig(k=2, **option), ("block.2", "block.3", "head")),
        (FreezeFirstKConfig(k=3, **option), ("block.2", "block.3", "head")),
        (GroupsConfig(groups=["stem", "block.1"], **option), ("stem", "block.1", "head")),
        (NormOnlyConfig(**option), layers.names),
        (LinearProbeConfig(**option), ("head",)),
    ):
        assert build_plan(strategy, layers, TIMING).at(0).rates == pytest.approx({n: rates[n] for n in expected})
    last = build_plan(LpFtConfig(finetune_lr_mult=0.3, **option), layers, TIMING).phases[-1]
    assert last.rates == pytest.approx({name: 0.3 * rate for name, rate in rates.items()})
    own = PhasesConfig(phases=[{"start": 0, "groups": {"stem": 0.5, "head": 2}, "lr_mult": 4}], **option)
    assert build_plan(own, layers, TIMING).at(0).rates == pytest.approx({"stem": 2 * rates["stem"], "head": 8})


@pytest.mark.parametrize("option", ["layer_decay=0.75", "discriminative=2.6", "lr_span=100"])
def test_a_backbone_without_layer_groups(option: str) -> None:
    pit = ("backbone.name=pit_ti_224", "data.image_size=224", "data.train_size=40", "data.test_size=20")
    with pytest.raises(
        ConfigError, match=rf"strategy\.{option.partition('=')[0]}: timm has no layer groups"
    ) as said:
        prepare(tiny_config(*pit, f"strategy.{option}"))
    assert len(str(said.value).splitlines()) == 1


def test_two_rates_need_no_layer_groups() -> None:
    layers = built("pit_ti_224", 224).layers
    assert multiples(FullConfig(backbone_lr_mult=0.1), layers) == {"backbone": 0.1, "head": 1.0}


# --- the rate that is really used


STRATEGIES = (
    FullConfig(layer_decay=0.75),
    LastKConfig(k=2, discriminative=2.6),
    GradualConfig(milestones=[1, 2.5], groups_per_step=2, lr_span=100.0),
    LpFtConfig(finetune_lr_mult=0.5, backbone_lr_mult=0.1),
    PhasesConfig(
        layer_decay=0.5,
        unit="step",
        phases=[
            {"start": 0, "groups": ["head"]},
            {"start": 7, "groups": {"block.*": 0.1, "head": 1}, "lr_mult": 3},
            {"start": 16, "groups": ["stem", "head"]},
        ],
    ),
)


def schedule_of(name: str, restart: str) -> ScheduleConfig:
    options: dict[str, Any] = {"restart": restart}
    if name != "bit_hyperrule":  # which has a warm-up of its own
        options["warmup_steps"] = 2
    if name == "step":
        options |= {"milestones": [3, 5], "unit": "step", "gamma": 0.3}
    return SCHEDULES[name](**options)


@pytest.mark.parametrize("restart", ["run", "phase"])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_every_weight_moves_at_base_rate_times_multiple_times_factor(
    strategy: StrategyConfig, schedule: str, restart: str
) -> None:
    """SGD on a gradient of ones moves a weight by its rate; in float64, so that it can be read off to 1e-6."""
    fresh: Built = build("test_resnet", 32)
    plan = build_plan(strategy, fresh.layers, TIMING)
    starts = [phase.start for phase in plan.phases]
    config = schedule_of(schedule, restart)
    factor = build_run_factor(
        config, starts=starts, total_steps=TIMING.total_steps, steps_per_epoch=TIMING.steps_per_epoch, images=320
    )
    base = random.uniform(0.01, 0.1)
    module = TransferModule(
        fresh.model.double(), layers=fresh.layers, plan=plan, loss=torch.nn.functional.cross_entropy,
        optimizer=SGDConfig(lr=base, momentum=0.0, nesterov=False), factor=factor, task="multiclass", seed=0,
    )  # fmt: skip
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    group_of = fresh.layers.group_of()
    for step in range(TIMING.total_steps):
        phase = plan.at(step)
        module.enter(phase)
        before = {key: p.detach().clone() for key, p in fresh.model.named_parameters()}
        optimizer.zero_grad()
        sum(p.sum() for p in fresh.model.parameters() if p.requires_grad).backward()
        optimizer.step()
        logged = rates_of(optimizer)
        scheduler.step()
        start, end = max(s for s in starts if s <= step), min([s for s in starts if s > step], default=24)
        local = (step - start, end - start) if restart == "phase" else (step, TIMING.total_steps)
        expected = by_hand(schedule, *local)
        assert factor(step) == pytest.approx(expected, rel=1e-12)
        for key, p in fresh.model.named_parameters():
            moved = before[key] - p.detach()
            rate = base * phase.rates.get(group_of[key], 0.0) * expected
            assert torch.allclose(moved, torch.full_like(moved, rate), rtol=1e-6, atol=1e-13), (step, key)
            if group_of[key] in plan.ever_trained:
                assert logged[group_of[key]] == pytest.approx(rate, rel=1e-9)


def by_hand(name: str, step: int, total: int, *, warmup: int = 2) -> float:
    """The factor of `schedule_of`, written out again."""

    def cosine(high: float, low: float, share: float) -> float:
        return low + (high - low) * (1 + math.cos(math.pi * share)) / 2

    if name == "one_cycle":
        rise = warmup or round(0.3 * total)
        if step < rise:
            return cosine(1 / 25, 1.0, step / rise)
        return cosine(1.0, 1 / 25e4, (step - rise) / (total - rise))
    if name == "bit_hyperrule":
        rise, *drops = (max(1, round(share * total)) for share in (0.2, 0.4, 0.6, 0.8, 1.0))
        return step / rise if step < rise else 0.1 ** sum(drop < step for drop in drops)
    if step < warmup:
        return (step + 1) / warmup
    if name == "cosine":
        return cosine(1.0, 0.0, (step - warmup) / (total - warmup))
    if name == "step":
        return 1.0 if step < 3 else 0.3 if step < 5 else 0.09
    return 1.0


# --- what a run logs is what it used


REAL = (
    ("strategy=full", "strategy.layer_decay=0.5"),
    ("strategy=gradual", "strategy.lr_span=100"),
    ("strategy=lp_ft", "strategy.backbone_lr_mult=0.1"),
    ("strategy=lp_ft", "schedule.restart=phase", "schedule.warmup_steps=2"),
)


def watched_run(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: tuple[str, ...], schedule: str
) -> tuple[Path, list[dict[str, float]]]:
    """A real run of 12 steps under plain SGD, and per step the rate of each layer group, read off its weights."""
    used: list[dict[str, float]] = []

    before: dict[torch.nn.Parameter, torch.Tensor] = {}
    begins, ends = TransferModule.on_before_optimizer_step, TransferModule.on_train_batch_end

    def begin(self: TransferModule, optimizer: torch.optim.Optimizer) -> None:
        begins(self, optimizer)
        before.update({p: p.detach().clone() for group in optimizer.param_groups for p in group["params"]})

    def end(self: TransferModule, *rest: Any) -> None:
        ends(self, *rest)
        optimizer = self.optimizer
        assert optimizer is not None
        group_of = self.layers.group_of()
        layer_of = {p: group_of[name] for name, p in self.model.named_parameters()}
        rates: dict[str, list[tuple[float, float]]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                moved = (before[p] - p.detach()).double()
                if p.grad is None:
                    assert not moved.any(), "frozen, and moved"
                    rates.setdefault(layer_of[p], []).append((0.0, 1.0))
                else:
                    grad = p.grad.double()
                    pair = float((moved * grad).sum()), float(grad.square().sum())
                    rates.setdefault(layer_of[p], []).append(pair)
        used.append({name: sum(a for a, _ in rs) / sum(b for _, b in rs) for name, rs in rates.items()})

    monkeypatch.setattr(TransferModule, "on_before_optimizer_step", begin)
    monkeypatch.setattr(TransferModule, "on_train_batch_end", end)
    more = ["schedule.milestones=[3,5]", "schedule.unit=step", "schedule.gamma=0.3"] if schedule == "step" else []
    folder, record = run_tiny(
        *strategy, f"schedule={schedule}", *more, "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.lr=0.05", "trainer.max_epochs=4", "data.train_size=66", "logger=csv", "logger.every_n_steps=1",
    )  # fmt: skip
    assert record.steps == len(used) == 12
    return folder, used


def close(rate: float) -> Any:
    """Float32 weights lose digits of a small step."""
    return pytest.approx(rate, rel=2e-2, abs=1e-7)


CASES = [
    pytest.param(strategy, name, marks=[] if name == "one_cycle" else pytest.mark.slow)
    for strategy in REAL
    for name in sorted(SCHEDULES)
    if name != "bit_hyperrule" or not any("warmup" in word for word in strategy)
]


@pytest.mark.parametrize(("strategy", "schedule"), CASES)
def test_a_run_uses_the_rates_of_its_plan(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: tuple[str, ...], schedule: str
) -> None:
    folder, used = watched_run(run_tiny, monkeypatch, strategy, schedule)
    config = read_config(folder / "config.yaml")
    assert config.schedule.restart == ("phase" if "strategy=lp_ft" in strategy else "run")
    plan = build_plan(config.strategy, built("test_resnet", 32).layers, Timing(12, 3))
    starts = [*(phase.start for phase in plan.phases), 12]
    for step, rates in enumerate(used):
        start, end = next((a, b) for a, b in pairwise(starts) if a <= step < b)
        local = (step - start, end - start) if config.schedule.restart == "phase" else (step, 12)
        factor = by_hand(schedule, *local, warmup=config.schedule.warmup_steps)
        for name, rate in rates.items():
            assert rate == close(0.05 * plan.at(step).rates.get(name, 0.0) * factor), (step, name)


@pytest.mark.parametrize(("strategy", "schedule"), CASES)
def test_a_run_logs_the_rates_that_it_used(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, strategy: tuple[str, ...], schedule: str
) -> None:
    """A row is of the step that it counts: its loss and its rates are those of that step."""
    folder, used = watched_run(run_tiny, monkeypatch, strategy, schedule)
    for table in ("steps.csv", "metrics.csv"):
        for row in read_rows(folder / table):
            for name, rate in used[int(row["step"]) - 1].items():
                assert row[f"lr/{name}"] == close(rate), (table, row["step"], name)
