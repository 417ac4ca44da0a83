"""Gradient checkpointing: the same gradients and statistics for less memory."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import RunTiny, tiny_config

from headstart.assembly import module_of
from headstart.errors import ConfigError
from headstart.preparation import prepare
from headstart.training.module import TransferModule

ON = "trainer.grad_checkpointing=true"
FILE = ("weights=file", "weights.path=start.safetensors")


def prepared_module(*words: str) -> TransferModule:
    module = module_of(prepare(tiny_config(*words)))
    module.enter(module.plan.at(0))
    return module.train()


def step(module: TransferModule) -> tuple[int, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """One forward and backward pass: bytes that were kept for the backward pass, gradients, and the state after it."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=draw)
    batch: Any = {"image": images, "target": torch.arange(8), "index": torch.arange(8)}
    parameters = {p.data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    module.begin_step()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module.training_step(batch, 0)
    before = sum(kept.values())
    module.backward(loss)
    if "delta" in module.penalties:  # its hooks saw what was computed again, and let go of it
        assert not module.penalties["delta"]._now.last  # type: ignore[union-attr]
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters() if p.grad is not None}
    return before, gradients, {key: value.clone() for key, value in module.model.state_dict().items()}


@pytest.mark.parametrize(
    "words",
    [
        ("backbone.name=test_resnet", "head.dropout=0.5"),
        ("backbone.name=test_resnet", "strategy.normalization=batch_stats"),
        ("backbone.name=test_resnet", "strategy=last_k", "strategy.k=3"),
        ("backbone.name=test_vit", "regularizer=delta", "regularizer.delta.taps=[blocks.1]", *FILE),
        ("backbone.name=test_efficientnet",),
    ],
    ids=["dropout", "batch_stats", "last_k", "delta", "efficientnet"],
)
def test_equal_gradients_and_statistics(words: tuple[str, ...]) -> None:
    if FILE[0] in words:
        save_file(timm.create_model("test_vit", num_classes=3).state_dict(), "start.safetensors")
    plain, checkpointed = step(prepared_module(*words)), step(prepared_module(*words, ON))
    assert checkpointed[0] < 0.8 * plain[0]
    for before, after in zip(plain[1:], checkpointed[1:], strict=True):
        assert set(before) == set(after)
        for name in before:
            assert torch.allclose(before[name], after[name], rtol=1e-5, atol=1e-7), name


def test_running_statistics_move_once() -> None:
    module = prepared_module(ON)
    _, _, state = step(module)
    counts = {int(value) for key, value in state.items() if key.endswith("num_batches_tracked")}
    assert counts == {1}


def test_a_run_has_the_same_bits(run_tiny: RunTiny) -> None:
    """On a CPU what is computed again is what was computed."""
    words = ("head.dropout=0.3", "strategy=gradual", "strategy.milestones=[1]", "trainer.max_epochs=2")
    kept = [load_file(run_tiny(*words, *more)[0] / "checkpoints" / "last.safetensors") for more in ((), (ON,))]
    for name in kept[0]:
        assert torch.equal(kept[0][name], kept[1][name]), name


@pytest.mark.parametrize(
    "words",
    [
        ("backbone.name=inception_v3", "data.image_size=96"),
        ("backbone.name=alexnet", "data.image_size=64", "backbone.library=torchvision"),
    ],
)
def test_backbones_that_have_none(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.grad_checkpointing=true: .* has no gradient checkpointing"):
        prepare(tiny_config(*words, ON))


def test_stochnorm_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.grad_checkpointing=true: stochnorm"):
        prepare(tiny_config(ON, "strategy.normalization=stochnorm"))
