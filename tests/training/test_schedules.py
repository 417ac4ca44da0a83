"""Schedules: the formula, the ends, and the rate that the optimiser really uses."""

from __future__ import annotations

import math

import pytest
import torch

from headstart.config.schema.optimizer import SGDConfig
from headstart.config.schema.schedule import (
    OPTIONS,
    ConstantConfig,
    CosineConfig,
    OneCycleConfig,
    ScheduleConfig,
    StepConfig,
)
from headstart.errors import ConfigError
from headstart.facts import LayerGroup, LayerMap, LayerParameter
from headstart.strategies import Phase, TrainingPlan
from headstart.training.optimizers import build_optimizer, build_scheduler, rates_of
from headstart.training.schedules import build_factor

TOTAL = 40


def factors(config: ScheduleConfig) -> list[float]:
    factor = build_factor(config, total_steps=TOTAL, steps_per_epoch=10, images=320)
    return [factor(step) for step in range(TOTAL + 1)]


def test_constant() -> None:
    assert factors(ConstantConfig()) == [1.0] * (TOTAL + 1)


def test_cosine() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * s / TOTAL)) / 2 for s in range(TOTAL + 1)]
    assert factors(CosineConfig(min_factor=0.1)) == pytest.approx(expected, abs=1e-12)


def test_steps_in_epochs_and_in_steps() -> None:
    expected = [1.0] * 20 + [0.5] * 10 + [0.25] * 11
    assert factors(StepConfig(milestones=[2, 3], gamma=0.5)) == expected
    assert factors(StepConfig(milestones=[20, 30], unit="step", gamma=0.5)) == expected


def test_one_cycle_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=TOTAL + 2, pct_start=12 / TOTAL, div_factor=25, final_div_factor=1e4
    )
    expected = []
    for _ in range(TOTAL + 1):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    got = factors(OneCycleConfig(pct_start=0.3))
    # torch's peak lies at pct_start * total - 1, between two steps: the curves agree to a step's width
    assert max(got) == 1.0
    assert got[0] == pytest.approx(1 / 25)
    assert got[TOTAL] == pytest.approx(1 / 25 / 1e4)
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) < 0.15


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"bit_hyperrule"}))  # has one of its own: test_bit.py
def test_warm_up_rises_to_the_base_rate(name: str) -> None:
    config = OPTIONS[name](**({"milestones": [3]} if name == "step" else {}), warmup_steps=4)
    got = factors(config)
    assert got[:5] == sorted(got[:5])
    assert got[0] < got[4]
    assert max(got[3:5]) == 1.0
    in_epochs = OPTIONS[name](**({"milestones": [3]} if name == "step" else {}), warmup_epochs=0.4)
    assert factors(in_epochs) == got


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CosineConfig(warmup_steps=TOTAL), "40 steps leave nothing"),
        (CosineConfig(warmup_epochs=5), "50 steps leave nothing"),
        (StepConfig(milestones=[1, 4]), "beyond the run's 40 steps"),
        (StepConfig(milestones=[41], unit="step"), "beyond the run's 40 steps"),
    ],
)
def test_what_does_not_fit_the_run(config: ScheduleConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        factors(config)


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"bit_hyperrule"}))
def test_groups_keep_their_ratio_and_the_rate_is_really_used(name: str) -> None:
    """SGD on a constant gradient moves a weight by its rate: the rate is read off the weights."""
    model = torch.nn.ModuleDict({"low": torch.nn.Linear(1, 2), "head": torch.nn.Linear(1, 2)})
    layers = LayerMap(
        tuple(
            LayerGroup(key, (LayerParameter(f"{key}.weight", 2), LayerParameter(f"{key}.bias", 2, "bias")), ())
            for key in ("low", "head")
        )
    )
    plan = TrainingPlan((Phase(0, {"low": 0.01, "head": 1.0}), Phase(20, {"low": 0.5, "head": 1.0})))
    config = OPTIONS[name](**({"milestones": [3]} if name == "step" else {}), warmup_steps=2)
    factor = build_factor(config, total_steps=TOTAL, steps_per_epoch=10, images=320)
    optimizer = build_optimizer(SGDConfig(lr=0.1, momentum=0.0, nesterov=False), model, layers, plan)
    scheduler = build_scheduler(optimizer, plan, factor)
    for step in range(TOTAL):
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        assert rates_of(optimizer)["head"] == pytest.approx(0.1 * factor(step))
        optimizer.zero_grad()
        sum(p.double().sum() for p in model.parameters()).backward()
        optimizer.step()
        scheduler.step()
        for key, p in model.named_parameters():
            multiple = plan.at(step).rates[key.partition(".")[0]]
            moved = (before[key] - p.detach()).double()
            assert torch.allclose(moved, torch.full_like(moved, 0.1 * multiple * factor(step)), atol=1e-6)
