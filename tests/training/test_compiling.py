"""torch.compile: the eager run's results within tolerance, through phases and policies; said, and refused, in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config
from tests.training.test_resume import assert_same, interrupted

from headstart.assembly import module_of
from headstart.errors import ConfigError
from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.training.compiling import Compiled, check_compiler

ON = "trainer.compile=default"
# two full batches and a smaller one in an epoch. At rates above this an untrained network of this size doubles what
# rounding changed with every step, compiled or not: with another number of threads weights are as far apart
SHORT = (
    "data.train_size=20", "data.batch_size=8", "data.val_size=12", "data.test_size=12", "optimizer=sgd",
    "optimizer.lr=0.001",
)  # fmt: skip


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a C++ compiler, and nothing that one has compiled before."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", str(tmp_path / "bin" / "g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    import torch._inductor.config as inductor

    check_compiler.cache_clear()
    with inductor.patch({"cpp.cxx": (None, str(tmp_path / "bin" / "g++"))}):
        yield
    torch.compiler.reset()


def test_a_machine_without_a_compiler_is_told_before_the_start(no_compiler: None) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.compile: needs a C\+\+ compiler such as g\+\+") as caught:
        prepare(tiny_config(ON))
    assert "\n" not in str(caught.value)
    assert not Path("outputs").exists()


def test_what_would_be_compiled_wrongly_is_refused() -> None:
    phases = "strategy.phases=[{start: 0, groups: ['*']}, {start: 1, groups: ['*'], normalization: stochnorm}]"
    for words in (("strategy.normalization=stochnorm",), ("strategy=phases", phases, "trainer.max_epochs=2")):
        prepare(tiny_config(*words))
        with pytest.raises(ConfigError, match=r"trainer\.compile=default: .*stochnorm into other results; leave"):
            tiny_config(*words, ON)


def test_only_batches_of_the_usual_size_are_compiled() -> None:
    """Others go through the backbone as it is; what is compiled is the backbone, under its own names."""
    module = module_of(prepare(tiny_config(*SHORT)))
    names = list(module.state_dict())
    seen: list[int] = []
    compiled = Compiled(module.model.backbone, mode="default", sizes={8})
    compiled._forward = lambda images: (seen.append(len(images)), module.model.backbone(images))[1]
    module.compiled = compiled
    for count in (8, 4, 8, 3):
        module(torch.randn(count, 3, 32, 32))
    assert seen == [8, 8]
    assert list(module.state_dict()) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="full"),
        pytest.param(("strategy=gradual", "strategy.milestones=[1,2]", "trainer.max_epochs=3"), id="gradual"),
        pytest.param(
            (
                "strategy=phases", "strategy.phases=[{start: 0, groups: ['*']}, {start: 1, groups: [head]}, "
                "{start: 2, groups: ['*'], normalization: batch_stats}]", "trainer.max_epochs=3",
            ),
            id="frozen again, batch_stats",
        ),
        pytest.param(("strategy.normalization=eval",), id="statistics at rest"),
        pytest.param(("backbone.name=test_vit", "trainer.micro_batch_size=4"), id="pieces"),
        pytest.param(("trainer.grad_checkpointing=true",), id="checkpointing"),
        pytest.param(
            ("backbone.name=test_convnext", "trainer.channels_last=true", "trainer.ema_decay=0.9"),
            id="channels last, averages",
        ),
        pytest.param(("strategy=lora", "backbone.name=test_vit", "strategy.rank=2"), id="lora"),
    ],
)  # fmt: skip
def test_a_compiled_run_is_within_tolerance(
    words: tuple[str, ...], run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, plain), (two, compiled) = run_tiny(*SHORT, *words), run_tiny(*SHORT, *words, ON)
    assert capsys.readouterr().err.count("compiling the backbone (trainer.compile): this takes a minute") == 1
    kept: list[dict[str, Any]] = [load_file(f / "checkpoints" / "last.safetensors") for f in (one, two)]
    assert kept[0].keys() == kept[1].keys()
    for name in kept[0]:
        assert torch.allclose(kept[0][name], kept[1][name], rtol=1e-3, atol=1e-5), name
    assert compiled.metrics["test/log_loss"] == pytest.approx(plain.metrics["test/log_loss"], rel=1e-4)


@pytest.mark.slow
def test_delta_sees_the_feature_maps_of_a_compiled_backbone(run_tiny: RunTiny) -> None:
    source, _ = run_tiny(*SHORT, "seed=5")
    words = (*SHORT, "weights=run", f"weights.path={source}", "regularizer=delta")
    rows = [
        (folder / "metrics.csv").read_text().splitlines()[-1].split(",")
        for folder, _ in (run_tiny(*words), run_tiny(*words, ON))
    ]
    assert [float(x) for x in rows[0][2:5]] == pytest.approx([float(x) for x in rows[1][2:5]], rel=1e-3)


@pytest.mark.slow
def test_a_compiled_run_that_is_resumed_has_the_same_bits(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*SHORT, ON, "strategy=gradual", "strategy.milestones=[1]", "trainer.max_epochs=4")
    unbroken = run_tiny(*words)
    folder = interrupted(7, monkeypatch, *words)
    assert_same(folder, resume(folder), unbroken)
