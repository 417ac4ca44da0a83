"""LoRA, SSF, adapters and visual prompts: they alone train, they fold where they can, and runs keep them."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from tests.conftest import RunTiny, tiny_config
from timm.layers import ScaledStdConv2d
from torch import nn
from torch.nn.utils import parametrize

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.optimizer import AdamWConfig
from headstart.config.schema.strategy import (
    AdapterConfig,
    LoraConfig,
    SsfConfig,
    StrategyConfig,
    VisualPromptsConfig,
)
from headstart.errors import ConfigError, WeightsError
from headstart.models.classifier import Built, build_classifier, full_name
from headstart.strategies import Timing, build_plan
from headstart.strategies.additions import attach, fold, folded_state, ssf
from headstart.training.module import TransferModule
from headstart.training.schedules import constant

VIT = ("backbone.name=test_vit", "data.image_size=32")
PLACES = (
    ("lora", "test_vit", 160),
    ("lora", "test_resnet", 64),
    ("lora", "test_efficientnet", 64),
    ("ssf", "test_vit", 160),
    ("ssf", "test_efficientnet", 64),
    ("adapter", "test_vit", 160),
    ("adapter", "test_convnext", 64),
    ("visual_prompts", "test_vit", 160),
)
FOLDED = tuple(
    (strategy, name, size)
    for strategy in ("lora", "ssf")
    for name, size in (
        ("test_vit", 160),
        ("test_efficientnet", 64),
        ("test_convnext", 64),
        ("test_resnet", 64),
    )
)
CONFIGS: dict[str, Callable[..., StrategyConfig]] = {
    "lora": LoraConfig,
    "ssf": SsfConfig,
    "adapter": AdapterConfig,
    "visual_prompts": VisualPromptsConfig,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # conftest's fixture puts it back; faster for models so small


def plain(name: str, size: int) -> Built:
    built = build_classifier(
        name=full_name(name, library="timm"), library="timm", head=LinearHeadConfig(), classes=4, channels=3,
        size=(size, size), weights=None, seed=0,
    )  # fmt: skip
    move_statistics(built.model)
    return built


def attached(config: StrategyConfig, name: str, size: int, *, seed: int = 0) -> Built:
    built = plain(name, size)
    return replace(built, layers=attach(config, built.model, built.layers, shape=(3, size, size), seed=seed))


def move_statistics(model: nn.Module) -> None:
    """Running statistics that are no trivial ones; and no scale of 0, which would hide all that is before it."""
    generator = torch.Generator().manual_seed(3)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
        if key.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.add_(1.0 if parameter.ndim == 1 else 0.0)


def added_of(built: Built) -> dict[str, nn.Parameter]:
    named = dict(built.model.named_parameters())
    return {p.name: named[p.name] for group in built.layers.groups for p in group.parameters if p.kind == "added"}


def randomise(built: Built) -> None:
    """Additions far from their start."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in added_of(built).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def images_of(size: int, count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def scores_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = model.eval()(images)
    return scores


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


def module_of(config: StrategyConfig, built: Built) -> TransferModule:
    return TransferModule(
        built.model, layers=built.layers, plan=build_plan(config, built.layers, Timing(10, 5)),
        loss=torch.nn.functional.cross_entropy, optimizer=AdamWConfig(lr=0.01, weight_decay=0.1),
        factor=constant, task="multiclass", seed=0,
    )  # fmt: skip


def train(module: TransferModule, size: int, count: int = 3) -> torch.optim.Optimizer:
    module.enter(module.plan.at(0))
    module.train()
    optimizer: torch.optim.Optimizer = module.configure_optimizers()["optimizer"]
    for step in range(count):
        loss = module.loss(module(images_of(size, seed=step)), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("strategy", "name", "size"), PLACES)
