"""What a sweep costs beside its jobs: those train nothing, under Headstart's queue and Hydra's own launchers."""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

APP = """
import hydra
from omegaconf import OmegaConf

@hydra.main(version_base=None, config_path=None, config_name=None)
def app(config):
    return None

app()
"""
"""An application for Hydra that does nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many jobs, and how often."""
    parser.add_argument("--jobs", type=int, default=100, help="jobs of the longer sweep")
    parser.add_argument("--rounds", type=int, default=5)


def run(words: argparse.Namespace) -> int:
    """Measure all launchers, and the planning of 1,000 jobs over 10 models."""
    sweep(jobs=words.jobs, rounds=words.rounds)
    return 0


def sweep(*, jobs: int, rounds: int) -> None:
    """Seconds per job of each launcher, between a sweep of `jobs` and one of a tenth of them; and of planning."""
    ways: dict[str, Callable[[int], float]] = {"headstart": _headstart, "hydra basic": _hydra("basic")}
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        ways["hydra joblib"] = _hydra("joblib")
    else:
        print("hydra-joblib-launcher is not installed, and left out: pip install hydra-joblib-launcher")
    few = max(2, jobs // 10)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            found[way].append((run(jobs) - run(few)) / (jobs - few))
    print("\n| launcher | s per job | lowest to highest | Headstart is times as fast |\n|---|---:|---:|---:|")
    ours = statistics.median(found["headstart"])
    for way, values in found.items():
        median = statistics.median(values)
        print(f"| {way} | {median:.3f} | {min(values):.3f} to {max(values):.3f} | {median / ours:.2f} |")
    print(
        f"\n{os.cpu_count()} cores, {rounds} rounds; from {few} to {jobs} jobs, so that starting up does not count."
    )
    planning = [_plan() for _ in range(rounds)]
    print(f"Planning 1,000 jobs over 10 models: {statistics.median(planning):.1f} s, {min(planning):.1f} to "
          f"{max(planning):.1f}, start of Python and PyTorch included.")  # fmt: skip


def idle(sweep: str, jobs: tuple[str, ...], output_dir: str) -> list[str]:
    """A job that trains nothing and leaves what a run leaves: folder, config, record, metrics."""
    from headstart.sweep.job import perform

    return [perform(Path(sweep), job, output_dir=Path(output_dir), run=_record_only) for job in jobs]


def _record_only(
    config: Any, *, command: Any, launched_by: str, announce: Callable[[Path], None], expected_key: str | None
) -> tuple[Path, Any]:
    import yaml

    from headstart.config.identity import config_hash
    from headstart.config.plain import to_plain
    from headstart.records.atomic import write_text
    from headstart.records.schema import RunRecord
    from headstart.records.store import CONFIG, new_run_folder, now, write_record
    from headstart.records.tables import METRICS, write_rows

    output_dir = Path(config.output_dir)
    folder = new_run_folder(output_dir, words=["idle", f"s{config.seed}"], digest=config_hash(config))
    write_text(folder / CONFIG, yaml.safe_dump(to_plain(config), sort_keys=False))
    record = RunRecord(
        id=folder.name,
        status="running",
        config_hash=config_hash(config),
        job_key=expected_key or "",
        arm="idle",
        seed=config.seed,
        split_seed=config.data.split_seed,
        command=list(command),
        started=now(),
        config=to_plain(config),
        launched_by=launched_by,
    )
    write_record(folder, record)
    announce(folder)
    write_rows(folder / METRICS, [{"epoch": 1, "step": 1, "val/accuracy_micro": 0.5}])
    record.status, record.finished = "completed", now()
    write_record(folder, record)
    return folder, record


def _headstart(jobs: int) -> float:
    """Seconds of a whole sweep of jobs that train nothing, its plan not counted."""
    program = (
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import bench_sweep\n"
        "if __name__ == '__main__':\n"
        "    bench_sweep.run_idle(int(sys.argv[2]))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "idle.py")
        file.write_text(program)
        environment = {**os.environ, "HEADSTART_OUTPUTS": str(Path(folder, "outputs"))}
        words = [sys.executable, str(file), str(Path(__file__).parent), str(jobs)]
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def run_idle(jobs: int) -> None:
    """Launch a sweep of idle jobs, and print the seconds that its queue took."""
    from headstart.records.sweeps import states_of
    from headstart.sweep.expand import expand
    from headstart.sweep.launch import open_and_run, prepare_sweep

    words = (
        "backbone.name=test_resnet",
        "weights=scratch",
        "data.image_size=32",
        "logger=csv",
        "trainer.threads=1",
    )
    asked = expand([*words, f"seed=range({jobs})"])
    prepared = prepare_sweep(asked, command=["bench"])
    began = time.monotonic()
    launched = open_and_run(asked, prepared, work=idle)
    seconds = time.monotonic() - began
    states = states_of(launched.folder, launched.sweep.jobs)
    if sum(state.status == "completed" for state in states.values()) != jobs:
        raise RuntimeError("not every job completed")
    print(seconds)


def _hydra(launcher: str) -> Callable[[int], float]:
    def run(jobs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "app.py")
            file.write_text(APP)
            words = [sys.executable, str(file), "-m", f"+x=range({jobs})"]
            if launcher != "basic":
                words += [f"hydra/launcher={launcher}", f"hydra.launcher.n_jobs={os.cpu_count()}"]
            began = time.monotonic()
            subprocess.run(words, cwd=folder, capture_output=True, check=True)
            return time.monotonic() - began

    return run


def _plan() -> float:
    """Seconds of `headstart plan -m` of 1,000 jobs over 10 models."""
    words = [
        "weights=scratch", "data.image_size=32", "logger=csv", "trainer.threads=1", "trainer.max_epochs=1",
        "backbone.name=test_resnet,test_efficientnet,test_convnext,resnet10t,resnet18,regnetx_002,"
        "mobilenetv3_small_050,efficientnet_lite0,convnext_atto,resnet26",
        "optimizer.lr=0.1,0.03,0.01,0.003", "optimizer.weight_decay=0,0.01,0.1,0.2,0.3", "seed=range(5)",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        environment = {**os.environ, "HEADSTART_OUTPUTS": str(Path(folder, "outputs"))}
        done = subprocess.run(
            [sys.executable, "-m", "headstart", "plan", "-m", *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        if "jobs       1000" not in done.stdout:
            raise RuntimeError(done.stdout[:400])
        return time.monotonic() - began
