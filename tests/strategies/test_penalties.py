"""Penalties: each by its formula in float64, what they learn before the first step, and what they go with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import RunTiny, tiny_config
from tests.models.test_layer_groups import build
from tests.test_experiment import write_two_colours

from headstart.config.schema.regularizer import BssConfig, DeltaConfig, L2SpConfig
from headstart.config.schema.strategy import OPTIONS as STRATEGIES
from headstart.config.schema.strategy import (
    BitFitConfig,
    FullConfig,
    GroupsConfig,
    LastKConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError, HeadstartError, WeightsError
from headstart.facts import DataFacts
from headstart.models.classifier import Built
from headstart.preparation import Prepared, prepare
from headstart.records.tables import read_rows
from headstart.resolve import resolve_for_data
from headstart.seeds import derive
from headstart.strategies import Timing, build_plan
from headstart.strategies.penalties import Parts, Step
from headstart.strategies.penalties.attention import draw_images, pick, standardised_softmax, train_head
from headstart.strategies.penalties.bss import Bss
from headstart.strategies.penalties.co_tuning import CoTuning
from headstart.strategies.penalties.delta import Delta
from headstart.strategies.penalties.l2_sp import L2Sp
from headstart.training.freezing import set_trainable
from headstart.training.module import TransferModule

REL = 1e-6
VIT = ("backbone.name=test_vit", "data.image_size=160", "data.train_size=40", "data.test_size=20")


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def drawn() -> torch.Generator:
    """Other numbers every time."""
    generator = torch.Generator()
    generator.seed()
    return generator


@pytest.fixture
def pretrained(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Overrides for weights of a backbone, drawn at random, with a classifier of 7 source classes."""

    def make(name: str = "test_resnet") -> tuple[str, str]:
        torch.manual_seed(1)
        model = timm.create_model(name, num_classes=7)
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.1 if p.ndim > 1 else 0.5)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
        return "weights=file", f"weights.path={tmp_path / name}.safetensors"

    return make


def random_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)


def parts_of(
    name: str, size: int, drawn: torch.Generator, *, strategy: StrategyConfig | None = None, batch_size: int = 32
) -> tuple[Parts, Built]:
    """What a penalty is built from, the backbone's start drawn at random."""
    built = build(name, size)
    plan = build_plan(strategy or FullConfig(), built.layers, Timing(10, 5))
    set_trainable(built.model, built.layers, plan.at(0))
    with torch.no_grad():
        for p in built.model.parameters():
            p.add_(random_like(p, drawn), alpha=0.1)
    start = copy.deepcopy(built.model.backbone).requires_grad_(False).eval()
    facts = DataFacts(
        task="multiclass", class_names=tuple("abcdefg"), channels=3, image_size=(size, size), sizes={},
        class_counts={}, fingerprint="", split_fingerprint="",
    )  # fmt: skip
    head = torch.nn.Linear(built.model.head[-1].in_features, 5)  # type: ignore[index]
    return Parts(built.model, built.layers, plan, facts, lambda: start, lambda: head, name, batch_size, 0), built


