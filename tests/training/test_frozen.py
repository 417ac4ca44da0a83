"""Frozen means frozen: parameters, buffers, modes, updates and optimiser state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import RunTiny
from tests.models.test_layer_groups import MORE, QUICK

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.optimizer import AdamWConfig, SGDConfig
from headstart.config.schema.strategy import (
    BitFitConfig,
    FirstKConfig,
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


# --- strategies that train other parts, or parts of parts

PARTS = (
    FirstKConfig(k=1),
    FreezeFirstKConfig(k=2),
    GroupsConfig(groups=["stem", "block.1"]),
    NormOnlyConfig(),
    BitFitConfig(),
)
WITHOUT_NORMS = ("vgg11", "test_nfnet")
PARTS_OF_MORE = [
    pytest.param(strategy, name, size, marks=[] if (name, size) in QUICK[:4] else pytest.mark.slow)
    for strategy in PARTS
    for name, size in (*QUICK, *MORE)
    if not (strategy.name == "norm_only" and name in WITHOUT_NORMS)
]


def images_of(size: int, seed: int, *, n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def alive(built: Built) -> None:
    """Move scales and weights off zero: below a scale of zero nothing has a gradient."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in built.model.parameters():
            p.add_(torch.rand(p.shape, generator=generator), alpha=0.05)


def trains(module: TransferModule, built: Built, step: int) -> set[str]:
    """Parameters that train at a step, by the plan; every buffer has its group's name alone."""
    phase = module.plan.at(step)
    return {p.name for g in built.layers.groups for p in g.parameters if phase.trains(g.name, p.kind)}


@pytest.mark.parametrize(("strategy", "name", "size"), PARTS_OF_MORE, ids=lambda v: getattr(v, "name", str(v)))
def test_what_does_not_train_keeps_its_bits(strategy: StrategyConfig, name: str, size: int) -> None:
    module, built = module_of(name, size, strategy, AdamWConfig(lr=0.01, weight_decay=0.1))
    alive(built)
    before = {key: value.clone() for key, value in built.model.state_dict().items()}
    made = steps(module, size, count=2)
    wanted, group_of = trains(module, built, 0), built.layers.group_of()
    parameters = dict(built.model.named_parameters())
    moved = {key for key, value in built.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved & set(parameters) <= wanted
    for key in wanted - moved:  # vectors alone, which do not decay, and whose gradient has vanished
        gradient = parameters[key].grad
        assert parameters[key].ndim <= 1, f"{key} trains, and did not move"
        assert gradient is None or float(gradient.abs().max()) < 1e-12, f"{key} trains, and did not move"
    frozen_buffers = {
        key for key, _ in built.model.named_buffers() if group_of[key] not in module.plan.ever_trained
    }
    assert not moved & frozen_buffers
    held = {id(p) for group in made.param_groups for p in group["params"]}
    assert held == {id(parameters[key]) for key in wanted}
    assert {id(p) for p in made.state} <= held
    assert all(parameters[key].grad is None for key in set(parameters) - wanted)
    if strategy.name in ("norm_only", "bitfit"):
        assert all(parameters[key].ndim <= 3 for key in wanted if not key.startswith("head."))
        assert {key for key in moved if key.startswith("backbone.")} & set(parameters), "something trains"


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT_NORMS)
def test_backbones_without_normalisations_say_so(name: str) -> None:
    with pytest.raises(ConfigError, match="strategy=norm_only: this backbone has no normalisation"):
        module_of(name, 32, NormOnlyConfig())


def test_kinds_are_those_of_the_modules() -> None:
    """norm_only and bitfit against what PyTorch's own classes say of each parameter."""
    norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm, torch.nn.GroupNorm)
    for name, size in QUICK[:5]:
        only, built = module_of(name, size, NormOnlyConfig())
        of_norms = {
            f"{prefix}.{key}"
            for prefix, m in built.model.named_modules()
            if isinstance(m, norms)
            for key, _ in m.named_parameters(recurse=False)
        }
        head = {key for key, _ in built.model.named_parameters() if key.startswith("head.")}
        assert trains(only, built, 0) == of_norms | head
        biases = {key for key, _ in built.model.named_parameters() if key.endswith(".bias")}
        fit, built = module_of(name, size, BitFitConfig())
        assert trains(fit, built, 0) == biases | head


