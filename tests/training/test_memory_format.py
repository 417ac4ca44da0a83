"""Channels last: chosen by a measurement that is made once, and right in either form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config

from headstart.assembly import module_of
from headstart.config.identity import config_hash
from headstart.config.plain import read_config
from headstart.experiment import run as run_experiment
from headstart.measuring import measure
from headstart.preparation import prepare
from headstart.training import memory_format

LONG = ("trainer.max_epochs=null", "trainer.max_steps=200", "data.batch_size=4")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """What has been measured since."""
    found: list[tuple[float, float]] = []
    plain: Callable[..., tuple[float, float]] = memory_format._measure

    def keep(*arguments: Any, **named: Any) -> tuple[float, float]:
        found.append(plain(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(memory_format, "_measure", keep)
    return found


def test_a_long_run_measures_once(measured: list[tuple[float, float]], tmp_path: Path) -> None:
    prepared = prepare(tiny_config(*LONG))
    before = {key: value.clone() for key, value in prepared.built.model.state_dict().items()}
    modes = [p.requires_grad for p in prepared.built.model.parameters()]
    torch.manual_seed(5)
    chosen = measure(prepared).config.measured
    ((first, last),) = measured
    assert chosen == {"channels_last": first >= 1.05 * last}
    assert min(first, last) > 0
    # nothing of the run was touched
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert [p.requires_grad for p in prepared.built.model.parameters()] == modes
    for key, value in prepared.built.model.state_dict().items():
        assert torch.equal(value, before[key])
        assert value.is_contiguous()
    assert measure(prepare(tiny_config(*LONG, "seed=3"))).config.measured == chosen
    assert len(measured) == 1
    (path,) = (tmp_path / "cache" / "measurements").iterdir()
    path.write_text("{")  # not to be believed
    measure(prepare(tiny_config(*LONG)))
    assert len(measured) == 2
    other = (1.0, 2.0) if chosen["channels_last"] else (2.0, 1.0)
    path.write_text(json.dumps({"seconds": dict(zip(("channels_first", "channels_last"), other, strict=True))}))
    assert measure(prepare(tiny_config(*LONG))).config.measured != chosen


@pytest.mark.parametrize(
    "words",
    [
        ("data.batch_size=5",),
        ("data.image_size=40",),
        ("strategy=last_k",),
        ("strategy=linear_probe", "features.use=false"),
        ("backbone.name=test_vit",),
        ("head=mlp",),
        ("trainer.precision=bf16-mixed",),
        ("trainer.threads=2",),
        ("trainer.grad_checkpointing=true",),
    ],
)
def test_what_a_measurement_is_of(words: tuple[str, ...], measured: list[tuple[float, float]]) -> None:
    measure(prepare(tiny_config(*LONG)))
    measure(prepare(tiny_config(*[word for word in LONG if word.split("=")[0] != words[0].split("=")[0]], *words)))
    assert len(measured) == 2


@pytest.mark.parametrize(
    "words",
    [
        (),
        (*LONG, "trainer.channels_last=false"),
        (*LONG, "trainer.channels_last=true"),
        (*LONG, "strategy=linear_probe"),
    ],
    ids=["short", "said not", "said so", "on kept features"],
)
def test_where_nothing_is_measured(words: tuple[str, ...], measured: list[tuple[float, float]]) -> None:
    assert measure(prepare(tiny_config(*words))).config.measured == {}
    assert not measured


def test_a_choice_is_kept_and_is_no_part_of_the_identity(measured: list[tuple[float, float]]) -> None:
    prepared = prepare(tiny_config(*LONG))
    for choice in (True, False):
        config = replace(prepared.config, measured={"channels_last": choice})
        kept = measure(replace(prepared, config=config))
        assert kept.config.measured == {"channels_last": choice}
        assert module_of(kept).computation.channels_last is choice
        assert config_hash(config) == config_hash(prepared.config)
    assert not measured
    said = replace(prepared.config, trainer=replace(prepared.config.trainer, channels_last=True))
    assert config_hash(said) != config_hash(prepared.config)


def test_only_a_gain_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, expected in (((1.04, 1.0), False), ((1.06, 1.0), True), ((1.0, 1.2), False)):
        monkeypatch.setattr(memory_format, "_measure", lambda *rest, s=seconds, **named: s)
        found = measure(prepare(tiny_config(*LONG, f"data.batch_size={int(100 * seconds[0])}")))
        assert found.config.measured == {"channels_last": expected}


def test_a_run_in_either_form(run_tiny: RunTiny) -> None:
    """Weights within tolerance, in the standard order; frozen tensors to the bit; a measured choice is a said one."""
    words = ("strategy=last_k", "strategy.k=2", "trainer.max_epochs=2", "optimizer=sgd")
    first, _ = run_tiny(*words)
    last, record = run_tiny(*words, "trainer.channels_last=true")
    one, other = (load_file(f / "checkpoints" / "last.safetensors") for f in (first, last))
    start = prepare(tiny_config(*words)).built.model.state_dict()
    moved = 0
    for name in one:
        assert other[name].is_contiguous()
        assert torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5), name
        if torch.equal(one[name], start[name]):
            assert torch.equal(other[name], start[name]), name
        else:
            moved += 1
    assert moved > 3
    config = replace(tiny_config(*words), measured={"channels_last": True})
    chosen, kept = run_experiment(config)
    assert kept.predictions_sha256 == record.predictions_sha256
    assert kept.final_weights == record.final_weights
    assert read_config(chosen / "config.yaml").measured == {"channels_last": True}


def test_images_and_kernels_have_the_channels_last() -> None:
    module = module_of(prepare(tiny_config("trainer.channels_last=true")))
    seen: list[torch.Tensor] = []
    for layer in module.model.backbone.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.register_forward_hook(lambda m, inputs, output: seen.extend((inputs[0], m.weight, output)))
    module(torch.randn(4, 3, 32, 32))
    assert len(seen) > 9
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)
    assert not any(tensor.is_contiguous() for tensor in seen if tensor.shape[2] > 1)