def perturb(model: torch.nn.Module, drawn: torch.Generator) -> None:
    """Every parameter and running statistic somewhere else."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(random_like(p, drawn), alpha=0.1)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.add_(random_like(buffer, drawn).abs() if "var" in name else random_like(buffer, drawn))


def step_of(images: torch.Tensor, targets: torch.Tensor, model: Any) -> Step:
    features = model.backbone(images)
    return Step(images, targets, features, model.head(features))


def value_of(penalty: torch.nn.Module, step: Step) -> float:
    return float(penalty(step).detach())


def twice(step: Step) -> Step:
    return Step(*(torch.cat([value, value]) for value in (step.images, step.targets, step.features, step.scores)))


def squares(tensors: Any) -> float:
    return float(sum(np.square(tensor.detach().numpy()).sum() for tensor in tensors))


# --- L2-SP


@pytest.mark.parametrize(
    "strategy",
    [FullConfig(), LastKConfig(k=2), GroupsConfig(groups=["stem"]), BitFitConfig()],
    ids=lambda s: s.name,
)
@pytest.mark.usefixtures("double")
def test_l2_sp_by_its_formula_and_its_gradient(strategy: StrategyConfig, drawn: torch.Generator) -> None:
    parts, built = parts_of("test_resnet", 32, drawn, strategy=strategy)
    alpha, beta = torch.rand(2, generator=drawn).tolist()
    penalty = L2Sp(L2SpConfig(alpha=alpha, beta=beta), parts)
    start = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    perturb(built.model, drawn)
    images = torch.randn(4, 3, 32, 32, generator=drawn)
    step = step_of(images, torch.arange(4), built.model)
    value = penalty(step)
    assert value_of(penalty, twice(step)) == float(value.detach())
    named = dict(built.model.named_parameters())
    kind = {p.name: (group.name, p.kind) for group in built.layers.groups for p in group.parameters}
    moving = [n for n in named if n.startswith("backbone.") and parts.plan.ever_trains(*kind[n])]
    head = [named[n] for n in named if n.startswith("head.")]
    expected = alpha / 2 * squares(named[n] - start[n] for n in moving) + beta / 2 * squares(head)
    assert float(value.detach()) == pytest.approx(expected, rel=REL)
    value.backward()
    for name, p in named.items():
        if name in moving:
            assert torch.allclose(p.grad, alpha * (p.detach() - start[name]), rtol=REL, atol=1e-12)
        elif name.startswith("head."):
            assert torch.allclose(p.grad, beta * p.detach(), rtol=REL, atol=1e-12)
        else:
            assert p.grad is None
    assert moving


def test_l2_sp_is_nothing_at_the_start_but_for_the_head(pretrained: Callable[..., tuple[str, str]]) -> None:
    prepared = prepare(tiny_config(*pretrained(), "regularizer=l2_sp", "regularizer.l2_sp.beta=0"))
    model = prepared.built.model
    step = step_of(torch.randn(2, 3, 32, 32), torch.arange(2), model.eval())
    assert value_of(prepared.penalties["l2_sp"], step) == 0
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    assert value_of(prepared.penalties["l2_sp"], step) == 0, "running statistics are not held"


# --- DELTA


def maps_of(backbone: torch.nn.Module, taps: tuple[str, ...], images: torch.Tensor) -> list[np.ndarray]:
    """Copies of what some modules give, with their channels last."""
    kept: dict[str, torch.Tensor] = {}
    handles = [
        backbone.get_submodule(tap).register_forward_hook(lambda m, i, o, tap=tap: kept.update({tap: o.clone()}))
        for tap in taps
    ]
    with torch.no_grad():
        backbone(images)
    for handle in handles:
        handle.remove()
    last = getattr(backbone, "output_fmt", "") == "NHWC"
    return [
        (kept[t] if kept[t].ndim == 3 or last else kept[t].permute(0, 2, 3, 1)).flatten(1, -2).numpy() for t in taps
    ]


DELTAS = (
    ("test_resnet", 32, ("layer1", "layer2", "layer3", "layer4")),
    ("test_vit", 160, ("blocks.2", "blocks.3", "blocks.4", "blocks.5")),
    pytest.param("test_convnext", 32, ("stages.0", "stages.1", "stages.2", "stages.3"), marks=pytest.mark.slow),
    pytest.param("test_efficientnet", 32, None, marks=pytest.mark.slow),
    pytest.param("swin_tiny_patch4_window7_224", 224, None, marks=pytest.mark.slow),
    pytest.param("densenet121", 32, None, marks=pytest.mark.slow),
    pytest.param("vgg11", 32, None, marks=pytest.mark.slow),
)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("name", "size", "taps"), DELTAS)
@pytest.mark.usefixtures("double")
def test_delta_by_its_formula(
    name: str, size: int, taps: tuple[str, ...] | None, attention: bool, drawn: torch.Generator
) -> None:
    parts, built = parts_of(name, size, drawn)
    strength, beta = torch.rand(2, generator=drawn).tolist()
    config = DeltaConfig(strength=strength, beta=beta, attention=attention, taps=list(taps) if taps else None)
    penalty = Delta(config, parts)
    used = penalty.taps if taps is None else taps
    assert len(used) <= 4
    start = copy.deepcopy(parts.reference())
    perturb(built.model, drawn)
    built.model.eval()
    images = torch.randn(4, 3, size, size, generator=drawn)
    now, then = maps_of(built.model.backbone, used, images), maps_of(start, used, images)
    total = 0.0
    for i, (a, b) in enumerate(zip(now, then, strict=True)):
        positions, channels = a.shape[1:]
        weights = np.ones(channels)
        if attention:
            weights = torch.rand(channels, generator=drawn).numpy()
            penalty.get_buffer(f"weights_{i}").copy_(torch.from_numpy(weights))
            weights = weights * channels / positions
        total += (weights * np.square(a - b).sum(axis=1)).sum() / len(images)
    expected = strength / 2 * total + beta / 2 * squares(built.model.head.parameters())
    value = value_of(penalty, step_of(images, torch.arange(4), built.model))
    assert value == pytest.approx(expected, rel=REL)
    again = value_of(penalty, step_of(torch.cat([images, images]), torch.arange(4).repeat(2), built.model))
    assert again == pytest.approx(value, rel=1e-9), "the strength depends on the batch size"


def test_delta_holds_the_maps_and_is_nothing_at_the_start(pretrained: Callable[..., tuple[str, str]]) -> None:
    words = (*pretrained(), "regularizer=delta", "regularizer.delta.beta=0")
    prepared = prepare(tiny_config(*words))
    model, penalty = prepared.built.model.eval(), prepared.penalties["delta"]
    images = torch.randn(2, 3, 32, 32)
    assert value_of(penalty, step_of(images, torch.arange(2), model)) == 0
    last = model.backbone.layer4
    with torch.no_grad():
        next(iter(last.parameters())).mul_(1.5)
    value = penalty(step_of(images, torch.arange(2), model))
    assert float(value.detach()) > 0
    value.backward()
    assert all(p.grad is not None for p in model.backbone.conv1.parameters()), "the gradient reaches the stem"


def batches_of(prepared: Prepared, dtype: torch.dtype = torch.float32) -> Callable[[], Any]:
    """The training split in order, as the module hands it to penalties."""

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in prepared.data.plain_train_dataloader():
            moved = prepared.data.on_after_batch_transfer(batch, 0)
            yield moved["image"].to(dtype), moved["target"]

    return batches


@pytest.mark.slow
def test_deltas_attention_by_its_formula_and_the_backbone_is_untouched(
    pretrained: Callable[..., tuple[str, str]],
) -> None:
    prepared = prepare(
        tiny_config(
            *pretrained(), "regularizer=delta", "regularizer.delta.attention=true", "data.train_size=50",
            "regularizer.delta.attention_epochs=3", "regularizer.delta.attention_batches=2",
            "regularizer.delta.taps=[layer1,layer2]",
        )
    )  # fmt: skip
    penalty, model = prepared.penalties["delta"], prepared.built.model
    assert isinstance(penalty, Delta)
    model.train()
    (reference,) = penalty._reference
    tensors = {**model.state_dict(), **{f"reference.{k}": v for k, v in reference.state_dict().items()}}
    before = {key: value.clone() for key, value in tensors.items()}
    state = torch.get_rng_state()
    penalty.begin(batches_of(prepared))
    assert all(torch.equal(value, before[key]) for key, value in tensors.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert model.backbone.training
    batches = list(batches_of(prepared)())
    images, targets = (torch.cat([pair[i] for pair in batches]) for i in (0, 1))
    exact = copy.deepcopy(reference)
    exact._forward_hooks.clear()
    with torch.no_grad():
        features = torch.cat([exact(x) for x, _ in batches])
        head = train_head(features, targets, classes=10, epochs=3, seed=derive(0, "delta")).double()
        exact = exact.double()
        for i, tap in enumerate(("layer1", "layer2")):
            module = exact.get_submodule(tap)

            def loss(without: int | None, module: torch.nn.Module = module) -> float:
                def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
                    mask = torch.ones(output.shape[1], dtype=torch.float64)
                    if without is not None:
                        mask[without] = 0
                    return output * mask[:, None, None]

                handle = module.register_forward_hook(hook)
                losses = [
                    torch.nn.functional.cross_entropy(head(exact(images[part].double())), targets[part])
                    for part in (slice(0, 32), slice(32, 50))
                ]
                handle.remove()
                return float(sum(losses)) / 2

            found = penalty.get_buffer(f"weights_{i}").double()
            rises = np.array([loss(c) for c in range(len(found))]) - loss(None)
            z = (rises - rises.mean()) / rises.std(ddof=1)
            expected = np.exp(z / 5) / np.exp(z / 5).sum()
            assert found.numpy() == pytest.approx(expected, rel=2e-3)
            assert float(found.sum()) == pytest.approx(1, abs=1e-6)
            assert float(found.max() / found.min()) > 1.1, "channels that all matter alike show nothing"


def test_attention_weights_of_given_rises(drawn: torch.Generator) -> None:
    rises = torch.randn(50, generator=drawn, dtype=torch.float64) * 1e-3
    z = (rises.numpy() - rises.numpy().mean()) / rises.numpy().std(ddof=1)
    expected = np.exp(z / 5) / np.exp(z / 5).sum()
    assert standardised_softmax(rises).numpy() == pytest.approx(expected, rel=REL)
    assert torch.equal(standardised_softmax(torch.full((4,), 0.3)), torch.full((4,), 0.25))


# --- BSS


@pytest.mark.parametrize(("n", "d", "k"), [(20, 8, 1), (20, 8, 3), (8, 20, 2), (8, 8, 8)])
@pytest.mark.usefixtures("double")
def test_bss_by_its_formula(n: int, d: int, k: int, drawn: torch.Generator) -> None:
    parts, _ = parts_of("test_resnet", 32, drawn)
    penalty = Bss(BssConfig(strength=0.7, k=k), parts)
    features = torch.randn(n, d, generator=drawn)
    step = Step(torch.empty(n), torch.empty(n), features, torch.empty(n))
    sigma = np.linalg.svd(features.numpy(), compute_uv=False)
    value = value_of(penalty, step)
    assert value == pytest.approx(0.7 * np.square(sigma[-k:]).sum(), rel=REL)


def test_bss_hardly_depends_on_the_batch_size(drawn: torch.Generator) -> None:
    """Of 1,280 features, as EfficientNet-Lite0 has: four times the images, and much the same penalty."""
    parts, _ = parts_of("test_resnet", 32, drawn)
    penalty = Bss(BssConfig(strength=1.0), parts)
    features = torch.randn(32, 1280, generator=drawn)
    small, large = (penalty(Step(f, f, f, f)) for f in (features[:8], features))
    assert 0.6 < float(large / small) < 1


def test_bss_has_a_gradient_that_shrinks_the_smallest(drawn: torch.Generator) -> None:
    parts, _ = parts_of("test_resnet", 32, drawn)
    penalty = Bss(BssConfig(strength=1.0, k=2), parts)
    features = torch.randn(12, 6, generator=drawn).requires_grad_()
    before = torch.linalg.svdvals(features.detach())
    penalty(Step(features, features, features, features)).backward()
    assert features.grad is not None
    after = torch.linalg.svdvals(features.detach() - 0.5 * features.grad)
    assert torch.allclose(after[:-2], before[:-2], rtol=1e-4)
    assert bool((after[-2:] < before[-2:]).all())


# --- Co-Tuning

LITE = ("backbone.name=tf_efficientnet_lite0", "weights=pretrained", "weights.origin=package", "data.image_size=32")


def whole_lite(prepared: Prepared) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """timm's own model with the package's tensors, in order."""
    assert prepared.weights is not None
    published = list(torch.load(prepared.weights.path, weights_only=True).values())
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), published, strict=True)))
    return model.double().eval(), published


def test_co_tuning_learns_what_the_pretrained_classifier_says_of_each_class() -> None:
    prepared = prepare(tiny_config(*LITE, "regularizer=co_tuning"))
    penalty, model = prepared.penalties["co_tuning"], prepared.built.model
    assert isinstance(penalty, CoTuning)
    whole, published = whole_lite(prepared)
    assert torch.equal(penalty.head.weight, published[-2])
    assert torch.equal(penalty.head.bias, published[-1])
    model.double()
    penalty.double()
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    penalty.begin(batches_of(prepared, torch.float64))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.backbone.training
    said, targets = [], []
    with torch.no_grad():
        for images, target in batches_of(prepared, torch.float64)():
            scores = whole(images).numpy()
            said.append(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
            targets.append(target.numpy())
    p, y = np.concatenate(said), np.concatenate(targets)
    expected = np.stack([p[y == c].mean(axis=0) for c in range(10)])
    assert penalty.relation.numpy() == pytest.approx(expected, rel=REL)
    assert penalty.relation.sum(dim=1).numpy() == pytest.approx(np.ones(10), abs=1e-9)


@pytest.mark.parametrize("strategy", ["full", "lora", "adapter", "ssf", "visual_prompts"])
def test_the_relation_is_that_of_the_backbone_as_it_started(
    strategy: str, pretrained: Callable[..., tuple[str, str]]
) -> None:
    """Whatever a strategy puts into it: what SSF and prompts draw at random is no part of the pretrained model."""
    words = (*VIT, *pretrained("test_vit"), "regularizer=co_tuning")
    prepared = prepare(tiny_config(*words, f"strategy={strategy}"))
    penalty = prepared.penalties["co_tuning"]
    assert isinstance(penalty, CoTuning)
    penalty.begin(batches_of(prepared))
    assert prepared.weights is not None
    whole = timm.create_model("test_vit", num_classes=7, checkpoint_path=str(prepared.weights.path)).eval()
    sums, counts = torch.zeros(10, 7), torch.zeros(10)
    with torch.no_grad():
        for images, targets in batches_of(prepared)():
            sums.index_add_(0, targets, whole(images).softmax(dim=1))
            counts.index_add_(0, targets, torch.ones(len(targets)))
    assert torch.allclose(penalty.relation, sums / counts[:, None], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("double")
def test_co_tuning_by_its_formula(drawn: torch.Generator, pretrained: Callable[..., tuple[str, str]]) -> None:
    prepared = prepare(tiny_config(*pretrained(), "regularizer=co_tuning", "regularizer.co_tuning.strength=1.7"))
    penalty = prepared.penalties["co_tuning"].double()
    assert isinstance(penalty, CoTuning)
    with torch.no_grad():
        for p in penalty.head.parameters():
            p.copy_(random_like(p, drawn))
        penalty.relation.copy_(torch.rand(10, 7, generator=drawn).softmax(dim=1))
    targets = torch.randint(0, 10, (9,), generator=drawn)
    features = torch.randn(9, 96, generator=drawn)
    step = Step(features, targets, features, features)
    w, b = penalty.head.weight.detach().numpy(), penalty.head.bias.detach().numpy()
    scores = features.numpy() @ w.T + b
    logs = (
        scores
        - np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1, keepdims=True))
        - scores.max(1, keepdims=True)
    )
    expected = 1.7 * np.mean(-(penalty.relation.numpy()[targets.numpy()] * logs).sum(axis=1))
    assert value_of(penalty, step) == pytest.approx(expected, rel=REL)
    assert value_of(penalty, twice(step)) == pytest.approx(expected, rel=REL)


def module_of(prepared: Prepared) -> TransferModule:
    config = prepared.config
    return TransferModule(
        prepared.built.model, layers=prepared.built.layers, plan=prepared.plan, optimizer=config.optimizer,
        loss=torch.nn.functional.cross_entropy, factor=prepared.factor, task="multiclass", seed=0,
        penalties=prepared.penalties,
    )  # fmt: skip


PLAIN = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.lr=0.1")


def test_the_sources_head_goes_on_learning_at_the_base_rate(pretrained: Callable[..., tuple[str, str]]) -> None:
    words = (*pretrained(), "regularizer=co_tuning", *PLAIN, "strategy.backbone_lr_mult=0.1", "schedule=constant")
    prepared = prepare(tiny_config(*words))
    penalty = prepared.penalties["co_tuning"]
    assert isinstance(penalty, CoTuning)
    penalty.begin(batches_of(prepared))
    module = module_of(prepared)
    made = module.configure_optimizers()
    images, targets = next(iter(batches_of(prepared)()))
    step = step_of(images, targets, prepared.built.model)
    before = {key: p.detach().clone() for key, p in penalty.head.named_parameters()}
    penalty(step).backward()
    made["optimizer"].step()
    for key, p in penalty.head.named_parameters():
        assert p.grad is not None
        assert bool(p.grad.any())
        assert torch.allclose(before[key] - p.detach(), 0.1 * p.grad, rtol=1e-3, atol=1e-6)
    listed = [id(p) for group in made["optimizer"].param_groups for p in group["params"]]
    assert len(listed) == len(set(listed))


# --- what becomes of weight decay


@pytest.mark.parametrize(
    ("regularizer", "decays"),
    [("l2_sp", False), ("delta", False), ("[delta,bss]", False), ("bss", True), ("", True)],
)
def test_weight_decay_is_off_where_a_penalty_replaces_it(
    regularizer: str, decays: bool, pretrained: Callable[..., tuple[str, str]]
) -> None:
    """Under SGD with zero gradients weight decay is all that moves a weight."""
    words = [*pretrained(), *PLAIN, "optimizer.weight_decay=0.5", "schedule=constant"]
    prepared = prepare(tiny_config(*words, *([f"regularizer={regularizer}"] if regularizer else [])))
    optimizer = module_of(prepared).configure_optimizers()["optimizer"]
    before = {key: p.detach().clone() for key, p in prepared.built.model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in prepared.built.model.named_parameters():
        shrunk = before[key] * (1 - 0.1 * 0.5) if decays and p.ndim > 1 else before[key]
        assert torch.allclose(p, shrunk, rtol=1e-6, atol=0), key
        assert decays or torch.equal(p, before[key])


def test_what_a_strategy_added_still_decays(pretrained: Callable[..., tuple[str, str]]) -> None:
    words = (*VIT, *pretrained("test_vit"), *PLAIN, "optimizer.weight_decay=0.5", "schedule=constant")
    prepared = prepare(tiny_config(*words, "strategy=lora", "regularizer=delta"))
    optimizer = module_of(prepared).configure_optimizers()["optimizer"]
    before = {key: p.detach().clone() for key, p in prepared.built.model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {key for key, p in prepared.built.model.named_parameters() if not torch.equal(p, before[key])}
    assert moved
    assert all("lora_A" in key for key in moved), "lora_B is zero, the head is held by delta's beta"


# --- in a run


def test_penalties_are_logged_and_are_part_of_the_loss(
    run_tiny: RunTiny, pretrained: Callable[..., tuple[str, str]]
) -> None:
    words = (*pretrained(), "trainer.max_epochs=2", "schedule=constant", "optimizer.lr=1e-8")
    rows = {}
    for name, more in (
        ("none", []),
        ("all", ["regularizer=[l2_sp,bss,co_tuning]", "regularizer.l2_sp.beta=2"]),
        ("off", ["regularizer=[l2_sp,bss]", "regularizer.l2_sp={alpha:0,beta:0}", "regularizer.bss.strength=0"]),
    ):
        folder, record = run_tiny(*words, *more)
        assert record.status == "completed"
        rows[name] = read_rows(folder / "metrics.csv")
    for plain, row, off in zip(rows["none"], rows["all"], rows["off"], strict=True):
        parts = [row[f"train/{name}"] for name in ("l2_sp", "bss", "co_tuning")]
        assert all(value > 0 for value in parts)
        assert row["train/loss"] == pytest.approx(plain["train/loss"] + sum(parts), rel=1e-4)
        assert (off["train/l2_sp"], off["train/bss"]) == (0, 0)
        assert not any(key.startswith("train/") and key != "train/loss" for key in plain)


def test_l2_sp_holds_the_weights_near_their_start(
    run_tiny: RunTiny, pretrained: Callable[..., tuple[str, str]]
) -> None:
    from safetensors.torch import load_file

    # small plain steps: with larger ones this network's way depends on the processor's last bits
    words = (*pretrained(), "optimizer=sgd", "optimizer.lr=0.002", "optimizer.momentum=0", "optimizer.nesterov=false",
             "trainer.max_epochs=3", "schedule=constant")  # fmt: skip
    start = {f"backbone.{key}": value for key, value in load_file(words[1].partition("=")[2]).items()}
    away = {}
    for alpha in (0, 100):
        folder, _ = run_tiny(*words, "regularizer=l2_sp", f"regularizer.l2_sp.alpha={alpha}")
        last = load_file(folder / "checkpoints" / "last.safetensors")
        keys = [key for key in last if key in start and "running" not in key and "num_batches" not in key]
        away[alpha] = sum(float((last[key] - start[key]).square().sum()) for key in keys)
    assert away[0] > 3 * away[100]


# --- what gets an error


def write(name: str, tmp_path: Path, size: int) -> tuple[str, ...]:
    save_file(timm.create_model(name).state_dict(), tmp_path / "weights.safetensors")
    return (
        f"backbone.name={name}", f"data.image_size={size}", "weights=file", f"weights.path={tmp_path}/weights.safetensors",
        "data.train_size=40", "data.test_size=20",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("regularizer=l2_sp", "strategy=linear_probe"),
            "l2_sp: is for a backbone that trains; linear_probe trains",
        ),
        (
            ("regularizer=delta", "strategy=linear_probe"),
            "delta: is for a backbone that trains; linear_probe trains",
        ),
        (("regularizer=bss", "strategy=linear_probe"), "bss: is for a backbone that trains; linear_probe trains"),
        (
            ("regularizer=co_tuning", "strategy=groups", "strategy.groups=[head]"),
            "co_tuning: is for a backbone that trains; groups trains",
        ),
        (
            ("regularizer=l2_sp", "strategy=lora"),
            "l2_sp: holds the backbone's weights near .*; lora leaves them there",
        ),
        (
            ("regularizer=l2_sp", "strategy=ssf"),
            "l2_sp: holds the backbone's weights near .*; ssf leaves them there",
        ),
        (("regularizer=bss", "regularizer.bss.k=33"), r"regularizer\.bss\.k=33: a batch of 32 images has fewer"),
        (
            ("regularizer=delta", "regularizer.delta.taps=[layer9]"),
            r"regularizer\.delta\.taps: the backbone has no module 'layer9'\. Did you mean 'layer",
        ),
        (("regularizer.l2_sp.alpha=1",), r"regularizer\.l2_sp"),
        (
            ("regularizer=l2_sp", "regularizer.l2_sp.alpha=-1"),
            r"regularizer\.l2_sp\.alpha=-1.*: must be at least 0",
        ),
        (("regularizer=[l2_sp,delta]",), "exclude each other"),
        (
            ("regularizer=delta", "regularizer.delta.attention_epochs=3"),
            r"regularizer\.delta\.attention_epochs: needs regularizer\.delta\.attention=true",
        ),
        (
            ("regularizer=bss", "regularizer.bss.k=20", "trainer.devices=2"),
            r"regularizer\.bss\.k=20: a batch of 16 images has fewer",
        ),
    ],
)
def test_regularisers_that_have_nothing_to_work_on(
    words: tuple[str, ...], said: str, pretrained: Callable[..., tuple[str, str]]
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        prepare(tiny_config(*pretrained(), *words))
    assert len(str(caught.value).splitlines()) == 1


def test_co_tuning_without_a_source_head(tmp_path: Path) -> None:
    for name in ("co_tuning", "l2_sp", "delta"):
        with pytest.raises(ConfigError, match=rf"regularizer={name}: .*weights=scratch has none worth it"):
            prepare(tiny_config(f"regularizer={name}"))
    with pytest.raises(WeightsError, match=r"the source's classifier is needed, and levit_128s.* has 2"):
        prepare(tiny_config(*write("levit_128s", tmp_path, 224), "regularizer=co_tuning"))
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "headless.safetensors")
    words = ("weights=file", f"weights.path={tmp_path}/headless.safetensors", "regularizer=co_tuning")
    with pytest.raises(WeightsError, match="holds no classifier of the source"):
        prepare(tiny_config(*words))


def test_co_tuning_and_attention_relate_single_classes(
    tmp_path: Path, pretrained: Callable[..., tuple[str, str]]
) -> None:
    write_two_colours(tmp_path / "set")
    data = ("data=hf", f"data.path={tmp_path / 'set'}", "data.train_size=null", "data.test_size=0.2", *pretrained())
    with pytest.raises(ConfigError, match="co_tuning: is for one class per image; this task is multilabel"):
        prepare(tiny_config(*data, "regularizer=co_tuning"))
    with pytest.raises(ConfigError, match=r"delta\.attention=true: is for one class per image"):
        prepare(tiny_config(*data, "regularizer=delta", "regularizer.delta.attention=true"))
    assert set(prepare(tiny_config(*data, "regularizer=[delta,bss]")).penalties) == {"delta", "bss"}


@pytest.mark.parametrize("source", ["file", "run"])
@pytest.mark.parametrize("more", ["head.pool=catavgmax", "head.pool=max", "weights.first_k=2"])
def test_co_tuning_needs_the_features_that_the_head_was_trained_on(
    source: str, more: str, run_tiny: RunTiny, pretrained: Callable[..., tuple[str, str]]
) -> None:
    words = (*pretrained(), "data.image_size=64")
    if source == "run":
        words = ("weights=run", f"weights.path={run_tiny(*words)[0]}", "data.image_size=64")
    with pytest.raises(HeadstartError) as caught:
        prepare(tiny_config(*words, "regularizer=co_tuning", more))
    assert len(str(caught.value).splitlines()) == 1


def test_the_head_of_an_earlier_run_is_a_source_head(
    run_tiny: RunTiny, pretrained: Callable[..., tuple[str, str]]
) -> None:
    from safetensors.torch import load_file

    folder, _ = run_tiny()
    prepared = prepare(tiny_config("weights=run", f"weights.path={folder}", "regularizer=co_tuning", "seed=1"))
    saved = load_file(folder / "checkpoints" / "best.safetensors")
    penalty = prepared.penalties["co_tuning"]
    assert isinstance(penalty, CoTuning)
    (matrix,) = (value for key, value in saved.items() if key.startswith("head.") and value.ndim == 2)
    assert torch.equal(penalty.head.weight, matrix)
    folder, _ = run_tiny("head=mlp")
    with pytest.raises(WeightsError, match="the head of that run is not one linear layer"):
        prepare(tiny_config("weights=run", f"weights.path={folder}", "regularizer=co_tuning", "seed=1"))


# --- with every strategy

WORDS = {
    "groups": ("strategy.groups=[stem]",),
    "phases": ("strategy.phases=[{start:0,groups:[head]},{start:1,groups:['*']}]",),
}
SOURCES = ("l2_sp", "delta", "bss", "co_tuning")
LEFT_ALONE = {"lora", "ssf", "adapter", "visual_prompts"}
"""Strategies that train no weight of the backbone itself, but move its features."""


def refused(strategy: str, regularizer: str) -> bool:
    return (
        strategy == "linear_probe"
        or (regularizer == "l2_sp" and strategy in LEFT_ALONE)
        or (regularizer == "delta" and strategy == "visual_prompts")  # maps of another number of tokens
    )


QUICK = (
    ("gradual", "l2_sp"), ("visual_prompts", "delta"), ("lora", "delta"), ("auto_rgn", "co_tuning"),
    ("norm_only", "l2_sp"), ("lp_ft", "bss"),
)  # fmt: skip
PRODUCT = [
    pytest.param(strategy, regularizer, marks=[] if (strategy, regularizer) in QUICK else pytest.mark.slow)
    for strategy in STRATEGIES
    for regularizer in SOURCES
]


@pytest.mark.parametrize(("strategy", "regularizer"), PRODUCT)
def test_each_regulariser_goes_with_each_strategy_or_says_why_not(
    strategy: str, regularizer: str, run_tiny: RunTiny, pretrained: Callable[..., tuple[str, str]]
) -> None:
    words = (
        *VIT, "data.val_size=20", *pretrained("test_vit"), f"strategy={strategy}", *WORDS.get(strategy, ()),
        f"regularizer={regularizer}", "trainer.max_epochs=2", "optimizer.lr=1e-4",
    )  # fmt: skip
    if refused(strategy, regularizer):
        with pytest.raises(ConfigError, match="regularizer") as caught:
            run_tiny(*words)
        assert len(str(caught.value).splitlines()) == 1
        assert not Path("outputs").exists()
        return
    folder, record = run_tiny(*words)
    assert record.status == "completed"
    assert all(np.isfinite(row[f"train/{regularizer}"]) for row in read_rows(folder / "metrics.csv"))


# --- what was new does not count as a start


def test_l2_sp_draws_new_layers_to_zero_and_the_others_to_their_start(
    pretrained: Callable[..., tuple[str, str]],
) -> None:
    words = (*pretrained(), "regularizer=l2_sp", "regularizer.l2_sp={alpha:0.3,beta:0.7}", "weights.first_k=2")
    prepared = prepare(tiny_config(*words))
    model, penalty = prepared.built.model, prepared.penalties["l2_sp"]
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    group_of = prepared.built.layers.group_of()
    kept = set(prepared.built.layers.names[:2])
    expected = 0.0
    for key, p in model.named_parameters():
        if group_of[key] in kept:
            expected += 0.3 / 2 * np.square((p.detach() - before[key]).double().numpy()).sum()
        else:
            expected += 0.7 / 2 * np.square(p.detach().double().numpy()).sum()
    images = torch.randn(2, 3, 32, 32)
    assert value_of(penalty, step_of(images, torch.arange(2), model)) == pytest.approx(expected, rel=1e-5)


def test_delta_refuses_maps_that_start_at_random(pretrained: Callable[..., tuple[str, str]]) -> None:
    words = (*pretrained(), "regularizer=delta", "weights.first_k=2")
    with pytest.raises(
        ConfigError, match=r"layer\d lies in block\.\d, which starts at random under weights.first_k=2"
    ):
        prepare(tiny_config(*words))
    prepare(tiny_config(*words, "regularizer.delta.taps=[layer1]"))


def test_attention_looks_at_images_of_the_whole_split() -> None:
    chosen = draw_images(1000, 64, seed=3)
    assert torch.equal(chosen, draw_images(1000, 64, seed=3))
    assert not torch.equal(chosen, draw_images(1000, 64, seed=4))
    assert len(set(chosen.tolist())) == 64
    assert int(chosen.max()) > 500 > int(chosen.min())
    images = torch.arange(10.0).view(10, 1)
    parts = [(part, part) for part in images.split(4)]
    assert torch.equal(pick(lambda: parts, torch.tensor([0, 3, 4, 9])), images[[0, 3, 4, 9]])


def test_co_tuning_meets_no_mixed_images() -> None:
    """Under BiT's rule a large set has mixup by itself."""
    config = tiny_config("regularizer=co_tuning", "weights=pretrained", "schedule=bit_hyperrule")
    facts = prepare(tiny_config()).facts
    many = replace(facts, sizes={**facts.sizes, "train": 20_000})
    with pytest.raises(
        ConfigError, match=r"co_tuning: relates single images to classes; set data\.mixup_alpha=0\."
    ):
        resolve_for_data(config, many)
    assert resolve_for_data(config, facts).data.mixup_alpha == 0
