"""Launching a sweep: each job alone in its process, failures counted, nothing lost, only what is missing run again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import TINY, RunTiny

from headstart.cli import main
from headstart.records.schema import RunRecord
from headstart.records.store import find_runs
from headstart.records.sweeps import JobState, read_sweep, states_of


def words_of(*overrides: str) -> list[str]:
    keys = {text.partition("=")[0] for text in overrides}
    return [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]


def sweep(*overrides: str) -> tuple[int, str, str]:
    """A launch from this process, which imports PyTorch for its jobs once."""
    return command("train", "-m", *words_of(*overrides))


def command(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


def the_sweep() -> Path:
    (folder,) = Path("outputs/sweeps").iterdir()
    return folder


def states() -> dict[str, JobState]:
    """By what tells a job from the others."""
    plan = read_sweep(the_sweep())
    found = states_of(the_sweep(), plan.jobs)
    return {job.varied: found[job.id] for job in plan.jobs}


def runs() -> list[RunRecord]:
    return [record for _, record in find_runs([Path("outputs")])[0]]


def test_a_sweep_runs_records_compares_and_grows(run_tiny: RunTiny) -> None:
    status, out, err = sweep("strategy=full,linear_probe", "seed=0,1")
    assert status == 0, err
    assert "[4/4] strategy=" in err
    assert {state.status for state in states().values()} == {"completed"}
    found, _ = find_runs([the_sweep()])
    assert {record.launched_by for _, record in found} == {the_sweep().name}
    assert len({record.environment["pid"] for _, record in found}) == 4
    assert "baseline" in out
    assert "chance 0.100" in out
    assert f"Results: {Path('outputs').resolve()}" in out
    assert (the_sweep() / "comparison.png").read_bytes().startswith(b"\x89PNG")
    alone = run_tiny("strategy=linear_probe", "seed=1")[1]
    beside = next(r for _, r in found if r.seed == 1 and r.config["strategy"]["name"] == "linear_probe")
    assert alone.predictions_sha256 == beside.predictions_sha256
    assert alone.job_key == beside.job_key

    # the same command has nothing to do; a longer axis runs what is new, and takes over what a plain run has done
    before = {record.id for record in runs()}
    status, out, err = sweep("strategy=full,linear_probe", "seed=0,1")
    assert status == 0
    assert "[" not in err.replace("[low, high]", "")
    assert {record.id for record in runs()} == before
    other = run_tiny("strategy=full", "seed=2")[1]
    status, out, err = sweep("strategy=full,linear_probe", "seed=0,1,2")
    assert status == 0
    assert len(runs()) == len(before) + 2
    reused = [state for state in states().values() if state.reused]
    assert [state.run for state in reused] == [other.id]


def test_failures_stay_alone_and_are_all_listed() -> None:
    words = ("optimizer=sgd", "optimizer.lr=0.01,1e12,1e13", "trainer.max_epochs=2")
    status, out, err = sweep(*words)
    assert status == 3
    failures = [line for line in err.splitlines() if line.startswith("failed:")]
    assert len(failures) == 2
    assert all("not finite at step" in line and "outputs/runs/" in line for line in failures)
    assert sorted(record.status for record in runs()) == ["completed", "failed", "failed"]
    assert "Results: " in out
    assert "1 of 3 completed; the same command runs the rest." in err
    assert {state.kind for state in states().values()} == {None, "diverged"}


def test_jobs_that_cannot_start_are_all_said_before_the_first() -> None:
    status, _, err = sweep("data.train_size=100,99999", "seed=0,1", "strategy=full,linear_probe")
    assert status == 2
    assert "4 of 8 jobs cannot run:" in err
    assert err.count("data.train_size=99999: there are only") == 4
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_arms_that_differ_in_tuning_alone_do_not_stop_a_sweep() -> None:
    status, out, _ = sweep("optimizer.lr=0.001,0.01")
    assert status == 0
    assert "optimizer.lr=0.001" in out
    assert "baseline" in out


def start(*overrides: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "headstart", "train", "-m", *words_of(*overrides)]
    return subprocess.Popen(
        words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )


def wait_for_training() -> Path:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        for path in Path("outputs").glob("runs/*/checkpoints/last.ckpt"):
            return path.parent.parent
        time.sleep(0.1)
    raise AssertionError("no run began")


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_sweep_marks_what_was_running_and_keeps_its_checkpoint(how: int) -> None:
    process = start("seed=0,1", "trainer.max_epochs=100000", "launcher.workers=1")
    run = wait_for_training()
    began = time.monotonic()
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    assert process.wait(30) == 130
    assert time.monotonic() - began < 10
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert [state.status for state in states().values()] == ["interrupted", "waiting"]
    assert (run / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow  # the queue's own tests hold it with smaller jobs
def test_a_killed_job_fails_alone_and_is_tried_again() -> None:
    process = start("seed=0", "trainer.max_epochs=12", "launcher.retries=1")
    run = wait_for_training()
    os.kill(json.loads((run / "run.json").read_text())["environment"]["pid"], signal.SIGKILL)
    assert process.wait(90) == 0
    (state,) = states().values()
    assert (state.status, state.attempts, state.run) == ("completed", 2, run.name)
    assert len(runs()) == 1, "it went on from its checkpoint"


@pytest.mark.slow
def test_a_job_that_is_killed_says_so_at_once() -> None:
    process = start("seed=0", "trainer.max_epochs=100000")
    run = wait_for_training()
    os.kill(json.loads((run / "run.json").read_text())["environment"]["pid"], signal.SIGKILL)
    assert process.wait(30) == 3
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert "killed by signal 9" in record["error"]
    (state,) = states().values()
    assert (state.kind, state.run) == ("killed", run.name)


def predictions() -> dict[str, str | None]:
    """Digest of the predictions by job; every one completed, and exactly once."""
    plan = read_sweep(the_sweep())
    found = states_of(the_sweep(), plan.jobs)
    records = {record.id: record for record in runs()}
    assert {state.status for state in found.values()} == {"completed"}
    done = [record.job_key for record in records.values() if record.status == "completed"]
    assert len(done) == len(set(done)), "a job was completed twice"
    return {job.key: records[str(found[job.id].run)].predictions_sha256 for job in plan.jobs}


def _changed_since(moment: float) -> bool:
    return any(path.stat().st_mtime > moment for path in Path("outputs").glob("sweeps/*/jobs/*/state.json"))


def kill_at_random_moments(
    kills: int, *, seeds: int, epochs: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("strategy=full,linear_probe", f"seed=range({seeds})", f"trainer.max_epochs={epochs}")
    draw, hits = random.Random(0), 0
    for _ in range(kills):
        began, process = time.time(), start(*words)
        end = time.monotonic() + 60
        # until this launch has begun a job
        while time.monotonic() < end and process.poll() is None and not _changed_since(began):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 6))
        if process.poll() is None:
            hits += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for path in Path("outputs").rglob("*.json"):
            if not path.name.startswith("."):
                json.loads(path.read_text())  # whole, or not there
    assert hits >= kills - 3, "it was done before it had been killed so often"
    status, _, err = sweep(*words)
    assert status == 0, err
    broken = predictions()
    monkeypatch.setenv("HEADSTART_OUTPUTS", str(tmp_path / "unbroken" / "outputs"))
    (tmp_path / "unbroken").mkdir()
    monkeypatch.chdir(tmp_path / "unbroken")
    assert sweep(*words)[0] == 0
    assert predictions() == broken
    assert len(broken) == 2 * seeds


@pytest.mark.slow
def test_killed_at_two_moments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kill_at_random_moments(2, seeds=1, epochs=15, monkeypatch=monkeypatch, tmp_path=tmp_path)


@pytest.mark.slow
def test_killed_at_thirty_moments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kill_at_random_moments(30, seeds=12, epochs=100, monkeypatch=monkeypatch, tmp_path=tmp_path)


@pytest.mark.slow
def test_two_launches_at_once_do_no_job_twice() -> None:
    words = ("strategy=full,linear_probe", "seed=range(2)")
    both = [start(*words) for _ in range(2)]
    assert [process.wait(180) for process in both] == [0, 0]
    assert len(predictions()) == 4
    assert len(runs()) == 4


@pytest.mark.slow
def test_a_sweep_is_resumed_by_name_after_its_files_have_changed(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    file = folder / "mine.yaml"
    file.write_text("# @package _global_\nsweep: {grid: {seed: [0, 1]}}\nhead: {dropout: 0.25}\n")
    process = start("experiment=mine", "trainer.max_epochs=10", "launcher.workers=1")
    wait_for_training()
    file.write_text("# @package _global_\nsweep: {grid: {seed: [0, 1]}}\nhead: {dropout: 0.5}\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    status, _, err = command("resume", the_sweep().name)
    assert status == 0, err
    assert {record.config["head"]["dropout"] for record in runs()} == {0.25}
    assert len(runs()) == 2


def test_twenty_runs_in_one_second_have_twenty_folders() -> None:
    program = (
        "import sys\nfrom headstart.records.store import new_run_folder\nfrom pathlib import Path\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "print(new_run_folder(Path('outputs'), words=['a'], digest='0' * 64).name)\n"
    )
    launched = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(20)
    ]
    assert {process.stdout.readline() for process in launched if process.stdout} == {"ready\n"}
    for process in launched:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    names = {process.communicate()[0] for process in launched}
    assert len(names) == len(list(Path("outputs/runs").iterdir())) == 20