def test_only_what_was_added_trains(strategy: str, name: str, size: int) -> None:
    config = CONFIGS[strategy]()
    built = plain(name, size)
    base = [*built.model.backbone.parameters(), *built.model.backbone.buffers()]  # by identity: names change
    bits = [tensor.detach().clone() for tensor in base]
    built = replace(built, layers=attach(config, built.model, built.layers, shape=(3, size, size), seed=0))
    now = {id(tensor) for tensor in (*built.model.parameters(), *built.model.buffers())}
    assert all(id(tensor) in now for tensor in base)
    added = added_of(built)
    assert added
    assert not {id(p) for p in added.values()} & {id(tensor) for tensor in base}
    head = dict(built.model.head.named_parameters())
    before = {key: p.detach().clone() for key, p in (added | head).items()}
    module = module_of(config, built)
    optimizer = train(module, size)
    assert all(torch.equal(a, b) for a, b in zip(base, bits, strict=True))
    for key, parameter in (added | head).items():
        assert not torch.equal(parameter, before[key]), key
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in (*added.values(), *head.values())}
    assert all(tensor.grad is None for tensor in base)
    assert module.plan.count_trainable(built.layers) == sum(p.numel() for p in (*added.values(), *head.values()))


@pytest.mark.parametrize(("strategy", "name", "size"), PLACES)
def test_every_tensor_is_in_exactly_one_group(strategy: str, name: str, size: int) -> None:
    before = plain(name, size)
    built = attached(CONFIGS[strategy](), name, size)
    listed = [key for group in built.layers.groups for key in (*(p.name for p in group.parameters), *group.buffers)]
    assert len(listed) == len(set(listed))
    parameters, buffers = dict(built.model.named_parameters()), dict(built.model.named_buffers())
    assert set(listed) == set(parameters) | set(buffers)
    assert built.layers.names == before.layers.names
    assert built.layers.groups[-1].parameters == before.layers.groups[-1].parameters
    sizes = {group.name: group.size for group in before.layers.groups}
    for group in built.layers.groups:
        base = [p for p in group.parameters if p.kind != "added"]
        assert sum(p.size for p in base) == sizes[group.name]
        assert all(p.size == parameters[p.name].numel() for p in group.parameters)


def test_an_addition_belongs_to_the_group_that_it_stands_in() -> None:
    for config in (LoraConfig(), AdapterConfig(), VisualPromptsConfig()):
        built = attached(config, "test_vit", 160)
        for group in built.layers.groups:
            for p in group.parameters:
                if p.kind == "added":
                    assert p.name.startswith(f"backbone.blocks.{group.name.removeprefix('block.')}."), p.name


@pytest.mark.parametrize(
    ("strategy", "name", "size"), [place for place in PLACES if place[0] in ("lora", "adapter")]
)
def test_the_identity_at_first(strategy: str, name: str, size: int) -> None:
    built = plain(name, size)
    expected = scores_of(built.model, images_of(size))
    attach(CONFIGS[strategy](), built.model, built.layers, shape=(3, size, size), seed=0)
    assert torch.equal(scores_of(built.model, images_of(size)), expected)


def test_ssf_begins_near_the_identity_and_with_no_spread_at_it() -> None:
    built = plain("test_vit", 160)
    expected = scores_of(built.model, images_of(160))
    assert torch.equal(
        scores_of(attached(SsfConfig(init_std=0.0), "test_vit", 160).model, images_of(160)), expected
    )
    near, far = (
        relative(scores_of(attached(SsfConfig(init_std=std), "test_vit", 160).model, images_of(160)), expected)
        for std in (1e-4, 0.02)
    )
    assert 0 < near < 0.02 < far
    added = added_of(attached(SsfConfig(init_std=0.1), "test_vit", 160))
    scales = torch.cat([p.detach() for key, p in added.items() if key.endswith("scale")])
    shifts = torch.cat([p.detach() for key, p in added.items() if key.endswith("shift")])
    assert len(scales) == len(shifts) > 1000
    assert abs(float(scales.mean()) - 1) < 0.01
    assert abs(float(shifts.mean())) < 0.01
    assert abs(float(scales.std()) - 0.1) < 0.01
    assert abs(float(shifts.std()) - 0.1) < 0.01


