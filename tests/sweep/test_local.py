"""Worker slots: never two jobs on one, each in a fresh process that sees its own GPU alone, and dies by itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import tiny_config

from headstart.preparation import prepare
from headstart.records.sweeps import LOG, job_folder
from headstart.sweep import local
from headstart.sweep.executor import Ended
from headstart.sweep.local import LocalExecutor, forkserver

ROOT = Path(__file__).resolve().parents[2]


def note(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    """A job that writes down when, where and beside which GPU it ran."""
    (job,) = jobs
    began = time.time()
    time.sleep(0.2)
    line = f"{job} {os.getpid()} {began} {time.time()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n"
    with (Path(sweep) / "notes").open("a") as file:
        file.write(line)
    print("said", job)
    return ["completed"]


def hang(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    (job,) = jobs
    if job == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(sweep, f"{job}.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)


def die(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    if jobs == ("signal",):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


def drain(executor: LocalExecutor, jobs: list[str]) -> list[Ended]:
    waiting, ended = list(jobs), []
    while waiting or executor.running:
        while waiting and executor.room():
            executor.start((waiting.pop(0),))
        ended += executor.wait(0.5)
    executor.close()
    return ended


def make(
    folder: Path, work: local.Work, *, slots: int = 1, timeout: float | None = None, gpus: bool = False
) -> LocalExecutor:
    names = [str(i) for i in range(slots)] if gpus else [None] * slots
    return LocalExecutor(folder, output_dir=folder, slots=names, timeout=timeout, context=forkserver(), work=work)


def test_three_slots_and_seven_jobs(tmp_path: Path) -> None:
    jobs = [f"job{i}" for i in range(7)]
    ended = drain(make(tmp_path, note, slots=3, gpus=True), jobs)
    assert sorted(e.job for e in ended) == jobs
    assert {e.result for e in ended} == {"completed"}
    rows = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert len({row[1] for row in rows}) == 7, "each in a process of its own"
    assert {row[4] for row in rows} == {"0", "1", "2"}
    spans = [(float(row[2]), float(row[3]), row[4]) for row in rows]
    for i, (start, end, slot) in enumerate(spans):
        for other_start, other_end, other in spans[i + 1 :]:
            assert slot != other or end <= other_start or other_end <= start, "two jobs on one slot"
    assert (job_folder(tmp_path, "job3") / LOG).read_text() == "said job3\n"


def test_a_job_that_dies_says_how(tmp_path: Path) -> None:
    ended = {e.job: e for e in drain(make(tmp_path, die), ["signal", "exit"])}
    assert (ended["signal"].result, ended["signal"].kind) == (None, "killed")
    assert ended["signal"].how == "the process was killed by signal 9 (SIGKILL)"
    assert ended["exit"].how == "the process ended with exit status 7"


def test_a_job_past_its_time_is_stopped_and_one_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "GRACE", 1.0)
    began = time.monotonic()
    ended = drain(make(tmp_path, hang, slots=2, timeout=1.0), ["deaf", "polite"])
    assert time.monotonic() - began < 15
    assert {e.kind for e in ended} == {"timeout"}
    assert {e.how for e in ended} == {"stopped after launcher.job_timeout (1 s)"}
    assert {e.result for e in ended} == {None}


LAUNCHER = """
import sys, time
from pathlib import Path
from tests.sweep.test_local import hang, make
executor = make(Path(sys.argv[1]), hang)
executor.start(("orphan",))
print("started", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_job_whose_launcher_is_gone_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "started\n"
    pid = _wait_for(tmp_path / "orphan.pid")
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and _alive(pid):
        time.sleep(0.1)
    assert not _alive(pid)


def _wait_for(path: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parents_of_loader_workers(pipe: Any) -> None:
    """In a job's process: its own id, and the ids of the parents of what its loader starts."""
    prepared = prepare(tiny_config("data.num_workers=2"))
    batches = iter(prepared.data.train_dataloader())
    parents = {
        int(Path(f"/proc/{one.pid}/stat").read_text().rsplit(") ")[-1].split()[1]) for one in batches._workers
    }
    pipe.send((os.getpid(), parents))


def test_a_job_forks_its_loader_workers() -> None:
    """From a server they would import PyTorch anew, each of them, for seconds."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = forkserver().Process(target=_parents_of_loader_workers, args=(theirs,))
    process.start()
    job, parents = ours.recv()
    process.join()
    assert parents == {job}
