"""What each normalisation policy does: to outputs, to running statistics, to gradients, phase by phase."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import RunTiny
from tests.training.test_frozen import module_of, steps
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.config.compose import compose
from headstart.config.schema.optimizer import SGDConfig
from headstart.config.schema.strategy import (
    FullConfig,
    LastKConfig,
    LinearProbeConfig,
    LpFtConfig,
    PhasesConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError
from headstart.models.classifier import Built
from headstart.strategies import Timing, build_plan, resolve_strategy
from headstart.training.module import TransferModule
from headstart.training.normalization import StochasticNorm, leave_statistics

BACKBONES = ("test_resnet", "test_efficientnet")  # BatchNorm2d, and timm's BatchNormAct2d
POLICIES = ("train", "eval", "batch_stats", "stochnorm")
SIZE = 32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # conftest's fixture puts it back; much faster for images so small


def images_of(seed: int, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def entered(strategy: StrategyConfig, name: str = "test_resnet") -> tuple[TransferModule, Built]:
    """A module in its first phase and in training mode, its running statistics no trivial ones."""
    module, built = module_of(name, SIZE, strategy, SGDConfig(lr=0.1))
    generator = torch.Generator().manual_seed(7)
    for norm in norms_of(built.model.backbone):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator) * 0.3)
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    module.enter(module.plan.at(0))
    module.train()
    return module, built


def norms_of(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def buffers_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.named_buffers()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def with_p(p: float) -> FullConfig:
    return FullConfig(normalization="stochnorm", stochnorm_p=p)


def seen_by_norms(module: TransferModule, images: torch.Tensor) -> list[tuple[_BatchNorm, torch.Tensor, Any]]:
    """Inputs and outputs of each batch normalisation of the backbone in one pass."""
    seen: list[tuple[_BatchNorm, torch.Tensor, Any]] = []
    norms = norms_of(module.model.backbone)
    handles = [
        # clones: what comes next may work in place
        norm.register_forward_hook(lambda m, i, o: seen.append((m, i[0].detach().clone(), o.detach().clone())))
        for norm in norms
    ]
    with torch.no_grad():
        module.model.backbone(images)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(norms) > 5
    return seen


def after_normalizing(norm: _BatchNorm, value: torch.Tensor) -> torch.Tensor:
    """What BatchNormAct2d does behind its normalisation; nothing in BatchNorm2d."""
    return norm.act(norm.drop(value)) if hasattr(norm, "act") else value  # type: ignore[operator]


@pytest.mark.parametrize("name", BACKBONES)
def test_train_moves_the_running_statistics_as_pytorch_does(name: str) -> None:
    _, built = entered(FullConfig(), name)
    plain = copy.deepcopy(built.model.backbone).train()
    before = buffers_of(built.model.backbone)
    with torch.no_grad():
        built.model.backbone(images_of(0))
        plain(images_of(0))
    after = buffers_of(built.model.backbone)
    assert same(after, buffers_of(plain))
    assert not any(torch.equal(before[key], after[key]) for key in before)
    assert {key for key in before if key.endswith("running_var")}


@pytest.mark.parametrize("name", BACKBONES)
def test_eval_leaves_every_buffer_and_trains_scale_and_shift(name: str) -> None:
    module, built = entered(FullConfig(normalization="eval"), name)
    before = buffers_of(module)
    parameters = {key: p.detach().clone() for key, p in built.model.named_parameters()}
    steps(module, SIZE, count=3)
    assert same(buffers_of(module), before)
    for key, p in built.model.named_parameters():
        assert p.requires_grad
        assert not torch.equal(p, parameters[key]), key
    assert all(not norm.training for norm in norms_of(built.model.backbone))
    assert built.model.backbone.training
    assert built.model.head.training


@pytest.mark.parametrize("name", BACKBONES)
def test_eval_does_not_depend_on_neighbours(name: str) -> None:
    module, built = entered(FullConfig(normalization="eval"), name)
    for child in built.model.backbone.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0  # dropout stays on: it is not what is looked at
    first, others = images_of(0), images_of(1)
    others[0] = first[0]
    with torch.no_grad():
        assert torch.equal(built.model.backbone(first)[0], built.model.backbone(others)[0])
        normalised = built.model.backbone(first)
        module.enter(build_plan(FullConfig(), built.layers, Timing(10, 5)).at(0))
        assert not torch.allclose(normalised, built.model.backbone(first), rtol=1e-2)


@pytest.mark.parametrize("name", BACKBONES)
def test_batch_stats_leaves_every_buffer_and_normalises_with_the_batch(name: str) -> None:
    module, _ = entered(FullConfig(normalization="batch_stats"), name)
    before = buffers_of(module)
    held = {key: id(value) for key, value in module.named_buffers()}
    for norm, given, out in seen_by_norms(module, images_of(0)):
        expected = torch.nn.functional.batch_norm(given, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        assert torch.equal(out, after_normalizing(norm, expected))
    assert same(buffers_of(module), before)
    steps(module, SIZE, count=3)
    assert same(buffers_of(module), before)
    assert {key: id(value) for key, value in module.named_buffers()} == held
    assert any(key.endswith("num_batches_tracked") for key in before)


def test_batch_stats_in_evaluation_uses_the_running_statistics() -> None:
    module, built = entered(FullConfig(normalization="batch_stats"))
    plain = copy.deepcopy(built.model.backbone).eval()
    module.eval()
    with torch.no_grad():
        assert torch.equal(built.model.backbone(images_of(0)), plain(images_of(0)))


def test_batch_stats_puts_the_buffers_back_where_a_forward_pass_fails() -> None:
    norm = nn.BatchNorm2d(3)
    before, held = buffers_of(norm), {id(value) for value in norm.buffers()}
    leave_statistics(norm)
    with pytest.raises(ValueError, match="expected 4D"):
        norm(torch.zeros(2, 3))
    assert {id(value) for value in norm.buffers()} == held
    assert same(buffers_of(norm), before)


@pytest.mark.parametrize("name", BACKBONES)
def test_stochnorm_at_zero_gives_the_evaluated_output_and_moves_the_statistics(name: str) -> None:
    module, built = entered(with_p(0.0), name)
    before = buffers_of(built.model.backbone)
    for norm, given, out in seen_by_norms(module, images_of(0)):
        expected = after_normalizing(norm, before_step(norm, given))
        assert torch.allclose(out, expected, rtol=1e-5, atol=1e-5)
    after = buffers_of(built.model.backbone)
    assert not any(torch.equal(before[key], after[key]) for key in before)


def before_step(norm: _BatchNorm, given: torch.Tensor) -> torch.Tensor:
    """Normalised with the statistics from before a step that took `given`, worked out backwards in float64."""
    momentum = norm.momentum
    assert momentum is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    x = given.double()
    dims = [0, *range(2, x.ndim)]
    mean = (norm.running_mean.double() - momentum * x.mean(dims)) / (1 - momentum)
    var = (norm.running_var.double() - momentum * x.var(dims)) / (1 - momentum)
    shape = (1, -1, *[1] * (x.ndim - 2))
    value = (x - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()
    return (value * norm.weight.view(shape) + norm.bias.view(shape)).float()


@pytest.mark.parametrize("name", BACKBONES)
def test_stochnorm_at_one_is_train(name: str) -> None:
    built, other = entered(with_p(1.0), name)[1], entered(FullConfig(), name)[1]
    with torch.no_grad():
        assert torch.equal(built.model.backbone(images_of(0)), other.model.backbone(images_of(0)))
    assert same(buffers_of(built.model.backbone), buffers_of(other.model.backbone))


def norm_with_past(channels: int = 16, **options: Any) -> nn.BatchNorm2d:
    """A batch normalisation that has seen other data."""
    generator = torch.Generator().manual_seed(5)
    norm = nn.BatchNorm2d(channels, **options)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(torch.randn(channels, generator=generator))
        norm.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm.train()


def stochastic(norm: nn.BatchNorm2d, p: float) -> nn.BatchNorm2d:
    norm.__dict__["forward"] = StochasticNorm(norm, p)
    return norm


def nearer(out: torch.Tensor, batch: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """s of each channel as it must have been drawn: 1 where the output is nearer to the batch's, else 0."""
    distances = [(out - value).detach().abs().amax((0, 2, 3), keepdim=True) for value in (batch, moving)]
    return (distances[0] < distances[1]).double()