@pytest.mark.parametrize("strategy", list(CONFIGS))
def test_initial_values_come_from_the_seed_and_touch_no_other_state(strategy: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = added_of(attached(CONFIGS[strategy](), "test_vit", 160))
    assert torch.equal(torch.rand(3), expected)
    again, other = (added_of(attached(CONFIGS[strategy](), "test_vit", 160, seed=seed)) for seed in (0, 1))
    assert all(torch.equal(p, again[key]) for key, p in one.items())
    assert any(not torch.equal(p, other[key]) for key, p in one.items())


def check_fold(strategy: str, name: str, size: int) -> None:
    built = attached(CONFIGS[strategy](), name, size)
    start = scores_of(built.model, images_of(size))
    randomise(built)
    expected = scores_of(built.model, images_of(size))
    assert relative(start, expected) > 1e-2
    names = set(plain(name, size).model.state_dict())
    before = {key: value.clone() for key, value in built.model.state_dict().items()}

    state = folded_state(built.model)
    assert set(state) == names
    loaded = plain(name, size)
    loaded.model.load_state_dict(state, strict=True)
    assert relative(scores_of(loaded.model, images_of(size)), expected) < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in built.model.state_dict().items())
    assert torch.equal(scores_of(built.model, images_of(size)), expected)

    fold(built.model)
    assert set(built.model.state_dict()) == names
    assert relative(scores_of(built.model, images_of(size)), expected) < 1e-5
    assert {type(m) for m in built.model.modules()} == {type(m) for m in loaded.model.modules()}
    assert {key for key, _ in built.model.named_parameters()} == {key for key, _ in loaded.model.named_parameters()}


@pytest.mark.parametrize(("strategy", "name", "size"), FOLDED)
def test_folding_gives_the_same_outputs_under_plain_names(strategy: str, name: str, size: int) -> None:
    check_fold(strategy, name, size)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["lora", "ssf"])
def test_folding_a_swin(strategy: str) -> None:
    check_fold(strategy, "swin_tiny_patch4_window7_224", 224)


@pytest.mark.parametrize("strategy", list(CONFIGS))
def test_without_additions_nothing_is_folded(strategy: str) -> None:
    built = attached(CONFIGS[strategy](), "test_vit", 160)
    expected = scores_of(built.model, images_of(160))
    state = folded_state(built.model)
    if strategy in ("adapter", "visual_prompts"):  # these stay
        assert set(state) == set(built.model.state_dict())
        fold(built.model)
        assert torch.equal(scores_of(built.model, images_of(160)), expected)
        assert set(added_of(built)) <= set(built.model.state_dict())
    else:
        assert len(state) < len(built.model.state_dict())


def test_lora_is_its_published_formula() -> None:
    built = attached(LoraConfig(rank=3, alpha=6.0), "test_vit", 160)
    qkv: Any = built.model.backbone.get_submodule("blocks.0.attn.qkv")
    randomise(built)
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    a, b = (module["default"].weight.double() for module in (qkv.lora_A, qkv.lora_B))
    assert a.shape == (3, 64)
    assert b.shape == (192, 3)
    weight = qkv.base_layer.weight.double() + 6.0 / 3 * b @ a
    expected = x.double() @ weight.T + qkv.base_layer.bias.double()
    assert relative(qkv(x).double(), expected) < 1e-6


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_loras_dropout_is_active_in_training_alone(dropout: float) -> None:
    config = LoraConfig(dropout=dropout)
    built = attached(config, "test_vit", 160)
    randomise(built)
    module = module_of(config, built)
    module.enter(module.plan.at(0))
    module.train()
    frozen = [m for name, m in built.model.backbone.named_modules() if isinstance(m, nn.LayerNorm) or name == ""]
    assert not any(m.training for m in frozen)
    with torch.no_grad():
        one, other = (built.model.backbone(images_of(160)) for _ in range(2))
        assert torch.equal(one, other) == (dropout == 0.0)
        module.eval()
        one, other = (built.model.backbone(images_of(160)) for _ in range(2))
    assert torch.equal(one, other)


def wrapped(built: Built) -> list[str]:
    return [name for name, m in built.model.backbone.named_modules() if hasattr(m, "lora_A")]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eva02_tiny_patch14_224", 224),
        pytest.param("swinv2_tiny_window8_256", 256, marks=pytest.mark.slow),
        pytest.param("beit_base_patch16_224", 224, marks=pytest.mark.slow),
        pytest.param("xcit_nano_12_p16_224", 224, marks=pytest.mark.slow),
    ],
)
def test_lora_is_refused_or_works_where_attention_uses_its_weights_itself(name: str, size: int) -> None:
    """Attention that computes with `self.qkv.weight` never calls the layer: what is wrapped there has no effect."""
    built = plain(name, size)
    try:
        built = replace(
            built, layers=attach(LoraConfig(), built.model, built.layers, shape=(3, size, size), seed=0)
        )
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    randomise(built)
    scores = built.model.eval()(images_of(size, count=2))
    scores.square().sum().backward()
    dead = [key for key, p in added_of(built).items() if p.grad is None or not p.grad.any()]
    assert not dead, dead[:2]
    fold(built.model)
    assert relative(scores_of(built.model, images_of(size, count=2)), scores) < 1e-5


