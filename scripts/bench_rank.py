"""LogME on frozen features, beside a plain implementation of the same formula, and beside steps of fine-tuning.

The features are drawn. The plain way is the loop of the paper as it stands in reference code: the whole of the
features in float64, a singular value decomposition of F'F, then class after class with matrix products. Each of the
two runs in a process of its own, which is where its peak memory is read; they take turns. Then the training step of
full fine-tuning is timed as in `bench.py step`, to say how many of them LogME is worth.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_data import make_jpegs
from bench_rows import Row, alone, compared, scratch, show
from bench_step import WARM_UP, ours, overrides_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECONDS, GIGABYTES = 60.0, 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is scored, and what is trained."""
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of ours")
    parser.add_argument("--plain-rounds", type=int, default=1, help="of the plain implementation; 0: none")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of fine-tuning; 0: none")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())


def run(words: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch() as folder:
        return show(measure(words, folder), device="cpu", path=words.json)


def measure(words: argparse.Namespace, folder: Path) -> list[Row]:
    """Both ways in turn, then the steps."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for turn in range(max(words.rounds, words.plain_rounds)):
        for way, rounds in (("ours", words.rounds), ("plain", words.plain_rounds)):
            if turn < rounds:
                found[way].append(_apart(way, words))
                said = "  ".join(f"{key} {value:.4g}" for key, value in found[way][-1].items())
                print(f"round {turn + 1}  {way}: {said}", flush=True)
    size = f"{words.images:,} x {words.width:,}, {words.classes} classes"
    seconds, memory = ([one[key] for one in found["ours"]] for key in ("seconds", "gigabytes"))
    full = (words.images, words.width, words.classes) == (50_000, 2048, 100)
    rows = [
        alone(f"LogME, {size}", seconds, unit="s", bar=SECONDS if full else None),
        alone(f"peak memory of LogME, {size}", memory, unit="GB", bar=GIGABYTES if full else None),
    ]
    if found["plain"]:
        both = min(len(found["ours"]), len(found["plain"]))
        apart = max(abs(one["value"] - found["ours"][0]["value"]) for one in found["plain"])
        note = f"values {apart:.1e} apart"
        for key, unit, what in (("seconds", "s", "LogME"), ("gigabytes", "GB", "peak memory of LogME")):
            pair = ([one[key] for one in found[way][:both]] for way in ("ours", "plain"))
            rows.append(
                compared(f"{what}, {size}, by the plain loop", *pair, unit=unit, bar=None, faster=True, note=note)
            )
    if words.steps:
        photos = make_jpegs(folder / "photos", words.batch * (words.steps + WARM_UP) + 20)
        overrides = overrides_of(words, photos, gpu=False)
        steps = [ours(overrides, steps=words.steps, gpu=False) for _ in seconds]
        what = f"LogME, {size}, in steps of fine-tuning {words.backbone}, {words.size} px, batch {words.batch}"
        row = compared(what, seconds, steps, unit="s", bar=None, faster=False, note="ratio: steps made meanwhile")
        rows.append(row)
    return rows


def _apart(way: str, words: argparse.Namespace) -> dict[str, float]:
    """Value, seconds and peak memory of one way, in a process of its own."""
    sizes = [str(number) for number in (words.images, words.width, words.classes)]
    threads = {f"{name}_NUM_THREADS": str(words.threads) for name in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, __file__, way, *sizes], env={**os.environ, **threads}, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def drawn(images: int, width: int, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """float32 features, positive as after a ReLU, whose classes differ a little."""
    import numpy as np

    draw = np.random.default_rng(0)
    targets = np.arange(images) % classes
    features = draw.standard_normal((images, width), dtype=np.float32)
    features += 0.5 * draw.standard_normal((classes, width), dtype=np.float32)[targets]
    np.maximum(features, 0, out=features)
    return features, targets


def plain(features: NDArray[Any], targets: NDArray[np.int64], classes: int) -> float:
    """LogME as it is written down: one class after another (You et al. 2021, algorithm 1)."""
    import numpy as np

    whole = features.astype(np.float64)
    n, d = whole.shape
    v, s, _ = np.linalg.svd(whole.T @ whole)
    total = 0.0
    for label in range(classes):
        y = (targets == label).astype(np.float64)
        alpha = beta = ratio = 1.0
        for _ in range(11):
            gamma = (s / (s + ratio)).sum()
            m = v @ ((v.T @ (whole.T @ y)) / (s + ratio))
            rest, norm = np.square(y - whole @ m).sum(), (m * m).sum()
            alpha, beta = gamma / norm, (n - gamma) / rest
            before, ratio = ratio, alpha / beta
            if abs(ratio - before) / before < 0.01:
                break
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - np.log(alpha + beta * s).sum() / 2
        total += (evidence - beta / 2 * rest - alpha / 2 * norm - n / 2 * np.log(2 * np.pi)) / n
    return float(total / classes)


def _once(way: str, images: int, width: int, classes: int) -> dict[str, float]:
    """In the process that is measured."""
    import resource

    from headstart.transferability.scores import SCORES, Examples

    features, targets = drawn(images, width, classes)
    began = time.perf_counter()
    if way == "ours":
        value = SCORES["logme"].compute(Examples(features, targets, "multiclass", classes)).value or 0.0
    else:
        value = plain(features, targets, classes)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 30 if sys.platform == "darwin" else 1 << 20)
    return {"value": value, "seconds": seconds, "gigabytes": peak}


if __name__ == "__main__":
    print(json.dumps(_once(sys.argv[1], *map(int, sys.argv[2:]))))