@pytest.mark.parametrize("seed", range(5))
def test_stochnorm_is_the_published_definition_per_channel(seed: int) -> None:
    norm = norm_with_past()
    plain = copy.deepcopy(norm).double()
    x = torch.randn(6, 16, 5, 5, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    moving = copy.deepcopy(plain).eval()(x.double())
    batch = plain(x.double())
    torch.manual_seed(seed)
    out = stochastic(norm, 0.5)(x).double()
    s = nearer(out, batch, moving)
    assert 0 < float(s.mean()) < 1
    expected = (1 - s) * moving + s * batch
    assert float(((out - expected).abs().max() / expected.abs().max()).detach()) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_gradients_under_stochnorm_are_those_of_the_published_definition(seed: int) -> None:
    norm = norm_with_past(momentum=0.5)
    plain = copy.deepcopy(norm).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 16, 5, 5, generator=generator) * 3 + 1
    upstream = torch.randn(6, 16, 5, 5, generator=generator)
    given = x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = stochastic(norm, 0.5)(given)
    (out * upstream).sum().backward()

    direct = x.double().requires_grad_()
    assert plain.running_mean is not None
    assert plain.running_var is not None

    def normalised(mean: torch.Tensor, var: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, 1, 1)
        scaled = (direct - mean.view(shape)) / (var.view(shape) + plain.eps).sqrt()
        return scaled * plain.weight.view(shape) + plain.bias.view(shape)

    batch = normalised(direct.mean((0, 2, 3)), direct.var((0, 2, 3), correction=0))
    moving = normalised(plain.running_mean.clone(), plain.running_var.clone())
    s = nearer(out.double(), batch, moving)
    assert 0 < float(s.mean()) < 1
    (((1 - s) * moving + s * batch) * upstream.double()).sum().backward()
    for found, expected in (
        (given.grad, direct.grad),
        (norm.weight.grad, plain.weight.grad),
        (norm.bias.grad, plain.bias.grad),
    ):
        assert found is not None
        assert expected is not None
        error = float((found.double() - expected).abs().max() / expected.abs().max())
        assert error < 1e-5


