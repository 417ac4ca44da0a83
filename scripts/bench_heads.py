"""Many linear probes in one sweep: against one of them, and against as many commands; their features are kept."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_rows import alone, compared, show

RATES = "0.3,0.1,0.05,0.03,0.01,0.005,0.003,0.001,0.0003,0.0001"
DECAYS = "0,0.0001,0.001,0.01,0.1"
JOBS = 100
"""10 rates x 5 decays x 2 seeds."""
CIFAR = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "cifar10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is probed, and how often it is measured."""
    parser.add_argument("--backbone", default="efficientnet_lite0", help="a config of conf/backbone")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=3000, help="training images")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--separate", type=int, default=3, help="commands that stand for a hundred, in each round")


def run(words: argparse.Namespace) -> int:
    """Measure, print a table, and perhaps write the figures."""
    with tempfile.TemporaryDirectory() as folder:
        common = [
            *_data(Path(folder), images=words.images),
            f"data.image_size={words.size}",
            f"backbone={words.backbone}",
            "strategy=linear_probe",
            f"trainer.max_epochs={words.epochs}",
            "trainer.progress=none",
            f"trainer.threads={words.threads}",
            "logger=csv",
        ]
        found = heads(common, Path(folder), rounds=words.rounds, separate=words.separate)
    one, many, each = found["one in a sweep"], found["a hundred in a sweep"], found["a hundred commands"]
    what = f"{JOBS} linear probes in one sweep, {words.epochs} epochs, {words.images:,} images at {words.size} px"
    rows = [
        alone("one linear probe in a sweep, features computed first", found["one, cold"], unit="s", bar=None),
        compared(f"{what}: against one in a sweep", many, one, unit="s", bar=4, faster=False, at_most=True),
        compared(
            f"{what}: against {JOBS} commands",
            many,
            each,
            unit="s",
            bar=20,
            faster=True,
            note=f"commands by the mean of {words.separate}",
        ),
    ]
    return show(rows, device="cpu", path=words.json)


def heads(common: Sequence[str], folder: Path, *, rounds: int, separate: int) -> dict[str, list[float]]:
    """Seconds of whole commands; the first one finds no features, the others those that it has left."""
    axes = [f"optimizer.lr={RATES}", f"optimizer.weight_decay={DECAYS}", "seed=0,1"]
    single = ["optimizer.lr=0.01", "optimizer.weight_decay=0.001", "seed=0"]
    found: dict[str, list[float]] = {"one, cold": [_command(["train", "-m", *common, *single], folder, jobs=1)]}
    for round in range(rounds):
        one = _command(["train", "-m", *common, *single], folder, jobs=1)
        many = _command(["train", "-m", *common, *axes], folder, jobs=JOBS)
        each = [_command(["train", *common, *single[:2], f"seed={i}"], folder, jobs=1) for i in range(separate)]
        commands = JOBS * statistics.mean(each)
        taken = {"one in a sweep": one, "a hundred in a sweep": many, "a hundred commands": commands}
        for what, seconds in taken.items():
            found.setdefault(what, []).append(seconds)
        said = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in taken.items())
        print(f"round {round + 1}/{rounds}  {said}", flush=True)
    return found


def _command(words: Sequence[str], folder: Path, *, jobs: int) -> float:
    """Seconds of a command with outputs of its own, and the caches that all share; it must complete every run."""
    with tempfile.TemporaryDirectory(dir=folder) as outputs:
        environment = {**os.environ, "HEADSTART_OUTPUTS": outputs, "HEADSTART_CACHE": str(folder / "cache")}
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "headstart", *words],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - began
        records = [json.loads(path.read_text()) for path in Path(outputs).glob("runs/*/run.json")]
    if done.returncode or [record["status"] for record in records] != ["completed"] * jobs:
        raise RuntimeError(done.stderr[-2000:])
    return seconds


def _data(folder: Path, *, images: int) -> list[str]:
    """CIFAR-10 beside the project, where it is there, else pictures that are made."""
    if CIFAR.is_dir():
        return ["data=hf", f"data.path={CIFAR}", f"data.train_size={images}"]
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for i in range(images + images // 2):
        pixels = random.normal(128, 40, (32, 32, 3)) + 20 * np.sin(np.arange(32) * (1 + i % 10) / 5)[:, None]
        place = folder / "pictures" / f"class{i % 10}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
    return ["data=image_folder", f"data.path={folder / 'pictures'}", f"data.train_size={images}"]