# --- phases: frozen before, frozen again

REFREEZE = PhasesConfig(
    unit="step",
    phases=[
        {"start": 0, "groups": ["head"]},
        {"start": 2, "groups": ["*"]},
        {"start": 4, "groups": ["block.1", "head"]},
        {"start": 6, "groups": ["stem", "block.*"]},
        {"start": 8, "groups": ["head"]},
    ],
)
IN_PHASES = (
    GradualConfig(milestones=[3, 6], unit="step", groups_per_step=2),
    LpFtConfig(probe_share=0.4),
    REFREEZE,
)


OPTIMIZERS = (AdamWConfig(lr=0.01, weight_decay=0.1), SGDConfig(lr=0.01, weight_decay=0.1))
CASES = [
    pytest.param(name, size, optimizer, marks=[] if name == "test_resnet" else pytest.mark.slow)
    for name, size in QUICK
    for optimizer in OPTIMIZERS
]


@pytest.mark.parametrize("strategy", IN_PHASES, ids=lambda strategy: strategy.name)
@pytest.mark.parametrize(("name", "size", "optimizer"), CASES)
def test_frozen_in_each_phase_and_when_frozen_again(
    name: str, size: int, strategy: StrategyConfig, optimizer: Any
) -> None:
    """Step by step under a real trainer's hooks: no update, no state, no moved statistic where nothing trains."""
    module, built = module_of(name, size, strategy, optimizer)
    alive(built)
    made = module.configure_optimizers()
    optim = made["optimizer"]
    trainer = _Trainer(optim)
    module._trainer = trainer  # type: ignore[assignment]
    parameters, group_of = dict(built.model.named_parameters()), built.layers.group_of()
    phases = []
    for step in range(10):
        trainer.global_step = step
        module.train()
        before = {key: value.clone() for key, value in built.model.state_dict().items()}
        module.on_train_batch_start({}, step)
        phases.append(module.plan.at(step).start)
        loss = module.loss(module(images_of(size, step)), torch.arange(4))
        optim.zero_grad()
        loss.backward()
        optim.step()
        made["lr_scheduler"]["scheduler"].step()
        wanted = trains(module, built, step)
        trained = {group_of[key] for key in wanted}
        moved = {key for key, value in built.model.state_dict().items() if not torch.equal(value, before[key])}
        assert {group_of[key] for key in moved} == trained, step
        assert moved & set(parameters) <= wanted
        holding = {key for key, p in parameters.items() if p in optim.state}
        assert holding == {key for key in wanted if parameters[key].grad is not None}, step
        assert all(parameters[key].grad is None for key in set(parameters) - wanted)
    assert len(set(phases)) == len(module.plan.phases)


class _Trainer:
    """The little of a trainer that a step asks for: the machinery around it is test_resume's."""

    global_rank = 0

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizers = [optimizer]
        self.global_step = 0


def test_what_was_frozen_again_keeps_its_bits_to_the_end_of_a_run(run_tiny: RunTiny) -> None:
    """The same run, ended where the group is frozen again, leaves it with the same bits."""
    from safetensors.torch import load_file

    words = ("strategy=phases", "strategy.unit=step", "optimizer.weight_decay=0.3", "schedule=constant")
    rows = "{start:0,groups:['*']}", "{start:3,groups:[head]}"
    long, _ = run_tiny(*words, f"strategy.phases=[{','.join(rows)}]", "trainer.max_epochs=3")
    short, _ = run_tiny(*words, f"strategy.phases=[{rows[0]}]", "trainer.max_steps=3", "trainer.max_epochs=null")
    kept, ended = (load_file(f / "checkpoints" / "last.safetensors") for f in (long, short))
    for key, value in ended.items():
        assert torch.equal(kept[key], value) == key.startswith("backbone."), key