@pytest.mark.parametrize("name", BACKBONES)
def test_each_channel_of_a_backbone_is_one_of_the_two_outputs(name: str) -> None:
    module, _ = entered(with_p(0.5), name)
    torch.manual_seed(0)
    chosen = []
    for norm, given, out in seen_by_norms(module, images_of(0)):
        batch = torch.nn.functional.batch_norm(given, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        pair = [after_normalizing(norm, value) for value in (batch, before_step(norm, given))]
        for c in range(out.shape[1]):
            near = [torch.allclose(out[:, c], value[:, c], rtol=1e-4, atol=1e-4) for value in pair]
            assert any(near), c
            if sum(near) == 1:
                chosen.append(near[0])
    assert len(chosen) > 100
    assert 0.3 < sum(chosen) / len(chosen) < 0.7


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_p_is_the_share_of_channels_that_take_the_batch(p: float) -> None:
    norm = stochastic(norm_with_past(64), p)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    taken = []
    for _ in range(100):
        x = torch.randn(4, 64, 3, 3, generator=generator) + 3
        with torch.no_grad():
            out = norm(x)
        centred = (out.mean((0, 2, 3)) - norm.bias.detach()).abs() < 1e-4  # as what the batch normalised is
        taken.append(centred.double().mean().item())
    spread = (p * (1 - p) / (64 * 100)) ** 0.5
    assert abs(sum(taken) / 100 - p) < 4 * spread
    assert len(set(taken)) > 10


def test_stochnorm_follows_torchs_random_state() -> None:
    def outputs(seed: int) -> torch.Tensor:
        _, built = entered(with_p(0.5))
        torch.manual_seed(seed)
        with torch.no_grad():
            return built.model.backbone(images_of(0))

    assert torch.equal(outputs(1), outputs(1))
    assert not torch.allclose(outputs(1), outputs(2), rtol=1e-2)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_stochnorm_moves_the_statistics_once_a_step_as_batch_norm_does(momentum: float | None) -> None:
    norm = norm_with_past(momentum=momentum)
    plain = copy.deepcopy(norm)
    stochastic(norm, 0.5)
    for seed in range(4):
        x = torch.randn(6, 16, 5, 5, generator=torch.Generator().manual_seed(seed))
        norm(x)
        plain(x)
        assert same(buffers_of(norm), buffers_of(plain))
    assert int(norm.num_batches_tracked) == 4  # type: ignore[arg-type]


def test_stochnorm_evaluates_with_the_running_statistics_and_moves_none() -> None:
    module, built = entered(with_p(0.5))
    plain = copy.deepcopy(built.model.backbone)
    for norm in norms_of(plain):
        norm.__dict__.pop("forward")
    module.eval()
    before = buffers_of(module)
    with torch.no_grad():
        assert torch.equal(built.model.backbone(images_of(0)), plain.eval()(images_of(0)))
    assert same(buffers_of(module), before)


@pytest.mark.parametrize("normalization", ["stochnorm", "batch_stats"])
def test_a_deep_copy_works_by_itself(normalization: str) -> None:
    _, built = entered(FullConfig(normalization=normalization, stochnorm_p=0.5))
    before = buffers_of(built.model.backbone)
    copied = copy.deepcopy(built.model.backbone)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.5)
        torch.manual_seed(0)
        theirs = copied(images_of(0))
        assert same(buffers_of(built.model.backbone), before)
        assert same(buffers_of(copied), before) == (normalization == "batch_stats")
        torch.manual_seed(0)
        ours = built.model.backbone(images_of(0))
    assert not torch.allclose(theirs, ours, rtol=1e-2)
    _, other = entered(FullConfig(normalization=normalization, stochnorm_p=0.5))
    with torch.no_grad():
        torch.manual_seed(0)
        assert torch.equal(other.model.backbone(images_of(0)), ours)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_groups_stay_in_evaluation_mode_under_every_policy(name: str, policy: str) -> None:
    module, built = entered(LastKConfig(k=2, normalization=policy), name)
    group_of = built.layers.group_of()
    before = {key: value.clone() for key, value in built.model.state_dict().items()}
    steps(module, SIZE)
    frozen = {key for key in before if group_of[key] not in module.plan.ever_trained}
    assert any(key.endswith("running_mean") for key in frozen)
    for key, value in built.model.state_dict().items():
        assert key not in frozen or torch.equal(value, before[key]), key
    moved = {
        key
        for key, value in built.model.state_dict().items()
        if "running" in key and not torch.equal(value, before[key])
    }
    expected = {key for key in before if "running" in key and key not in frozen}
    assert moved == (expected if policy in ("train", "stochnorm") else set())
    assert expected
    for prefix, norm in built.model.named_modules():
        if isinstance(norm, _BatchNorm) and f"{prefix}.running_mean" in frozen:
            assert not norm.training
            assert "forward" not in norm.__dict__
            assert not norm._forward_pre_hooks


