"""Frozen means frozen: parameters, buffers, modes, updates and optimiser state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.test_layer_groups import MORE, QUICK

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.optimizer import AdamWConfig, SGDConfig
from headstart.config.schema.strategy import FullConfig, LastKConfig, LinearProbeConfig, StrategyConfig
from headstart.models.classifier import Built, build_classifier, full_name
from headstart.strategies import Timing, build_plan
from headstart.training.module import TransferModule
from headstart.training.schedules import constant


def module_of(
    name: str, size: int, strategy: StrategyConfig, optimizer: Any = None
) -> tuple[TransferModule, Built]:
    built = build_classifier(
        name=full_name(name, library="timm"), library="timm", head=LinearHeadConfig(dropout=0.5), classes=4,
        channels=3, size=(size, size), weights=None, seed=0,
    )  # fmt: skip
    for child in built.model.backbone.modules():
        if isinstance(child, torch.nn.Dropout):
            child.p = 0.5  # stochastic where it can be: it must not show while frozen
    module = TransferModule(
        built.model, layers=built.layers, plan=build_plan(strategy, built.layers, Timing(10, 5)),
        loss=torch.nn.functional.cross_entropy, optimizer=optimizer or AdamWConfig(lr=0.1, weight_decay=0.1),
        factor=constant, task="multiclass", seed=0,
    )  # fmt: skip
    return module, built


def steps(module: TransferModule, size: int, count: int = 2) -> torch.optim.Optimizer:
    """Optimiser steps in training mode, on other images each time."""
    module.enter(module.plan.at(0))
    module.train()
    optimizer: torch.optim.Optimizer = module.configure_optimizers()["optimizer"]
    for step in range(count):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(4, 3, size, size, generator=generator)
        loss = module.loss(module(images), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def check_frozen(name: str, size: int, strategy: StrategyConfig, optimizer: Any = None) -> None:
    module, built = module_of(name, size, strategy, optimizer)
    before = {key: value.clone() for key, value in built.model.state_dict(keep_vars=False).items()}
    made = steps(module, size)
    trained = set(module.plan.ever_trained)
    group_of = built.layers.group_of()
    moved = set()
    for key, value in built.model.state_dict().items():
        if group_of[key] not in trained:
            assert torch.equal(value, before[key]), f"{key} moved"
        elif not torch.equal(value, before[key]):
            moved.add(group_of[key])
    assert moved == {name for name in trained if any(g.name == name and g.size for g in built.layers.groups)}
    held = {id(p) for group in made.param_groups for p in group["params"]}
    frozen = [p for key, p in built.model.named_parameters() if group_of[key] not in trained]
    assert not held & {id(p) for p in frozen}
    assert all(p.grad is None for p in frozen)
    assert len(made.state) == sum(group_of[key] in trained for key, _ in built.model.named_parameters())


@pytest.mark.parametrize(("name", "size"), QUICK)
@pytest.mark.parametrize("strategy", [LinearProbeConfig(), LastKConfig(k=1)], ids=["linear_probe", "last_k"])
def test_frozen_tensors_are_bit_identical(name: str, size: int, strategy: StrategyConfig) -> None:
    check_frozen(name, size, strategy)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), MORE)
@pytest.mark.parametrize("strategy", [LinearProbeConfig(), LastKConfig(k=2)], ids=["linear_probe", "last_k"])
def test_frozen_tensors_are_bit_identical_for_many_families(name: str, size: int, strategy: StrategyConfig) -> None:
    check_frozen(name, size, strategy)


def test_momentum_and_decay_do_not_move_them_either() -> None:
    check_frozen("test_resnet", 32, LinearProbeConfig(), SGDConfig(lr=0.1, weight_decay=0.1))


def test_full_moves_every_group() -> None:
    check_frozen("test_resnet", 32, FullConfig())


@pytest.mark.parametrize(("name", "size"), QUICK)
def test_features_do_not_depend_on_mode_or_neighbours(name: str, size: int) -> None:
    module, built = module_of(name, size, LinearProbeConfig())
    module.enter(module.plan.at(0))
    generator = torch.Generator().manual_seed(0)
    first, others = (torch.randn(4, 3, size, size, generator=generator) for _ in range(2))
    others[0] = first[0]
    with torch.no_grad():
        module.eval()
        expected = built.model.backbone(first)
        module.train()
        assert torch.equal(built.model.backbone(first), expected)
        assert torch.equal(built.model.backbone(others)[0], expected[0])
    assert module.training
    assert built.model.head.training


def test_a_linear_probe_of_vgg_trains_the_new_classifier_and_nothing_else() -> None:
    module, built = module_of("vgg11", 32, LinearProbeConfig())
    assert module.plan.count_trainable(built.layers) == 4096 * 4 + 4
    module.enter(module.plan.at(0))
    trainable = [name for name, p in module.model.named_parameters() if p.requires_grad]
    assert trainable == ["head.1.weight", "head.1.bias"]


def test_the_frozen_part_is_no_part_of_the_graph() -> None:
    module, built = module_of("test_resnet", 32, LinearProbeConfig())
    module.enter(module.plan.at(0))
    assert not built.model.backbone(torch.zeros(2, 3, 32, 32)).requires_grad


def test_every_trained_parameter_is_in_one_group_and_biases_do_not_decay() -> None:
    module, built = module_of("test_vit", 160, LastKConfig(k=2))
    optimizer: torch.optim.Optimizer = module.configure_optimizers()["optimizer"]
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    group_of = built.layers.group_of()
    expected = [id(p) for key, p in built.model.named_parameters() if group_of[key] in module.plan.ever_trained]
    assert sorted(listed) == sorted(expected)
    for group in optimizer.param_groups:
        wide = {p.ndim > 1 for p in group["params"]}
        assert wide == {not group["name"].endswith("/1d")}
        assert group["weight_decay"] == (0.0 if group["name"].endswith("/1d") else 0.1)
