"""The sweep file for W&B in the docs: read as W&B reads it, run as its agent runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from headstart.config.checks import LOWER_IS_BETTER, METRICS
from headstart.config.compose import compose
from headstart.records.store import find_runs

FILE = Path(__file__).resolve().parents[2] / "docs" / "wandb_sweep.yaml"


@pytest.mark.slow
def test_an_agents_command_runs_and_is_the_agents_run(tmp_path: Path) -> None:
    config = yaml.safe_load(FILE.read_text())
    drawn = {"optimizer.lr": {"value": 0.0123}, "optimizer.weight_decay": {"value": 0.0001}}
    assert set(drawn) == set(config["parameters"])
    arguments = create_sweep_command_args({"args": drawn})["args_no_hyphens"]
    command = create_sweep_command(list(config["command"]))
    assert command[:3] == ["${env}", "headstart", "train"]
    assert command[-1] == "${args_no_hyphens}"
    shipped = compose([*command[3:-1], *arguments])
    assert (shipped.trainer.test, shipped.optimizer.lr) == (False, 0.0123)
    # as the agent does it, on a run of a second
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(yaml.safe_dump(drawn))
    surroundings = {
        **os.environ,
        "WANDB_MODE": "offline",
        "WANDB_RUN_ID": "abc123",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
    }
    words = [*(word for word in TINY if not word.startswith("logger=")), "trainer.test=false", *arguments]
    subprocess.run([sys.executable, "-m", "headstart", "train", *words], env=surroundings, check=True, timeout=120)
    ((folder, record),) = find_runs([Path("outputs")])[0]
    assert record.logger["wandb_id"] == "abc123", "W&B's server waits for that run"
    assert record.config["optimizer"]["lr"] == 0.0123
    assert list(folder.glob("wandb/offline-run-*-abc123/*.wandb"))
    # what the server is told to look at is there, and the direction is right
    name = config["metric"]["name"]
    assert name in record.metrics
    split, _, metric = name.partition("/")
    assert (split, metric in METRICS["multiclass"]) == ("val", True)
    assert config["metric"]["goal"] == ("minimize" if metric in LOWER_IS_BETTER else "maximize")