@pytest.mark.parametrize("policy", POLICIES)
def test_a_probe_is_the_same_under_every_policy(policy: str) -> None:
    module, built = entered(LinearProbeConfig(normalization=policy))
    plain = copy.deepcopy(built.model.backbone).eval()
    before = buffers_of(module)
    with torch.no_grad():
        assert torch.equal(built.model.backbone(images_of(0)), plain(images_of(0)))
    steps(module, SIZE)
    assert same(buffers_of(module), before)


def test_policies_switch_with_the_phases_and_are_taken_off_again() -> None:
    everything = ["*"]
    listed = [{"start": i, "groups": everything, "normalization": policy} for i, policy in enumerate(POLICIES[1:])]
    listed.append({"start": 3, "groups": everything})
    module, built = entered(PhasesConfig(phases=listed, unit="step", stochnorm_p=0.5))
    assert [phase.normalization for phase in module.plan.phases] == ["eval", "batch_stats", "stochnorm", "train"]
    plain = copy.deepcopy(built.model.backbone)
    for step, moves in enumerate((False, False, True, True)):
        module.enter(module.plan.at(step))
        before = buffers_of(built.model.backbone)
        with torch.no_grad():
            built.model.backbone(images_of(step))
        assert same(buffers_of(built.model.backbone), before) != moves
    for norm, original in zip(norms_of(built.model.backbone), norms_of(plain), strict=True):
        assert norm.training
        assert "forward" not in norm.__dict__
        assert not norm._forward_pre_hooks
        assert not norm._forward_hooks
        norm.load_state_dict(original.state_dict())
    with torch.no_grad():
        assert torch.equal(built.model.backbone(images_of(9)), plain.train()(images_of(9)))


def test_a_phase_of_its_own_goes_before_the_strategys() -> None:
    module, _ = entered(
        PhasesConfig(
            phases=[{"start": 0, "groups": ["*"]}, {"start": 2, "groups": ["*"], "normalization": "batch_stats"}],
            unit="step",
            normalization="eval",
        )
    )
    assert [phase.normalization for phase in module.plan.phases] == ["eval", "batch_stats"]