def test_a_target_is_no_suffix_of_others() -> None:
    """peft takes a name for the end of names too; ours are exact."""
    built = attached(LoraConfig(targets=["conv1"]), "resnet18", 32)
    assert wrapped(built) == ["conv1"]


def test_loras_targets() -> None:
    assert wrapped(attached(LoraConfig(), "test_vit", 160)) == [
        f"blocks.{i}.attn.{name}" for i in range(6) for name in ("qkv", "proj")
    ]
    assert wrapped(attached(LoraConfig(targets=["*.mlp.fc1"]), "test_vit", 160)) == [
        f"blocks.{i}.mlp.fc1" for i in range(6)
    ]
    one = attached(LoraConfig(targets=["blocks.1.attn.qkv"], rank=3), "test_vit", 160)
    assert wrapped(one) == ["blocks.1.attn.qkv"]  # not blocks.11... and none that only ends so
    assert sum(p.numel() for p in added_of(one).values()) == 3 * (64 + 192)
    convolutional = attached(LoraConfig(), "test_efficientnet", 64)
    grouped = {
        name for name, m in plain("test_efficientnet", 64).model.backbone.named_modules()
        if isinstance(m, nn.Conv2d) and m.groups > 1
    }  # fmt: skip
    assert grouped
    assert not grouped & set(wrapped(convolutional))
    assert len(wrapped(convolutional)) > 5


def one_line(error: Any) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_lora_on_a_grouped_convolution_is_refused() -> None:
    built = plain("test_efficientnet", 64)
    with pytest.raises(ConfigError, match="grouped convolution") as caught:
        attach(LoraConfig(targets=["*.conv_dw"]), built.model, built.layers, shape=(3, 64, 64), seed=0)
    assert one_line(caught).startswith("strategy.targets")


@pytest.mark.parametrize("targets", [["blocks.*.atn.qkv"], ["*.qkv", "nothing*"], ["blocks.0.norm1"]])
def test_a_target_that_matches_nothing_is_refused(targets: list[str]) -> None:
    built = plain("test_vit", 160)
    with pytest.raises(ConfigError, match="matches no layer") as caught:
        attach(LoraConfig(targets=targets), built.model, built.layers, shape=(3, 160, 160), seed=0)
    assert repr(targets[-1]) in one_line(caught)


def test_lora_without_peft_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    built = plain("test_vit", 160)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(ConfigError, match=r'pip install "headstart\[lora\]"') as caught:
        attach(LoraConfig(), built.model, built.layers, shape=(3, 160, 160), seed=0)
    one_line(caught)


@pytest.mark.parametrize(
    ("config", "name", "size"),
    [
        (VisualPromptsConfig(), "test_resnet", 64),
        (VisualPromptsConfig(), "test_convnext", 64),
        (AdapterConfig(), "test_resnet", 64),
        (AdapterConfig(places=["attn"]), "test_convnext", 64),
    ],
)
def test_a_backbone_without_a_place_is_refused(config: StrategyConfig, name: str, size: int) -> None:
    built = plain(name, size)
    before = {key: value.clone() for key, value in built.model.state_dict().items()}
    with pytest.raises(ConfigError, match=f"strategy={config.name}") as caught:
        attach(config, built.model, built.layers, shape=(3, size, size), seed=0)
    one_line(caught)
    assert set(built.model.state_dict()) == set(before)


def test_it_is_refused_before_anything_is_written(run_tiny: RunTiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="strategy=visual_prompts"):
        run_tiny("strategy=visual_prompts")
    assert not list((tmp_path / "outputs").rglob("run.json"))


