"""A kill at any moment, a full disk, a folder that cannot be written: nothing that counts is damaged or lost."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from tests.conftest import TINY, RunTiny, tiny_config
from tests.test_experiment import LONG, stopped_at

from headstart.cli import main
from headstart.config.plain import read_config
from headstart.errors import HeadstartError
from headstart.experiment import resume, run
from headstart.records.store import find_runs, read_record
from headstart.records.tables import read_rows


def words_of(*overrides: str) -> list[str]:
    """The tiny experiment on the command line."""
    keys = {text.partition("=")[0] for text in overrides}
    return [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]


def assert_whole(folder: Path) -> None:
    """Whatever is there under its own name can be read to its end."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.name == "run.json":
            read_record(folder)
        elif path.name == "config.yaml":
            read_config(path)
        elif path.suffix == ".csv":
            assert path.read_text().endswith("\n")
            read_rows(path)
        elif path.suffix == ".parquet":
            parquet.read_table(path)
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".ckpt":
            torch.load(path, map_location="cpu", weights_only=True)
        else:
            assert path.name in ("code.patch", "progress.json"), path


def results(folder: Path) -> dict[str, Any]:
    """All that must come out the same."""
    record = read_record(folder)
    rows = [
        {key: value for key, value in row.items() if key != "seconds"} for row in read_rows(folder / "metrics.csv")
    ]
    return {
        "status": record.status,
        "metrics": record.metrics,
        "predictions": record.predictions_sha256,
        "weights": record.final_weights,
        "epochs": (record.epochs, record.steps, record.stopped_by, record.best),
        "rows": rows,
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")),
    }