@pytest.mark.parametrize("policy", ["train", "eval", "batch_stats"])
def test_lp_ft_switches_at_the_boundary(run_tiny: RunTiny, policy: str) -> None:
    """Statistics move in the second part alone, and only where its policy says so."""
    from headstart import load

    folder, record = run_tiny(
        "strategy=lp_ft",
        f"strategy.normalization=[eval,{policy}]",
        "trainer.max_epochs=2",
        "trainer.checkpoint=last",
    )
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["strategy"]["normalization"] == ["eval", policy]
    assert [phase["normalization"] for phase in record.plan] == ["eval", policy]
    start = record.plan[1]["start"]
    model, _ = load(folder)
    counts = {int(norm.num_batches_tracked) for norm in norms_of(model)}  # type: ignore[arg-type]
    assert counts == ({start} if policy == "train" else {0})  # the second part is as long as the first
    mean = norms_of(model)[0].running_mean
    assert mean is not None
    assert bool(mean.any()) == (policy == "train")


def test_one_policy_is_saved_once_per_phase(run_tiny: RunTiny) -> None:
    folder, record = run_tiny("strategy=full", "strategy.normalization=stochnorm", "strategy.stochnorm_p=0.3")
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["strategy"]["normalization"] == ["stochnorm"]
    assert saved["strategy"]["stochnorm_p"] == 0.3
    assert [phase["normalization"] for phase in record.plan] == ["stochnorm"]


def test_the_policy_and_p_change_what_comes_out(run_tiny: RunTiny) -> None:
    given = [(policy, 0.5) for policy in POLICIES] + [("stochnorm", 0.1)]
    found = [
        run_tiny("strategy=full", f"strategy.normalization={policy}", f"strategy.stochnorm_p={p}")[1]
        for policy, p in given
    ]
    assert len({record.predictions_sha256 for record in found}) == len(given)
    assert len({record.config_hash for record in found}) == len(given)


@pytest.mark.parametrize(
    ("strategy", "name", "said"),
    [
        (FullConfig(normalization="stochnorm"), "test_convnext", "this backbone has none"),
        (LpFtConfig(normalization=["train", "eval", "eval"]), "test_resnet", "3 policies, 2 phases"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(strategy: StrategyConfig, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        module_of(name, SIZE, strategy)
    assert "\n" not in str(caught.value)


def test_the_momentum_is_what_moves_the_running_statistics(run_tiny: RunTiny) -> None:
    """After one step: mean = (1 - m) * 0 + m * the batch's, so twice the momentum is twice the mean."""
    from headstart import load

    means = {}
    for momentum in ("0.05", "0.1", "by_epoch"):
        folder, _ = run_tiny(
            "strategy=full", f"strategy.batch_norm_momentum={momentum}", "trainer.max_epochs=null", "trainer.max_steps=1",
            "data.batch_size=10", "trainer.checkpoint=last",
        )  # fmt: skip
        model, _ = load(folder)
        means[momentum] = norms_of(model)[0].running_mean.double()  # type: ignore[union-attr]
        saved = yaml.safe_load((folder / "config.yaml").read_text())["strategy"]["batch_norm_momentum"]
        assert saved == (0.1 if momentum == "by_epoch" else float(momentum))
    assert bool(means["0.05"].any())
    torch.testing.assert_close(means["0.1"], 2 * means["0.05"], rtol=1e-5, atol=1e-7)
    assert torch.equal(means["by_epoch"], means["0.1"])


@pytest.mark.parametrize(("steps", "wanted"), [(50, 0.1), (100, 0.1), (200, 0.05), (1000, 0.01)])
def test_by_epoch_is_ten_steps_of_an_epoch_at_most_a_tenth(steps: int, wanted: float) -> None:
    """SimCLR, appendix B.8: max(1 - 10 / s, 0.9) is kept of the old."""
    built = entered(FullConfig())[1]
    found = resolve_strategy(FullConfig(batch_norm_momentum="by_epoch"), built.layers, Timing(10 * steps, steps))
    assert found.batch_norm_momentum == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("quick", "must be a number up to 1, or by_epoch"),
        ("true", "must be a number"),
        ("0", "must be above 0"),
        ("1.5", "must be at most 1"),
    ],
)
def test_a_momentum_that_cannot_be_is_refused(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([f"strategy.batch_norm_momentum={value}"])