@pytest.mark.parametrize(("deep", "layers"), [(False, 1), (True, 6)])
@pytest.mark.parametrize("tokens", [1, 7])
def test_visual_prompts_count_and_leave_the_other_tokens(deep: bool, layers: int, tokens: int) -> None:
    built = attached(VisualPromptsConfig(tokens=tokens, deep=deep), "test_vit", 160)
    assert sum(p.numel() for p in added_of(built).values()) == tokens * 64 * layers
    backbone: Any = built.model.backbone
    inside: list[int] = []
    hooks = [
        block.norm1.register_forward_hook(lambda m, i, o: inside.append(o.shape[1])) for block in backbone.blocks
    ]
    with torch.no_grad():
        out = backbone.eval().forward_features(images_of(160))
    for hook in hooks:
        hook.remove()
    own = 1 + (160 // 16) ** 2
    assert inside == [own + tokens] * 6
    assert out.shape == (4, own, 64)


@pytest.mark.parametrize("deep", [False, True])
def test_visual_prompts_are_what_the_paper_says(deep: bool) -> None:
    """[class, prompts, patches] through each block, computed directly; deep ones are replaced at each."""
    built = attached(VisualPromptsConfig(tokens=3, deep=deep), "test_vit", 160)
    prompts = [p.detach() for p in added_of(built).values()]
    images = images_of(160)
    vit: Any = copy.deepcopy(plain("test_vit", 160).model.backbone).eval()
    with torch.no_grad():
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for i, block in enumerate(vit.blocks):
            if i == 0:
                x = torch.cat([x[:, :1], prompts[0].expand(4, -1, -1), x[:, 1:]], dim=1)
            elif deep:
                x = torch.cat([x[:, :1], prompts[i].expand(4, -1, -1), x[:, 4:]], dim=1)
            x = block(x)
        expected = vit.forward_head(vit.norm(torch.cat([x[:, :1], x[:, 4:]], dim=1)))
        found = built.model.backbone.eval()(images)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("places", [["attn"], ["mlp"], ["attn", "mlp"]])
def test_an_adapters_width_and_places_are_its_count(width: int, places: list[str]) -> None:
    built = attached(AdapterConfig(width=width, places=places), "test_vit", 160)
    assert sum(p.numel() for p in added_of(built).values()) == 6 * len(places) * (2 * 64 * width + width + 64)


def test_an_adapter_is_added_to_what_its_layer_gives() -> None:
    built = attached(AdapterConfig(width=5), "test_vit", 160)
    randomise(built)
    mlp: Any = built.model.backbone.get_submodule("blocks.2.mlp")
    original: Any = plain("test_vit", 160).model.backbone.get_submodule("blocks.2.mlp")
    x = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    adapter = mlp.headstart_adapter
    h = original.double()(x.double())
    inner = torch.nn.functional.gelu(h @ adapter.down.weight.double().T + adapter.down.bias.double())
    expected = h + inner @ adapter.up.weight.double().T + adapter.up.bias.double()
    assert relative(mlp(x).double(), expected) < 1e-6


def test_ssf_scales_and_shifts_the_output_of_its_layer() -> None:
    built = attached(SsfConfig(init_std=0.3), "test_convnext", 64)
    original = dict(plain("test_convnext", 64).model.backbone.named_modules())
    checked: set[str] = set()
    for name, module in built.model.backbone.named_modules():
        parts: Any = getattr(module, "parametrizations", None)
        before = original.get(name)
        if parts is None or not isinstance(before, nn.Linear | nn.Conv2d | nn.LayerNorm):
            continue
        scale, shift = parts.weight[0].scale.double(), parts.bias[0].shift.double()
        last = not isinstance(before, nn.Conv2d) and "2d" not in type(before).__name__
        width = before.in_channels if isinstance(before, nn.Conv2d) else int(before.weight.shape[-1])
        x = torch.randn((2, 8, 8, width) if last else (2, width, 8, 8), generator=torch.Generator().manual_seed(0))
        view = (-1,) if last else (1, -1, 1, 1)
        expected = before.double()(x.double()) * scale.view(view) + shift.view(view)
        assert relative(module(x).double(), expected) < 1e-6, name
        checked.add(type(before).__name__)
    assert {"Linear", "Conv2d", "LayerNorm2d"} <= checked


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


@pytest.mark.parametrize("strategy", list(CONFIGS))
def test_a_run_comes_back_with_the_same_predictions(run_tiny: RunTiny, strategy: str) -> None:
    import headstart
    from headstart.preparation import prepare

    overrides = (f"strategy={strategy}", *VIT, "optimizer.lr=0.01")
    folder, record = run_tiny(*overrides)
    assert record.status == "completed"
    assert record.plan[0]["kinds"] == ["added"]
    model, _ = headstart.load(folder)
    data = prepare(tiny_config(*overrides)).data
    found = []
    with torch.no_grad():
        for batch in data.test_dataloader():
            found.append(model(data.on_after_batch_transfer(batch, 0)["image"]).softmax(1))
    saved = predictions(folder)
    expected = np.stack(list(saved["probability"]))
    assert len(expected) == 100
    assert np.allclose(torch.cat(found).numpy(), expected, rtol=1e-4, atol=1e-5)

    if strategy in ("lora", "ssf"):
        again, taken = run_tiny("strategy=linear_probe", *VIT, "weights=run", f"weights.path={folder}")
        assert taken.status == "completed"
        ours = headstart.load(again)[0].backbone.state_dict()  # type: ignore[union-attr]
        theirs = model.backbone.state_dict()  # type: ignore[union-attr]
        assert ours.keys() == theirs.keys() == timm.create_model("test_vit", num_classes=0).state_dict().keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    else:
        with pytest.raises(WeightsError, match=f"strategy={strategy}") as caught:
            run_tiny("strategy=linear_probe", *VIT, "weights=run", f"weights.path={folder}")
        one_line(caught)


OPTIONS = {
    "lora": [
        "rank=2",
        "alpha=2",
        "dropout=0.5",
        "targets=['*.mlp.fc1']",
    ],
    "ssf": ["init_std=0.2"],
    "adapter": ["width=4", "places=[attn]", "places=[mlp]"],
    "visual_prompts": ["tokens=3", "deep=false"],
}


@pytest.mark.parametrize("strategy", list(OPTIONS))
def test_every_option_has_an_effect(run_tiny: RunTiny, strategy: str) -> None:
    small = (*VIT, "optimizer.lr=0.01", "data.train_size=64", "data.test_size=20", "data.batch_size=16")
    digests = [run_tiny(f"strategy={strategy}", *small)[1].predictions_sha256]
    for option in OPTIONS[strategy]:
        digests.append(run_tiny(f"strategy={strategy}", f"strategy.{option}", *small)[1].predictions_sha256)
    assert len(set(digests)) == len(digests)


@pytest.mark.slow
def test_peft_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "import headstart.experiment, headstart.strategies.additions\n"
        "from headstart.config.compose import compose\n"
        "compose(['strategy=lora', 'weights=scratch'])\n"
        "compose(['strategy=ssf', 'weights=scratch'])\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'peft']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_layers_that_standardise_their_weight_are_left_out() -> None:
    """Their update would not fold: W + BA, standardised, is not W standardised + BA."""
    built = plain("resnetv2_50x1_bit", 64)
    with pytest.raises(ConfigError, match="no linear or ungrouped convolutional layer that it fits"):
        attach(LoraConfig(), built.model, built.layers, shape=(3, 64, 64), seed=0)
    targets = LoraConfig(targets=["stages.0.blocks.0.conv1"])
    with pytest.raises(ConfigError, match=r"conv1 \(StdConv2d\) changes its weight before it uses it"):
        attach(targets, built.model, built.layers, shape=(3, 64, 64), seed=0)
    places = [ScaledStdConv2d(3, 4, 3), nn.Conv2d(4, 4, 3)]
    ssf.attach(nn.Sequential(*places), SsfConfig())
    assert [parametrize.is_parametrized(place) for place in places] == [False, True]


def test_lora_at_a_size_that_is_not_the_backbones_own() -> None:
    built = plain("mixer_s32_224", 64)
    attach(LoraConfig(), built.model, built.layers, shape=(3, 64, 64), seed=0)
    scores_of(built.model, images_of(64))


def test_folding_leaves_copies_as_they_are(run_tiny: RunTiny) -> None:
    """The copy of the start that features are compared with when training is over, for one."""
    backbone = timm.create_model("test_vit", num_classes=0).eval()
    ssf.attach(backbone, SsfConfig(init_std=0.1))
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        before, kept = backbone(images), copy.deepcopy(backbone)
        fold(backbone)
        assert torch.allclose(backbone(images), before, atol=1e-5)
        assert torch.equal(kept(images), before)
        fold(kept)
        assert torch.allclose(kept(images), before, atol=1e-5)
    assert type(backbone.blocks[0].mlp.fc1) is nn.Linear
    source, _ = run_tiny("backbone.name=test_vit", "data.image_size=160")
    _, record = run_tiny(
        "backbone.name=test_vit", "data.image_size=160", "weights=run", f"weights.path={source}", "strategy=ssf"
    )
    assert record.drift["linear_cka"] is not None