def _killed(after: float, output_dir: str) -> None:
    """In a process of its own: run, and be killed some seconds after the start."""
    threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    run(tiny_config(*LONG, f"output_dir={output_dir}"), command=["test"])
    time.sleep(after)


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    began = time.monotonic()
    unbroken, _ = run(tiny_config(*LONG, f"output_dir={tmp_path / 'unbroken'}"), command=["test"])
    took = time.monotonic() - began
    expected = results(unbroken)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment"])
    moments = random.Random(kills)
    went_on = 0
    for i in range(kills):
        # one in each part of a run's life
        after = took * (i + moments.random()) / kills * 1.2 + 0.02
        output = tmp_path / f"run{i}"
        process = context.Process(target=_killed, args=(after, str(output)))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for folder in (output / "runs").glob("*"):
            assert_whole(folder)
            if not (folder / "run.json").exists():
                assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") in (
                    [], ["config.yaml"], ["config.yaml", "examples.parquet"],
                    ["code.patch", "config.yaml", "examples.parquet"],
                )  # fmt: skip
                continue
            if read_record(folder).status != "completed":
                resume(folder)
                went_on += 1
            else:  # killed after all was done, but for clearing up
                (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
            assert results(folder) == expected, f"killed after {after:.3f} s of {took:.3f} s"
        shutil.rmtree(output, ignore_errors=True)
    assert went_on >= kills // 3


def test_what_a_kill_left_is_removed(run_tiny: RunTiny) -> None:
    """Temporary files of ours and of safetensors, by the names that they have."""
    folder = stopped_at(6, signal.SIGKILL, *LONG)
    left = [folder / "checkpoints" / ".tmpAbC123", folder / ".run.json.x_1.tmp"]
    for path in left:
        path.write_bytes(b"half")
    resume(folder)
    assert not any(path.exists() for path in left)


# --- the disk

FULL = """
set -e
mount -t tmpfs -o size={size} tmpfs {folder}
{python} -m headstart train {words} output_dir={folder} && exit 9 || echo "status $?"
cp -r {folder}/runs {kept}
mount -o remount,size=200m {folder}
for run in {folder}/runs/*; do {python} -m headstart resume $run; cp -r $run {kept}/resumed; done
"""
READ_ONLY = """
set -e
mount -t tmpfs -o ro tmpfs {folder}
{python} -m headstart train {words} output_dir={folder} && exit 9 || echo "status $?"
"""


def mounted(script: str, tmp_path: Path, *overrides: str, size: str = "4m") -> tuple[str, Path]:
    """Run a script where a small disk can be mounted; returns all that was printed, and what was kept."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "kept").mkdir()
    text = script.format(
        folder=tmp_path / "disk", kept=tmp_path / "kept", size=size, python=sys.executable,
        words=" ".join(words_of(*overrides)),
    )  # fmt: skip
    space = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    if subprocess.run(
        [*space, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")], check=False, capture_output=True
    ).returncode:
        pytest.skip("no disk can be mounted here")
    done = subprocess.run([*space, "sh", "-c", text], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr, tmp_path / "kept"


@pytest.mark.parametrize(
    "size",
    [
        pytest.param("4m", marks=pytest.mark.slow),
        pytest.param("2m", marks=pytest.mark.slow),
        pytest.param("100k", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(tmp_path: Path, run_tiny: RunTiny, size: str) -> None:
    """The checkpoint of the first epoch takes 4.5 MB; the run goes on from where it was when there is room."""
    said, kept = mounted(FULL, tmp_path, "trainer.max_epochs=2", size=size)
    assert "status 3" in said, said
    assert "the disk is full" in said
    assert "once it can be written again, `headstart resume" in said
    (folder,) = [path for path in (kept / "runs").iterdir() if path.is_dir()]
    assert_whole(folder)
    record = read_record(folder)
    assert record.status == "failed"
    assert "the disk is full" in str(record.error)
    _, expected = run_tiny("trainer.max_epochs=2")
    resumed = read_record(kept / "resumed")
    assert resumed.predictions_sha256 == expected.predictions_sha256
    assert resumed.final_weights == expected.final_weights
    assert not [path for path in (kept / "resumed").rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
def test_no_room_at_all(tmp_path: Path) -> None:
    script = FULL.partition("cp -r")[0]
    said, _ = mounted(script, tmp_path, size="4k")
    assert "status 2" in said, said
    assert "output_dir: " in said
    assert "the disk is full" in said


@pytest.mark.slow
def test_a_read_only_disk(tmp_path: Path) -> None:
    said, _ = mounted(READ_ONLY, tmp_path)
    assert "status 2" in said, said
    assert "disk cannot be written; set another." in said


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "run.json", "last.ckpt", "predictions.parquet"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("examples.parquet", "metrics.csv", "best.safetensors")
    ],
)
def test_a_write_that_fails(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One file finds the disk full: a line, a folder that is whole or not there, and no half file."""
    replace = Path.replace

    def full(self: Path, target: Any) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(HeadstartError, match="the disk is full"):
            run(tiny_config("trainer.max_epochs=2"), command=["test"])
    folders = list(Path("outputs/runs").glob("*"))
    assert len(folders) == (name not in ("config.yaml", "examples.parquet", "run.json"))
    for folder in folders:
        assert_whole(folder)
        assert read_record(folder).status == "failed"
        assert resume(folder).status == "completed"
        assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


# --- memory

MEMORY = """
import resource, sys
import headstart.experiment
from headstart.cli import main
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 600 * 2**20,) * 2)
sys.exit(main(["train", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_too_little_memory() -> None:
    """A process that may take 600 MB more, and a batch that takes gigabytes."""
    words = words_of("data.batch_size=100", "data.image_size=512", "data.test_size=20", "trainer.pictures=0")
    done = subprocess.run([sys.executable, "-c", MEMORY, *words], check=False, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1]
    expected = "out of memory on the CPU with data.batch_size=100 at 512 x 512 pixels. Try data.batch_size=50, "
    assert said.startswith(f"headstart: {expected}"), done.stderr
    assert done.returncode == 3
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"
    assert str(record.error).startswith(expected)


def test_too_little_memory_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What PyTorch raises there; the real one was seen on a GPU (docs/benchmarks.md)."""

    def fit(*rest: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 48.00 GiB.")

    monkeypatch.setattr("headstart.experiment.fit", fit)
    assert main(["train", *words_of()]) == 3
    assert "out of memory on the GPU with data.batch_size=32 at 32 x 32 pixels" in capsys.readouterr().err
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert "trainer.precision=bf16-mixed" in str(record.error)
    assert json.loads(next(Path("outputs").rglob("run.json")).read_text())["status"] == "failed"