# --- features of a frozen backbone, and its cost


@pytest.mark.parametrize(("name", "size"), QUICK)
def test_features_hardly_depend_on_the_batch_size(name: str, size: int) -> None:
    module, built = module_of(name, size, LinearProbeConfig())
    module.enter(module.plan.at(0))
    module.train()
    images = images_of(size, 0, n=8)
    with torch.no_grad():
        whole = built.model.backbone(images)
        scale = float(whole.abs().max())
        for n in (1, 3, 5):
            part = built.model.backbone(images[:n])
            assert torch.allclose(part, whole[:n], rtol=1e-4, atol=1e-4 * scale)


def entries(module: TransferModule, built: Built, images: torch.Tensor) -> dict[str, bool]:
    """Per layer group, whether what enters its first module needs a gradient."""
    group_of, seen = built.layers.group_of(), dict[str, bool]()

    def enter(group: str) -> Any:
        def hook(m: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor):
                seen.setdefault(group, inputs[0].requires_grad)

        return hook

    handles = []
    for name, m in built.model.named_modules():
        own = [f"{name}.{key}" for key, _ in m.named_parameters(recurse=False)]
        if own:
            handles.append(m.register_forward_pre_hook(enter(group_of[own[0]])))
    module.model(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(*case, marks=[] if case in QUICK[:3] else pytest.mark.slow) for case in QUICK],
)
def test_a_frozen_prefix_makes_no_graph(name: str, size: int) -> None:
    for strategy in (LastKConfig(k=1), LastKConfig(k=2), FreezeFirstKConfig(k=1)):
        module, built = module_of(name, size, strategy)
        module.enter(module.plan.at(0))
        module.train()
        seen = entries(module, built, images_of(size, 0))
        names = [group for group in built.layers.names if group in seen]
        first = next(i for i, group in enumerate(names) if group in module.plan.ever_trained)
        assert names[first] != "stem"
        for group in names[: first + 1]:
            assert not seen[group], f"{strategy.name}: what enters {group} needs a gradient"
        assert all(seen[group] for group in names[first + 1 :])


def test_first_k_needs_the_graph_and_leaves_the_rest_alone() -> None:
    module, built = module_of("test_resnet", 32, FirstKConfig(k=1))
    module.enter(module.plan.at(0))
    module.train()
    seen = entries(module, built, images_of(32, 0))
    assert not seen.pop("stem")
    assert all(seen.values())


@pytest.mark.parametrize(("name", "size"), QUICK[:2])
def test_nothing_below_what_trains_is_kept_for_the_gradient(name: str, size: int) -> None:
    """The tensors kept for a backward pass are those of a pass whose frozen part runs without gradients."""
    module, built = module_of(name, size, LastKConfig(k=2))
    module.enter(module.plan.at(0))
    module.train()
    images, group_of = images_of(size, 0), built.layers.group_of()
    trained = set(module.plan.ever_trained)

    def owns(m: torch.nn.Module, prefix: str) -> bool:
        return any(group_of[f"{prefix}.{key}"] in trained for key, _ in m.named_parameters(recurse=False))

    def kept(*, apart: bool, whole: bool = False) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        handles = [
            m.register_forward_pre_hook(lambda m, inputs: torch.set_grad_enabled(True) and None)
            for prefix, m in built.model.named_modules()
            if apart and owns(m, prefix)
        ]
        if whole:
            for p in built.model.parameters():
                p.requires_grad_(True)

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            found.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            torch.set_grad_enabled(not apart)
            try:
                torch.manual_seed(0)
                built.model(images).sum()
            finally:
                torch.set_grad_enabled(True)
                for handle in handles:
                    handle.remove()
        return sorted(found)

    together, apart = kept(apart=False), kept(apart=True)
    assert together == apart
    assert len(kept(apart=False, whole=True)) > len(together) > 0
