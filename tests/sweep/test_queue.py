"""The queue: what is tried again, what stops it, and that it goes on past whatever jobs do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import TINY

from headstart.cli.train import report
from headstart.config.plain import to_plain
from headstart.config.schema.launcher import LocalConfig
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, new_run_folder, now, read_record, write_record
from headstart.records.sweeps import JobState, Sweep, SweepJob, job_folder, read_sweep, write_state, write_sweep
from headstart.sweep import local
from headstart.sweep.executor import Ended
from headstart.sweep.expand import Jobs, expand
from headstart.sweep.job import perform
from headstart.sweep.launch import Launched, open_and_run, prepare_sweep
from headstart.sweep.live import View
from headstart.sweep.queue import Policy, Queue


def idle(config: Any, *, command: Any, launched_by: str, announce: Callable[[Path], None], **more: Any) -> Any:
    """In the place of a run: it trains nothing and leaves a record."""
    folder = new_run_folder(Path(config.output_dir), words=[f"s{config.seed}"], digest="0" * 64)
    record = RunRecord(
        id=folder.name, status="running", config_hash="", job_key=str(more["expected_key"]), arm="", seed=config.seed,
        split_seed=0, command=[], started=now(), config=to_plain(config), launched_by=launched_by,
        data={"task": "multiclass", "class_names": ["a", "b"], "sizes": {"test": 2}, "class_counts": {"train": [1, 1], "test": [1, 1]}},
    )  # fmt: skip
    write_record(folder, record)
    (folder / CONFIG).write_text(yaml.safe_dump(to_plain(config)))
    announce(folder)
    if config.seed == 5:
        raise ValueError("planted")
    if config.seed == 11:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == 17:
        time.sleep(1000)
    record.status, record.finished = "completed", now()
    record.metrics, record.seconds = {"test/accuracy_micro": 0.5}, {"total": 0.1}
    write_record(folder, record)
    return folder, record


def planted(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    return [perform(Path(sweep), job, output_dir=Path(output_dir), run=idle) for job in jobs]


def jobs_of(*words: str, **launcher: Any) -> Jobs:
    found = expand([*TINY, *words])
    return replace(found, launcher=LocalConfig(**launcher))


def run_planted(jobs: Jobs) -> Launched:
    return open_and_run(jobs, prepare_sweep(jobs, command=["test"]), work=planted)


def test_twenty_four_jobs_with_three_planted_failures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "GRACE", 1.0)
    launched = run_planted(jobs_of("seed=range(24)", job_timeout="00:00:00:03"))
    states = {job.varied: launched.states[job.id] for job in launched.sweep.jobs}
    failed = {varied: state for varied, state in states.items() if state.status == "failed"}
    assert sum(state.status == "completed" for state in states.values()) == 21
    kinds = {varied: state.kind for varied, state in failed.items()}
    assert kinds == {"seed=5": "exception", "seed=11": "killed", "seed=17": "timeout"}
    assert report(launched) == 3
    said = capsys.readouterr().err
    for varied, reason in (
        ("seed=5", "ValueError: planted"),
        ("seed=11", "killed by signal 9 (SIGKILL)"),
        ("seed=17", "stopped after launcher.job_timeout (3 s)"),
    ):
        (line,) = [line for line in said.splitlines() if line.startswith(f"failed: {varied} (")]
        assert reason in line
        assert str(states[varied].run) in line
    log = (
        next(job_folder(launched.folder, job.id) for job in launched.sweep.jobs if job.varied == "seed=5")
        / "log.txt"
    )
    assert "Traceback" in log.read_text()
    record = read_record(launched.folder.parent.parent / "runs" / str(states["seed=11"].run))
    assert record.status == "failed"
    assert "signal 9" in str(record.error)


class Scripted:
    """An executor that ends each attempt as its script says."""

    divides = False

    def __init__(self, room: int, script: dict[str, list[Ended]], folder: Path) -> None:
        self.slots, self.script, self.folder = room, script, folder
        self.now: list[str] = []
        self.started: list[tuple[str, ...]] = []

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(self.now)

    def room(self) -> int:
        return self.slots - len(self.now)

    def start(self, jobs: tuple[str, ...]) -> None:
        (job,) = jobs
        self.now.append(job)
        self.started.append(tuple(self.now))

    def wait(self, seconds: float) -> Iterable[Ended]:
        if not self.now:
            return []
        job = self.now.pop(0)
        steps = self.script.get(job, [])
        ended = steps.pop(0) if steps else Ended(job, "completed")
        if ended.result == "completed":
            write_state(self.folder, job, JobState("completed", "run"))
        elif ended.result == "failed":
            write_state(self.folder, job, JobState("failed", error=ended.how, kind=ended.kind))
        return [ended]

    def stop(self, *, now: bool) -> None:
        pass

    def close(self) -> None:
        pass


def queue_of(
    folder: Path, script: dict[str, list[Ended]], policy: Policy, *, room: int = 1, needs: str = ""
) -> tuple[Queue, Scripted]:
    rows = tuple(SweepJob(name, name * 8, name, needs="a" if name == needs else None) for name in "abcd")
    sweep = Sweep("s", (), "now", rows)
    write_sweep(folder, sweep)
    for name in "abcd":
        job_folder(folder, name).mkdir(parents=True)
    executor = Scripted(room, script, folder)
    return Queue(folder, sweep, executor, output_dir=folder, policy=policy), executor  # type: ignore[arg-type]


LOST = Ended("a", None, "gone", "killed")


def test_what_is_not_the_jobs_fault_is_tried_again(tmp_path: Path) -> None:
    queue, executor = queue_of(tmp_path, {"a": [LOST, LOST]}, Policy(retries=2))
    assert {state.status for state in queue.run().values()} == {"completed"}
    assert [job for (job,) in executor.started] == ["a", "b", "c", "d", "a", "a"]


def test_only_so_often(tmp_path: Path) -> None:
    queue, executor = queue_of(tmp_path, {"a": [LOST, LOST]}, Policy(retries=1))
    assert queue.run()["a"].status == "failed"
    assert len(executor.started) == 5


@pytest.mark.parametrize("kind", ["mistake", "diverged", "exception"])
def test_what_is_the_jobs_own_fault_is_not(tmp_path: Path, kind: str) -> None:
    queue, executor = queue_of(tmp_path, {"a": [Ended("a", "failed", "x", kind)]}, Policy(retries=5))
    assert queue.run()["a"].kind == kind
    assert len(executor.started) == 4


def test_out_of_memory_beside_others_is_tried_again_alone(tmp_path: Path) -> None:
    full = Ended("a", "failed", "no memory", "memory")
    queue, executor = queue_of(tmp_path, {"a": [full]}, Policy(retries=1), room=2)
    assert queue.run()["a"].status == "completed"
    assert executor.started[-1] == ("a",)
    assert executor.started[1] == ("a", "b")


def test_out_of_memory_alone_is_not(tmp_path: Path) -> None:
    queue, executor = queue_of(tmp_path, {"a": [Ended("a", "failed", "no memory", "memory")]}, Policy(retries=1))
    assert queue.run()["a"].status == "failed"
    assert len(executor.started) == 4


def test_on_error_stop(tmp_path: Path) -> None:
    queue, executor = queue_of(
        tmp_path, {"a": [Ended("a", "failed", "x", "mistake")]}, Policy(stop_on_error=True), room=2
    )
    assert [queue.run()[name].status for name in "abcd"] == ["failed", "completed", "waiting", "waiting"]
    assert len(executor.started) == 2


def test_a_follower_waits_for_its_stage_and_fails_with_it(tmp_path: Path) -> None:
    queue, executor = queue_of(tmp_path, {}, Policy(), room=4, needs="b")
    queue.run()
    assert [names[-1] for names in executor.started] == ["a", "c", "d", "b"]
    (tmp_path / "other").mkdir()
    queue, _ = queue_of(tmp_path / "other", {"a": [Ended("a", "failed", "x", "mistake")]}, Policy(), needs="b")
    state = queue.run()["b"]
    assert (state.status, state.kind) == ("failed", "stage")


def test_a_job_that_is_done_elsewhere_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.sweep.queue._ELSEWHERE", 0.1)
    queue, executor = queue_of(tmp_path, {"a": [Ended("a", "elsewhere")]}, Policy())
    assert {state.status for state in queue.run().values()} == {"completed"}
    assert [job for (job,) in executor.started] == ["a", "b", "c", "d", "a"]


def test_jobs_of_a_launch_that_died_are_begun_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states still say `running`; so do those of another launch that is at work."""
    monkeypatch.setattr("headstart.sweep.queue._ELSEWHERE", 0.1)
    queue_of(tmp_path, {}, Policy())
    for name in "ab":
        write_state(tmp_path, name, JobState("running", "run", started=now()))
    sweep = read_sweep(tmp_path)
    executor = Scripted(1, {"a": [Ended("a", "elsewhere")]}, tmp_path)
    with View(slots=1, output_dir=tmp_path) as view:
        queue = Queue(tmp_path, sweep, executor, output_dir=tmp_path, policy=Policy(), watch=view)  # type: ignore[arg-type]
        assert {state.status for state in queue.run().values()} == {"completed"}
    said = [line.strip() for line in capsys.readouterr().err.splitlines()]
    for name in "abcd":
        assert f"{name}: started" in said
    assert sum("completed" in line for line in said) == 4
