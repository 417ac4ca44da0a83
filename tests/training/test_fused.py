"""Fused optimisers: the plain ones' updates to float tolerance, wherever nothing needs the gradients before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.optimizer import AdamConfig, AdamWConfig, SGDConfig
from headstart.config.schema.strategy import FullConfig
from headstart.errors import ConfigError
from headstart.models.classifier import build_classifier
from headstart.preparation import prepare
from headstart.resolve import resolve, resolve_fused
from headstart.strategies import Timing, build_plan
from headstart.training.optimizers import build_optimizer


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "config",
    [AdamWConfig(lr=0.01, weight_decay=0.1), AdamConfig(lr=0.01, weight_decay=0.1), SGDConfig(lr=0.05)],
    ids=lambda config: config.name,
)
def test_updates_are_those_of_a_plain_optimiser(config: Any, memory: torch.memory_format) -> None:
    """Against a loop over tensors, in float64, with gradients that lie in memory as autograd leaves them."""
    built = build_classifier(
        name="test_resnet.r160_in1k", library="timm", head=LinearHeadConfig(), classes=4, channels=3, size=(32, 32),
        weights=None, seed=0,
    )  # fmt: skip
    model = built.model.to(memory_format=memory)
    config.fused = True
    optimizer = build_optimizer(config, model, built.layers, build_plan(FullConfig(), built.layers, Timing(10, 5)))
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    named = {p: name for name, p in model.named_parameters()}
    groups = [
        {**group, "params": [p.detach().double().clone() for p in group["params"]], "fused": None, "foreach": False}
        for group in optimizer.param_groups
    ]
    plain = type(optimizer)(groups, lr=config.lr)
    for step in range(3):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
        for own, other in zip(optimizer.param_groups, plain.param_groups, strict=True):
            for p, q in zip(own["params"], other["params"], strict=True):
                q.grad = p.grad.double()
        optimizer.step()
        plain.step()
    for own, other in zip(optimizer.param_groups, plain.param_groups, strict=True):
        for p, q in zip(own["params"], other["params"], strict=True):
            assert torch.allclose(p.detach().double(), q, rtol=1e-4, atol=1e-5), named[p]


def test_where_it_is_used() -> None:
    assert resolve(tiny_config()).optimizer.fused is True
    assert resolve(tiny_config("optimizer.fused=false")).optimizer.fused is False
    for words, expected in (
        ((), True),
        (("trainer.gradient_clip_val=1",), False),
        (("strategy=auto_rgn",), False),
    ):
        assert resolve_fused(tiny_config(*words), precision="16-mixed") is expected
        assert resolve_fused(tiny_config(*words), precision="bf16-mixed") is True
    with pytest.raises(ConfigError, match=r"optimizer\.fused=true: .* trainer\.gradient_clip_val needs"):
        resolve_fused(tiny_config("optimizer.fused=true", "trainer.gradient_clip_val=1"), precision="16-mixed")


def test_without_it_no_group_is_fused() -> None:
    from headstart.assembly import module_of
    from headstart.preparation import prepare

    for word, expected in (("true", True), ("false", None)):
        module = module_of(prepare(tiny_config(f"optimizer.fused={word}")))
        groups = module.configure_optimizers()["optimizer"].param_groups
        assert {group["fused"] for group in groups} == {expected}


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_gradients_are_clipped_all_the_same(run_tiny: RunTiny, precision: str) -> None:
    words = ("strategy=full", "optimizer=sgd", "optimizer.lr=1", f"trainer.precision={precision}")
    folder, record = run_tiny(*words, "trainer.max_epochs=1", "trainer.gradient_clip_val=1e-6")
    assert record.config["optimizer"]["fused"] is True
    start = prepare(tiny_config(*words)).built.model.state_dict()["head.0.weight"]
    end = load_file(folder / "checkpoints" / "last.safetensors")["head.0.weight"]
    assert 0 < (end - start).norm() < 1e-4
