"""Heads that are fitted together by a sweep are those that are fitted alone, and `plan` says who goes with whom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import TINY, RunTiny

from headstart.cli import main
from headstart.records.schema import RunRecord
from headstart.records.store import find_runs
from headstart.records.sweeps import read_sweep
from headstart.records.tables import METRICS, read_rows

PROBE = (*TINY, "strategy=linear_probe", "optimizer=sgd")


def found() -> dict[tuple[float, int], tuple[Path, RunRecord]]:
    """The runs by rate and seed."""
    runs, _ = find_runs([Path("outputs")])
    return {(record.config["optimizer"]["lr"], record.seed): (folder, record) for folder, record in runs}


def curve(folder: Path) -> list[dict[str, float]]:
    return [{key: row[key] for key in row if key != "seconds"} for row in read_rows(folder / METRICS)]


def test_together_is_as_alone_and_a_head_fails_alone(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*PROBE, "optimizer.lr=0.1,0.02,1e38", "seed=0,1", "trainer.max_epochs=2", "launcher.workers=1"]
    words.remove("trainer.max_epochs=1")
    assert main(["plan", "-m", *words]) == 0
    shown = capsys.readouterr().out
    # the features of a random backbone are another seed's
    assert "together   1: 3 jobs in 1 process, their frozen features computed once, about" in shown
    assert "together   2: 3 jobs in 1 process" in shown
    assert re.search(r"optimizer.lr=0.02 seed=1 +970 +\d+ +\d+ +2", shown)
    assert main(["train", "-m", *words]) == 3
    said = capsys.readouterr().err
    assert len(re.findall(r"failed: optimizer.lr=1e\+?38 seed=\d .*not finite", said)) == 2
    runs = found()
    assert {key: record.status == "completed" for key, (_, record) in runs.items()} == {
        (rate, seed): rate < 1 for rate in (0.1, 0.02, 1e38) for seed in (0, 1)
    }
    assert len({record.environment["pid"] for _, record in runs.values()}) == 2
    assert {record.features["heads"] for _, record in runs.values() if record.status == "completed"} == {3}
    folder, beside = runs[0.02, 1]
    path, alone = run_tiny(*PROBE[len(TINY) :], "optimizer.lr=0.02", "seed=1", "trainer.max_epochs=2")
    assert alone.job_key == beside.job_key
    assert alone.predictions_sha256 == beside.predictions_sha256
    assert alone.metrics == beside.metrics
    assert curve(path) == curve(folder)
    assert alone.features["heads"] == 1


def test_what_shares_features_is_known_before(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *PROBE,
        "head.dropout=0,0.5",
        "strategy=linear_probe,full",
        "data.split_seed=0,1",
        "data.train_size=50,100",
    ]
    words = [word for word in words if word not in ("strategy=linear_probe", "data.train_size=100")]
    assert main(["plan", "-m", *words, "features.use=null"]) == 0
    assert "together   1: 8 jobs in 1 process" in capsys.readouterr().out
    assert main(["plan", "-m", *words, "features.use=false"]) == 0
    assert "together" not in capsys.readouterr().out


def test_what_is_written_says_who_goes_together(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*PROBE, "seed=0,1", "strategy=linear_probe,full"]
    words.remove("strategy=linear_probe")
    assert main(["train", "-m", *words]) == 0
    (folder,) = Path("outputs/sweeps").iterdir()
    shared = {job.varied: job.together for job in read_sweep(folder).jobs}
    assert [
        bool(shared[f"seed={seed} strategy={name}"]) for name in ("linear_probe", "full") for seed in (0, 1)
    ] == [
        True,
        True,
        False,
        False,
    ]
    assert len(set(shared.values())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["launcher=slurm", "launcher.cluster=local"], ["launcher=ray", "launcher.cpus_per_job=1"]]
)
def test_a_cluster_gets_them_as_one(launcher: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "train", "-m", *PROBE, "optimizer.lr=0.1,0.02,1e38", *launcher],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    runs = found()
    assert sorted(record.status for _, record in runs.values()) == ["completed", "completed", "failed"]
    assert len({record.environment["pid"] for _, record in runs.values()}) == 1
