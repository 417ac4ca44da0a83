"""Jobs that share frozen features: who goes with whom, each fails alone, and only what is missing runs again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY

from headstart.config.plain import to_plain
from headstart.config.schema.launcher import LocalConfig
from headstart.errors import OutOfMemory, RunFailed
from headstart.experiment import Asked
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, new_run_folder, now, read_record, write_record
from headstart.records.sweeps import (
    LOG,
    JobState,
    Sweep,
    SweepJob,
    job_folder,
    read_state,
    read_sweep,
    write_state,
    write_sweep,
)
from headstart.sweep.executor import Ended
from headstart.sweep.expand import expand
from headstart.sweep.job import alone
from headstart.sweep.launch import Launched, open_and_run, prepare_sweep
from headstart.sweep.queue import Policy, Queue
from headstart.sweep.together import LEAST, MOST, NUMBERS, partners, perform_together


def row(name: str, together: str = "x", *, trainable: int = 10) -> SweepJob:
    return SweepJob(name, name * 8, name, together=together, trainable=trainable)


def group(rows: Sequence[SweepJob], *, room: int = 1, divides: bool = True, **most: int) -> int:
    found = partners(rows[0], rows[1:], room=room, most=most, divides=divides)
    assert found[0] == rows[0].id
    return len(found)


def test_who_goes_with_whom() -> None:
    rows = [row("a"), row("b", "y"), row("c"), row("d", ""), row("e")]
    assert partners(rows[0], rows[1:], room=1, most={}, divides=True) == ("a", "c", "e")
    assert partners(rows[3], [row("f", "")], room=1, most={}, divides=True) == ("d",)
    assert group([row(f"{i}") for i in range(MOST + 9)]) == MOST
    assert group([row(f"{i}", trainable=NUMBERS // 3) for i in range(9)]) == 3
    assert group([row(f"{i}", trainable=NUMBERS * 3) for i in range(9)]) == 1
    assert group([row("a"), row("b"), row("c"), row("d")], c=2) == 2, "c goes with one other at most"
    assert group([row("a"), row("b"), row("c")], a=1) == 1


def test_many_are_dealt_out_to_what_is_free() -> None:
    rows = [row(f"{i}") for i in range(100)]
    assert group(rows, room=1) == 100
    assert group(rows, room=2) == 50
    assert group(rows, room=3) == 34
    assert group(rows, room=2, divides=False) == 100
    assert group(rows[: 2 * LEAST - 1], room=2) == 2 * LEAST - 1
    assert group(rows[: 2 * LEAST], room=2) == LEAST


# a sweep whose heads are pretended: they train nothing and leave records


def pretend(asked: Sequence[Asked]) -> list[RunRecord | BaseException]:
    """In the place of the experiment: the seed says what becomes of a head."""
    found: list[RunRecord | BaseException] = []
    begun = []
    for one in asked:
        config = one.config
        folder = one.resumes or new_run_folder(Path(config.output_dir), words=[f"s{config.seed}"], digest="0" * 64)
        record = RunRecord(
            id=folder.name, status="running", config_hash="", job_key=str(one.expected_key), arm="", seed=config.seed,
            split_seed=0, command=[], started=now(), config=to_plain(config), launched_by=one.launched_by,
            data={"task": "multiclass", "class_names": ["a", "b"], "sizes": {"test": 2}, "class_counts": {"train": [1, 1], "test": [1, 1]}},
            environment={"pid": os.getpid()},
        )  # fmt: skip
        write_record(folder, record)
        (folder / CONFIG).write_text(yaml.safe_dump(to_plain(config)))
        assert one.announce
        one.announce(folder)
        begun.append((config.seed, folder, record))
    print("features")
    for seed, folder, record in begun:
        error: BaseException | None = None
        if seed == 3:
            error = RunFailed("the loss is not finite at step 7.")
        elif seed == 4:
            error = ValueError("planted")
        elif seed == 11 and not Path("twice").exists():
            Path("twice").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif seed == 13 and len(asked) > 1:
            raise OutOfMemory("needs more memory than there is.")
        elif seed in (16, 17):
            time.sleep(2 if seed == 16 else 1000)
        record.status, record.finished = "failed" if error else "completed", now()
        record.metrics, record.seconds = {"test/accuracy_micro": 0.5}, {"total": 0.1}
        write_record(folder, record)
        found.append(error or record)
    return found


def pretended(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    return perform_together(Path(sweep), jobs, output_dir=Path(output_dir), together=pretend)


def launch(seeds: str, **launcher: object) -> Launched:
    jobs = replace(expand([*TINY, f"seed={seeds}"]), launcher=LocalConfig(**launcher))  # type: ignore[arg-type]
    prepared = prepare_sweep(jobs, command=["test"])
    rows = tuple(replace(row, together="x") for row in prepared.planned.sweep.jobs)
    planned = replace(prepared.planned, sweep=replace(prepared.planned.sweep, jobs=rows))
    return open_and_run(jobs, replace(prepared, planned=planned), work=pretended)


def by_seed(launched: Launched) -> dict[int, JobState]:
    return {int(job.varied.partition("=")[2] or 0): launched.states[job.id] for job in launched.sweep.jobs}


def pids(launched: Launched) -> dict[int, int]:
    runs = launched.folder.parent.parent / "runs"
    found = {seed: state.run for seed, state in by_seed(launched).items() if state.run}
    return {seed: read_record(runs / run).environment["pid"] for seed, run in found.items()}


def test_a_group_is_one_process_and_a_head_fails_alone(capsys: pytest.CaptureFixture[str]) -> None:
    launched = launch("0,1,2,3,4", workers=1)
    states = by_seed(launched)
    assert {seed: state.status for seed, state in states.items() if seed < 3} == dict.fromkeys(
        range(3), "completed"
    )
    assert [(states[s].status, states[s].kind) for s in (3, 4)] == [("failed", "diverged"), ("failed", "exception")]
    assert states[4].error == "ValueError: planted"
    assert len(set(pids(launched).values())) == 1
    assert "seed=0: started, and 4 that are fitted with it" in capsys.readouterr().err
    logs = [(job_folder(launched.folder, job.id) / LOG).read_text() for job in launched.sweep.jobs]
    first = launched.sweep.jobs[0].id
    assert "features\n" in logs[0]
    assert "Traceback" not in logs[1]
    assert all(f"what they print is in ../{first}/log.txt" in log for log in logs[1:])
    assert "failed: the loss is not finite at step 7." in logs[3]
    assert (job_folder(launched.folder, launched.sweep.jobs[3].id) / ".." / first / LOG).exists()


def test_the_second_launch_runs_what_is_missing_together() -> None:
    states = by_seed(launch("0,1,2", workers=1))
    after = launch("0,1,2,5,6", workers=1)
    later = by_seed(after)
    assert [later[s].run for s in (0, 1, 2)] == [states[s].run for s in (0, 1, 2)]
    assert later[5].status == later[6].status == "completed"
    assert len({pids(after)[s] for s in (5, 6)}) == 1


def test_what_a_killed_group_left_goes_on_without_being_asked_to() -> None:
    """It was put together unasked, and a machine short of memory kills."""
    launched = launch("0,1,2,11", workers=1)
    states = by_seed(launched)
    assert {state.status for state in states.values()} == {"completed"}
    assert [states[s].attempts for s in (0, 1, 2, 11)] == [1, 1, 1, 2], "three were over when it was killed"
    assert len(list((launched.folder.parent.parent / "runs").iterdir())) == 4, "the run that was killed goes on"


def test_a_killed_process_is_tried_again_for_what_it_left() -> None:
    launched = launch("11,0,1,2,3,4,5,6", workers=1, retries=1)
    states = by_seed(launched)
    assert [states[s].status for s in (11, 0, 1, 2, 5, 6)] == ["completed"] * 6
    assert (states[3].kind, states[4].kind) == ("diverged", "exception")
    assert {states[s].attempts for s in (11, 0, 3, 6)} == {2}
    assert len(set(pids(launched).values())) == 4, "two at a time, as one of them may be what kills the process"


def test_what_is_too_much_together_is_tried_in_smaller_groups() -> None:
    launched = launch("13,0,1,2,5,6,7,8", workers=1)
    assert {state.status for state in by_seed(launched).values()} == {"completed"}
    found = pids(launched)
    assert list(found.values()).count(found[13]) == 1
    assert list(found.values()).count(found[8]) == 2
    assert by_seed(launched)[8].attempts == 2


def test_a_group_has_the_time_of_all_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = launch("0,16,17,18", workers=1, job_timeout="00:00:00:01")
    states = by_seed(launched)
    assert [states[s].status for s in (0, 16)] == ["completed"] * 2
    assert {states[s].kind for s in (17, 18)} == {"timeout"}
    assert states[17].error == "stopped after 4 times launcher.job_timeout (1 s)"


def test_a_job_that_another_process_is_at_is_left_out() -> None:
    launched = launch("0,1,2", workers=1)
    folder, jobs = launched.folder, read_sweep(launched.folder).jobs
    outputs = folder.parent.parent
    for job in jobs:
        run = outputs / "runs" / str(launched.states[job.id].run)
        record = read_record(run)
        record.status = "interrupted"
        write_record(run, record)
        write_state(folder, job.id, replace(launched.states[job.id], status="interrupted"))
    ids = [job.id for job in jobs]
    with alone(outputs, jobs[1].key) as mine:
        assert mine
        said = perform_together(folder, ids, output_dir=outputs, together=pretend)
    assert said == ["completed", "elsewhere", "completed"]
    assert read_state(folder, ids[1]).status == "interrupted"
    assert perform_together(folder, ids, output_dir=outputs, together=pretend) == ["completed"] * 3


def test_ctrl_c_leaves_what_is_over_and_interrupts_the_rest() -> None:
    launched = launch("0,1,2", workers=1)
    folder, outputs = launched.folder, launched.folder.parent.parent
    ids = [job.id for job in launched.sweep.jobs]
    for id in ids:
        record = read_record(outputs / "runs" / str(launched.states[id].run))
        record.status = "interrupted"
        write_record(outputs / "runs" / record.id, record)
        write_state(folder, id, JobState("interrupted", record.id, attempts=1))

    def stop(asked: Sequence[Asked]) -> list[RunRecord | BaseException]:
        pretend(asked[:1])
        raise KeyboardInterrupt

    assert perform_together(folder, ids, output_dir=outputs, together=stop) == [
        "completed",
        "interrupted",
        "interrupted",
    ]
    assert [read_state(folder, id).status for id in ids] == ["completed", "interrupted", "interrupted"]


# the queue, with an executor that ends each process as a script says


class Scripted:
    divides = False

    def __init__(self, folder: Path, script: Sequence[Sequence[Ended]], *, slots: int = 1) -> None:
        self.folder, self.script, self.slots = folder, [*script], slots
        self.now: list[tuple[str, ...]] = []
        self.started: list[tuple[str, ...]] = []

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(job for jobs in self.now for job in jobs)

    def room(self) -> int:
        return self.slots - len(self.now)

    def start(self, jobs: tuple[str, ...]) -> None:
        self.now.append(jobs)
        self.started.append(jobs)

    def wait(self, seconds: float) -> Iterable[Ended]:
        if not self.now:
            return []
        jobs = self.now.pop(0)
        said = {ended.job: ended for ended in (self.script.pop(0) if self.script else ())}
        ends = [said.get(job, Ended(job, "completed")) for job in jobs]
        for ended in ends:
            if ended.result:
                write_state(
                    self.folder, ended.job, JobState(ended.result, "run", ended.how, ended.kind, attempts=1)
                )
        return ends

    def stop(self, *, now: bool) -> None:
        pass

    def close(self) -> None:
        pass


def queue_of(
    folder: Path, rows: Sequence[SweepJob], script: Sequence[Sequence[Ended]], policy: Policy, *, slots: int = 1
) -> tuple[Queue, Scripted]:
    sweep = Sweep("s", (), "now", tuple(rows))
    write_sweep(folder, sweep)
    for one in rows:
        job_folder(folder, one.id).mkdir(parents=True)
    executor = Scripted(folder, script, slots=slots)
    return Queue(folder, sweep, executor, output_dir=folder, policy=policy), executor  # type: ignore[arg-type]


def test_units_of_the_queue(tmp_path: Path) -> None:
    rows = [row("a"), row("b", ""), row("c"), row("d", "y"), replace(row("e"), needs="b"), row("f", "y")]
    queue, executor = queue_of(tmp_path, rows, [], Policy())
    assert {state.status for state in queue.run().values()} == {"completed"}
    assert executor.started == [("a", "c"), ("b",), ("d", "f"), ("e",)]


def test_one_that_fails_stops_what_has_not_begun(tmp_path: Path) -> None:
    rows = [row("a"), row("b"), row("c", "")]
    failed = [Ended("b", "failed", "not finite", "diverged")]
    queue, executor = queue_of(tmp_path, rows, [failed], Policy(stop_on_error=True))
    assert [queue.run()[name].status for name in "abc"] == ["completed", "failed", "waiting"]
    assert executor.started == [("a", "b")]


def test_memory_that_a_single_job_lacks_is_its_failure(tmp_path: Path) -> None:
    full = [Ended(name, None, "no memory", "memory") for name in "ab"]
    queue, executor = queue_of(tmp_path, [row("a"), row("b")], [full, full[:1]], Policy())
    states = queue.run()
    assert executor.started == [("a", "b"), ("a",), ("b",)]
    assert (states["a"].status, states["a"].kind, states["b"].status) == ("failed", "memory", "completed")


def test_what_lacked_memory_together_has_its_retries_left(tmp_path: Path) -> None:
    full = [Ended(name, None, "no memory", "memory") for name in "ab"]
    gone = [Ended("a", None, "gone", "killed")]
    queue, executor = queue_of(tmp_path, [row("a"), row("b")], [full, gone], Policy(retries=1))
    assert {state.status for state in queue.run().values()} == {"completed"}
    assert executor.started == [("a", "b"), ("a",), ("b",), ("a",)]


def test_a_head_that_had_failed_by_itself_was_not_killed(tmp_path: Path) -> None:
    queue, executor = queue_of(
        tmp_path,
        [row("a"), row("b")],
        [[Ended("a", None, "gone"), Ended("b", None, "gone")], [Ended("b", None, "gone")]],
        Policy(),
    )
    begin = executor.start

    def start(jobs: tuple[str, ...]) -> None:
        begin(jobs)
        write_state(tmp_path, "a", JobState("failed", error="not finite", kind="diverged", attempts=1))
        write_state(tmp_path, "b", JobState("running", attempts=1))

    executor.start = start  # type: ignore[method-assign]
    states = queue.run()
    assert (states["a"].kind, states["a"].error) == ("diverged", "not finite")
    assert (states["b"].kind, states["b"].error) == ("killed", "gone")
