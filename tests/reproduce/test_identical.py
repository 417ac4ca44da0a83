"""What nobody changed comes out the same, bit for bit: every strategy, wherever and however it is run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY, RunTiny, tiny_config
from tests.test_experiment import PROGRAM, stopped_at

from headstart.cli import main
from headstart.cli.options import group_choices
from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.records.store import find_runs, read_record

VIT = "backbone.name=test_vit"
STRATEGIES = {
    "full": (),
    "linear_probe": (),
    "last_k": ("strategy.k=2",),
    "first_k": (),
    "freeze_first_k": (),
    "groups": ("strategy.groups=[block.1,head]",),
    "gradual": ("strategy.milestones=[1]",),
    "phases": ("strategy.phases=[{start:0,groups:[head]},{start:1,groups:[stem,head]}]",),
    "lp_ft": (),
    "norm_only": (),
    "bitfit": (),
    "ssf": (),
    "lora": (VIT,),
    "adapter": (VIT,),
    "visual_prompts": (VIT,),
    "auto_rgn": (),
}
QUICK = ("linear_probe", "gradual", "lora", "auto_rgn")
MOVING = (
    "head.dropout=0.3",
    "data.augment=light",
    "trainer.max_epochs=2",
    "data.train_size=60",
    "data.test_size=50",
)
"""All that draws at random while it trains."""

each = pytest.mark.parametrize(
    "strategy", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES]
)


def options(strategy: str) -> tuple[str, ...]:
    """Words of a run with this strategy."""
    return (f"strategy={strategy}", *STRATEGIES[strategy], *MOVING)


def elsewhere(*words: str) -> tuple[int, str]:
    """`headstart` in a process of its own; returns its exit status and all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *words], check=False, capture_output=True, text=True, env=os.environ
    )
    return done.returncode, done.stdout + done.stderr


def assert_identical(folder: Path, *words: str) -> None:
    """`headstart reproduce` finds nothing changed and the same bits."""
    status, said = elsewhere("reproduce", str(folder), *words)
    assert status == 0, said
    assert "Every ingredient is what it was" in said, said
    assert "identical: predictions and final weights are the same, bit for bit" in said, said


def test_no_strategy_is_left_out() -> None:
    assert sorted(STRATEGIES) == group_choices("strategy")


@each
def test_in_this_process_with_loader_workers(
    run_tiny: RunTiny, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = run_tiny(*options(strategy))
    assert main(["reproduce", str(folder), "data.num_workers=2"]) == 0
    said = capsys.readouterr().out
    assert "identical: predictions and final weights are the same, bit for bit" in said
    assert "Every ingredient is what it was" in said
    (again,) = Path("outputs/reproductions").iterdir()
    other = read_record(again)
    assert other.reproduces == folder.name
    assert other.predictions_sha256 == record.predictions_sha256
    assert other.final_weights == record.final_weights
    assert len(other.final_weights) == 2


@pytest.mark.slow
@each
def test_in_another_process_and_another_folder(
    run_tiny: RunTiny, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_tiny(*options(strategy), "data.num_workers=2")
    (tmp_path / "somewhere").mkdir()
    monkeypatch.chdir(tmp_path / "somewhere")
    assert_identical(folder.resolve())


@pytest.mark.slow
@each
def test_resumed(run_tiny: RunTiny, strategy: str) -> None:
    """A run that was killed and resumed, repeated without a break; and the other way about."""
    folder = stopped_at(3, signal.SIGKILL, *options(strategy))
    resume(folder)
    assert_identical(folder)
    unbroken, expected = run_tiny(*options(strategy))
    words = ["reproduce", str(unbroken)]
    program = PROGRAM.replace('["train", *sys.argv[3:]]', repr(words))
    done = subprocess.run([sys.executable, "-c", program, "3", "9"], check=False, capture_output=True)
    assert done.returncode == -9
    status, said = elsewhere(*words)
    assert status == 0, said
    assert "going on with" in said
    assert "identical" in said
    assert expected.status == "completed"


@pytest.mark.slow
@each
def test_out_of_a_sweep(strategy: str) -> None:
    """Jobs of a sweep share a worker's process; alone they come out the same."""
    wanted = options(strategy)
    keys = {word.partition("=")[0] for word in wanted}
    words = [*(word for word in TINY if word.partition("=")[0] not in keys), *wanted]
    status, said = elsewhere("train", "-m", *words, "seed=0,1")
    assert status == 0, said
    (sweep,) = Path("outputs/sweeps").iterdir()
    (folder, _), _ = find_runs([sweep], answers=True)[0]
    status, said = elsewhere("reproduce", str(sweep))
    assert status == 0, said
    assert "\n2 identical\n" in said, said
    assert_identical(folder)


@pytest.mark.slow
def test_an_interrupted_reproduction_goes_on(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny(*MOVING)
    program = PROGRAM.replace('["train", *sys.argv[3:]]', repr(["reproduce", str(folder)]))
    done = subprocess.run([sys.executable, "-c", program, "3", "15"], check=False, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    (begun,) = Path("outputs/reproductions").iterdir()
    assert read_record(begun).status == "interrupted"
    status, said = elsewhere("reproduce", str(folder))
    assert f"going on with {begun.resolve()}" in said
    assert "identical" in said
    assert status == 0
    assert len(list(Path("outputs/reproductions").iterdir())) == 1


@pytest.mark.parametrize("words", [(VIT,), ("backbone.name=test_efficientnet", "head=mlp"), (VIT, "strategy=lora")])
def test_building_a_model_moves_no_random_state(words: tuple[str, ...], tmp_path: Path) -> None:
    config = tiny_config(*words)
    prepare(config)  # imports what is imported once
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the state that others draw from
    torch.manual_seed(3)
    prepare(config)
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
