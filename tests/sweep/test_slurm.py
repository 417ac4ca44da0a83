"""Sweeps through submitit: its local executor, and what would be asked of SLURM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import TINY

from headstart.config.schema.launcher import SlurmConfig
from headstart.errors import ConfigError
from headstart.records.store import find_runs
from headstart.records.sweeps import read_sweep, states_of
from headstart.sweep.slurm import Task, check, connect

submitit = pytest.importorskip("submitit")


def test_a_machine_without_slurm_is_said_before_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, *rest: None)
    with pytest.raises(ConfigError, match="has no srun; launch from a login node"):
        check(SlurmConfig())
    check(SlurmConfig(cluster="local"))


def test_submitit_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(ConfigError, match=r'pip install "headstart\[slurm\]"'):
        check(SlurmConfig())


def test_what_slurm_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name, *rest: f"/usr/bin/{name}")
    config = SlurmConfig(
        at_once=7, minutes=30, gpus_per_job=2, memory_gb=16.0, partition="gpu", account="lab", qos="high",
        extra={"constraint": "a100"},
    )  # fmt: skip
    executor = connect(config, folder=tmp_path, threads=3, devices=1)
    asked = executor._executor.parameters
    assert asked["time"] == 30
    assert asked["cpus_per_task"] == 3
    assert asked["gpus_per_node"] == 2
    assert asked["mem"] == "16GB"
    assert (asked["partition"], asked["account"], asked["qos"]) == ("gpu", "lab", "high")
    assert asked["array_parallelism"] == 7
    assert asked["additional_parameters"] == {"constraint": "a100"}


def test_a_preempted_job_is_submitted_again_as_itself() -> None:
    task = Task("sweep", ("job",), "outputs")
    again = task.checkpoint()
    assert again.function is task


@pytest.mark.slow
def test_a_sweep_through_submitits_local_executor() -> None:
    words = [*TINY, "optimizer=sgd", "optimizer.lr=0.01,1e12", "launcher=slurm", "launcher.cluster=local"]
    words = [*(word for word in words if "max_epochs" not in word), "trainer.max_epochs=2"]
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "train", "-m", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "not finite at step" in done.stderr
    (folder,) = Path("outputs/sweeps").iterdir()
    states = states_of(folder, read_sweep(folder).jobs)
    assert sorted(state.status for state in states.values()) == ["completed", "failed"]
    assert {state.kind for state in states.values()} == {None, "diverged"}
    assert len(find_runs([folder])[0]) == 2
