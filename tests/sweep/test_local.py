"""Running a sweep: each job alone in its process, failures counted, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import TINY, RunTiny

from headstart.records.store import find_runs


def sweep(*overrides: str) -> tuple[int, str, str]:
    keys = {text.partition("=")[0] for text in overrides}
    words = [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "train", "-m", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_sweep_runs_records_and_compares(run_tiny: RunTiny) -> None:
    status, out, err = sweep("strategy=full,linear_probe", "seed=0,1")
    assert status == 0, err
    assert "[4/4] strategy=linear_probe seed=1" in err
    (folder,) = Path("outputs/sweeps").iterdir()
    table = json.loads((folder / "sweep.json").read_text())
    assert [job["status"] for job in table["jobs"]] == ["completed"] * 4
    runs, _ = find_runs([folder])
    assert {record.launched_by for _, record in runs} == {folder.name}
    assert len({record.environment["pid"] for _, record in runs}) == 4
    assert "baseline" in out
    assert "chance 0.100" in out
    assert f"Results: {Path('outputs').resolve()}" in out
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    alone = run_tiny("strategy=linear_probe", "seed=1")[1]
    beside = next(r for _, r in runs if r.seed == 1 and r.config["strategy"]["name"] == "linear_probe")
    assert alone.predictions_sha256 == beside.predictions_sha256


def test_failures_stay_alone_and_are_all_listed() -> None:
    status, out, err = sweep("optimizer=sgd", "optimizer.lr=0.01,1e12,1e13", "trainer.max_epochs=2")
    assert status == 3
    failures = [line for line in err.splitlines() if line.startswith("failed:")]
    assert len(failures) == 2
    assert all("not finite at step" in line and "outputs/runs/" in line for line in failures)
    runs, _ = find_runs([Path("outputs")])
    assert sorted(record.status for _, record in runs) == ["completed", "failed", "failed"]
    assert "Results: " in out


def test_jobs_that_cannot_start_are_all_said_before_the_first() -> None:
    status, _, err = sweep("data.train_size=100,99999", "seed=0,1", "strategy=full,linear_probe")
    assert status == 2
    assert "4 of 8 jobs cannot run:" in err
    assert err.count("data.train_size=99999: there are only") == 4
    assert not Path("outputs").exists()


def test_arms_that_differ_in_tuning_alone_do_not_stop_a_sweep() -> None:
    status, out, _ = sweep("optimizer.lr=0.001,0.01")
    assert status == 0
    assert "optimizer.lr=0.001" in out
    assert "baseline" in out


def start(*overrides: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "headstart", "train", "-m", *TINY, "trainer.max_epochs=100000", *overrides]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, text=True, start_new_session=True)


def wait_for_training() -> Path:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        for path in Path("outputs").glob("runs/*/checkpoints/last.ckpt"):
            return path.parent.parent
        time.sleep(0.1)
    raise AssertionError("no run began")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_marks_what_was_running(how: int) -> None:
    process = start("seed=0,1")
    run = wait_for_training()
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    assert process.wait(30) == 130
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    (folder,) = Path("outputs/sweeps").iterdir()
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["interrupted", "waiting"]
    assert (run / "checkpoints" / "last.ckpt").exists()


def test_a_killed_job_fails_alone() -> None:
    process = start("seed=0", "trainer.max_epochs=100000")
    run = wait_for_training()
    pid = json.loads((run / "run.json").read_text())["environment"]["pid"]
    os.kill(pid, signal.SIGKILL)
    assert process.wait(30) == 3
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert "killed by signal 9" in record["error"]
