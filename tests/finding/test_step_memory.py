"""The memory of a step, estimated from two small ones, beside what PyTorch's allocator says of the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.conftest import tiny_config
from torch.profiler import ProfilerActivity, profile

from headstart.cli import main
from headstart.config.schema.strategy import OPTIONS
from headstart.finding.live import LiveBytes, bytes_of
from headstart.finding.memory import SMALL, StepMemory, _heaviest, estimate, in_words
from headstart.finding.steps import Steps
from headstart.preparation import Prepared, prepare
from headstart.strategies.plan import Phase

TOLERANCE = 0.15
"""Of the estimate: what is missing are workspaces that operations have inside themselves."""

NEEDED = {
    "groups": ("strategy.groups=[head]",),
    "gradual": ("strategy.milestones=[1]",),
    "phases": ("strategy.phases=[{start:0,groups:[head]},{start:1,groups:[stem,head]}]",),
    "last_k": ("strategy.k=2",),
    "first_k": ("strategy.k=1",),
}
"""Options without which a strategy is none."""


def measured(prepared: Prepared, count: int, *, most: int | None = None) -> int:
    """Bytes at the peak of a step, from what each allocation and release says of itself."""
    largest = 0
    for phase in prepared.plan.phases:
        steps = Steps(prepared)
        steps.enter(phase)
        steps.module.computation = replace(steps.module.computation, micro_batch_size=most)
        steps(steps.batch(count))
        held = bytes_of(steps.held())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            steps(steps.batch(count))
        largest = max(largest, held + _peak(seen))
    return largest


def _peak(seen: Any) -> int:
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    "words",
    [
        ("strategy=full", "optimizer=sgd", "data.image_size=64"),
        ("strategy=linear_probe", "features.use=false"),
        ("strategy=full", "trainer.micro_batch_size=16"),
        ("strategy=full", "backbone.name=test_vit", "trainer.precision=bf16-mixed"),
        ("strategy=full", "regularizer=[bss]", "data.mixup_alpha=0.4"),
    ],
)
def test_the_estimate_is_close(words: tuple[str, ...]) -> None:
    prepared = prepare(tiny_config(*words))
    found = estimate(prepared)
    if found.in_pieces:
        assert found.peak() == pytest.approx(measured(prepared, 32, most=16), rel=TOLERANCE)
        return
    for count in (32, 64):
        assert found.peak(count) == pytest.approx(measured(prepared, count), rel=TOLERANCE)


def test_features_that_are_kept_take_no_step() -> None:
    prepared = prepare(tiny_config("strategy=linear_probe", "features.batch_size=16"))
    found, features = estimate(prepared), prepared.config.features
    assert (found.batch_size, found.state, found.gradients) == (16, 0, 0)
    head = next(prepared.built.model.head.parameters())
    assert found.table == sum(prepared.facts.sizes.values()) * head.shape[1] * 4
    backbone, images = prepared.built.model.backbone.eval(), torch.randn(16, 3, 32, 32)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        backbone(images)
    peak = (
        _peak(seen)
        + images.nbytes
        + bytes_of([*prepared.built.model.parameters(), *prepared.built.model.buffers()])
    )
    assert found.peak() - found.table == pytest.approx(peak, rel=TOLERANCE)
    assert "features 0.1 MB" in in_words(found, precision="32-true")
    assert features.dtype == "float32"


def test_what_is_counted_is_what_is_held() -> None:
    """Views and in-place changes are no bytes of their own; what is dropped is gone."""
    there = torch.zeros(1000)
    with LiveBytes([there]) as live:
        there.add_(1)
        first = torch.ones(50)
        first.view(5, 10).t()
        second = torch.ones(30)
        del first
        second.mul_(2)
    assert max(live.timeline) == 4 * 80
    assert live.timeline[-1] == 4 * 30


def test_weights_gradients_and_state_are_what_trains() -> None:
    full, probe = (
        estimate(prepare(tiny_config(f"strategy={name}", "features.use=false")))
        for name in ("full", "linear_probe")
    )
    model = prepare(tiny_config("strategy=full")).built.model
    numbers = sum(p.numel() for p in model.parameters())
    assert full.gradients == 4 * numbers
    # two moments for each number, and a count for each parameter
    assert full.state == 8 * numbers + 4 * len(list(model.parameters()))
    assert probe.gradients == 4 * sum(p.numel() for p in model.head.parameters())
    assert probe.activations(32) < full.activations(32) / 10


def test_the_moment_of_the_peak_depends_on_the_batch() -> None:
    """Few images: the update is what takes most; many: the activations."""
    found = StepMemory(10, 20, 5, (2, 4), ((2, 50), (4, 50)), batch_size=8)
    assert SMALL == (2, 4)
    assert found.peak(4) == 30 + 50
    assert found.peak(100) == 30 + 100
    assert found.largest(30 + 100) == 100
    assert found.largest(60) == 0


def test_only_phases_that_may_hold_most_are_looked_at() -> None:
    low, high = {"stem": 1.0, "head": 1.0}, {"head": 1.0}
    phases = [Phase(0, high), Phase(1, low), Phase(2, low), Phase(3, high, normalization="eval")]
    assert [phase.start for phase in _heaviest(phases)] == [1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_strategy_has_an_estimate(name: str) -> None:
    backbone = "test_vit" if name in ("lora", "adapter", "visual_prompts") else "test_resnet"
    more = NEEDED.get(name, ())
    prepared = prepare(
        tiny_config(
            f"strategy={name}", f"backbone.name={backbone}", "features.use=false", "trainer.max_epochs=2", *more
        )
    )
    found = estimate(prepared)
    assert found.peak() == pytest.approx(measured(prepared, 32), rel=TOLERANCE)


def test_looking_changes_nothing() -> None:
    prepared = prepare(tiny_config("strategy=full", "strategy.normalization=stochnorm"))
    model = prepared.built.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    estimate(prepared)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_plan_says_it_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["backbone.name=test_resnet", "weights=scratch", "data.image_size=32", "data.train_size=100", "data.test_size=100", "trainer.threads=1"]  # fmt: skip
    assert main(["plan", *words]) == 0
    assert (
        "memory     about 13 MB at the peak of a step of 32 images (32-true): weights 1.5 MB"
        in capsys.readouterr().out
    )
    assert main(["plan", *words, "data.batch_size=100000000"]) == 0
    shown = capsys.readouterr().out
    assert "WILL NOT FIT: this machine has free" in shown
    assert "images at once would fit" in shown
