"""All that needs a GPU, one part after the other until the time is up; each prints its rows as they are there.

- images: training steps at --size on real images from the decoded cache, beside steps on synthetic images that
  are on the device already (bar 0.95), and how much of that time the GPU works (bar 0.95), for each of --backbones
- step: whole runs of full fine-tuning beside the plain loop and plain Lightning with the same settings (bar 0.98)
- syncs: operations that wait for the GPU in the steps of a run, as PyTorch's own debugging mode counts them (bar 0)
- memory: the estimate of `headstart plan` over the peak that PyTorch's allocator has seen (no more than 1.15)
- packed: runs of --small at --small-size, several per GPU, beside one after another (bar 2.5 times the rate)
- layout: runs with the channels last, and with torch.compile, beside the same run without

`--device cpu` with small settings tries all of it but what only a GPU has; its ratios say nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_step
from bench_data import Ours, make_jpegs
from bench_rows import Row, alone, compared, keep, machine, on_gpu, scratch, table

PARTS = ("images", "step", "syncs", "memory", "packed", "layout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured, and how much of it."""
    parser.add_argument("--backbones", nargs="*", default=["resnet50", "vit_small_patch16_224"])
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=10_240, help="JPEG files of about 500 pixels")
    parser.add_argument("--steps", type=int, default=24, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--small", default="efficientnet_lite0")
    parser.add_argument("--small-size", type=int, default=96)
    parser.add_argument("--small-images", type=int, default=1024)
    parser.add_argument("--small-epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=8, help="small runs; packed, all at once")
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--minutes", type=float, default=6, help="after which no further part is begun")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")


def run(words: argparse.Namespace) -> int:
    """Measure part by part; exit status 3 where a bar is not reached or a part failed."""
    began = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    said = machine(words.device)
    print(said, flush=True)
    with scratch() as folder:
        bench = Bench(words, folder)
        for name in words.only:
            for backbone in [""] if name == "packed" else words.backbones:
                if time.monotonic() - began > 60 * words.minutes:
                    print(f"{name} {backbone}: left out, as the time is up", flush=True)
                    continue
                try:
                    found = getattr(bench, name)(backbone) if backbone else bench.packed()
                except Exception:  # the other parts are still worth their time
                    traceback.print_exc()
                    failed.append(f"{name} {backbone}".strip())
                    continue
                rows += found
                print(f"\n== {name} {backbone}, {time.monotonic() - began:.0f} s\n{table(found)}", flush=True)
                keep(rows, said=said, path=words.json)
    print(f"\n{said}\n\n{table(rows)}")
    for name in failed:
        print(f"{name} failed: see above")
    return 3 if failed or any(row.reached is False for row in rows) else 0


class Bench:
    """The parts."""

    def __init__(self, words: Namespace, folder: Path) -> None:
        self.words, self.folder = words, folder
        self.gpu = on_gpu(words.device)
        self.photos = make_jpegs(folder / "photos", words.images)

    def images(self, backbone: str) -> list[Row]:
        """Steps on the loader's images beside steps on synthetic ones, and the GPU's share of that time."""
        words = self.words
        ours = Ours(self.photos, backbone, words.size, words.batch, words.device, "light", None)
        found: dict[str, list[float]] = {"real": [], "synthetic": []}
        for _ in range(words.rounds):
            found["synthetic"].append(ours.steps(ours.synthetic(), words.steps))
            found["real"].append(ours.steps(ours.forever(ours.batches), words.steps))
        what = f"{backbone}, {words.size} px, batch {words.batch}"
        rows = [
            compared(
                f"{what}: real images beside synthetic",
                found["real"],
                found["synthetic"],
                unit="img/s",
                bar=0.95,
                faster=False,
            )
        ]
        if self.gpu:
            share = _busy(lambda: ours.steps(ours.forever(ours.batches), max(4, words.steps // 2)))
            rows.append(Row(f"{what}: GPU busy on real images", share, None, "", share, share, share, 0.95))
        return rows

    def _step_words(self, backbone: str) -> Namespace:
        words = self.words
        threads = os.cpu_count() or 1
        return Namespace(
            backbone=backbone,
            size=words.size,
            batch=words.batch,
            steps=words.steps,
            rounds=words.rounds,
            device=words.device,
            threads=threads,
        )

    def step(self, backbone: str) -> list[Row]:
        """Whole runs beside the plain ways."""
        own = self.folder / f"step-{backbone}"
        own.mkdir()
        return bench_step.measure(self._step_words(backbone), own)

    def _overrides(self, backbone: str, *more: str) -> list[str]:
        return bench_step.overrides_of(self._step_words(backbone), self.photos, gpu=self.gpu, more=more)

    def syncs(self, backbone: str) -> list[Row]:
        """Waits per step, by PyTorch's debugging mode."""
        if not self.gpu:
            return []
        import torch

        steps = self.words.steps
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            bench_step.ours(
                self._overrides(backbone),
                steps=steps,
                gpu=True,
                at_first=lambda: torch.cuda.set_sync_debug_mode("warn"),
                at_last=lambda: torch.cuda.set_sync_debug_mode("default"),
            )
        found = [one for one in said if "called a synchronizing CUDA operation" in str(one.message)]
        for place in sorted({f"{one.filename}:{one.lineno}" for one in found}):
            print(f"  waits for the GPU: {place}", flush=True)
        return [alone(f"{backbone}: waits for the GPU per step", [len(found) / steps], unit="", bar=0.0)]

    def memory(self, backbone: str) -> list[Row]:
        """The estimate over the measured peak."""
        from headstart.config.compose import compose
        from headstart.finding.memory import estimate
        from headstart.preparation import prepare

        overrides = self._overrides(backbone)
        guessed = estimate(prepare(compose(overrides))).peak()
        if not self.gpu:
            return [alone(f"{backbone}: estimate of the peak memory", [guessed / 1e9], unit="GB", bar=None)]
        import torch

        _empty()
        torch.cuda.reset_peak_memory_stats()
        bench_step.ours(overrides, steps=self.words.steps, gpu=True)
        peak = torch.cuda.max_memory_allocated()
        ratio = guessed / peak
        note = "within 15 %" if abs(ratio - 1) <= 0.15 else "NOT within 15 %"
        what = f"{backbone}: estimated over measured peak memory"
        return [Row(what, guessed / 1e9, peak / 1e9, "GB", ratio, ratio, ratio, 1.15, True, note)]

    def layout(self, backbone: str) -> list[Row]:
        """The same run with the channels last, and compiled."""
        from headstart.config.schema.trainer import TrainerConfig

        known = TrainerConfig.__dataclass_fields__
        ways = [("channels_last", "trainer.channels_last=true"), ("compile", "trainer.compile=default")]
        fixed = [
            f"trainer.{key}={value}"
            for key, value in (("channels_last", "false"), ("compile", "none"))
            if key in known
        ]
        rows = []
        for key, override in ways:
            if key not in known:
                continue
            others = [text for text in fixed if key not in text]
            found: dict[str, list[float]] = {"with": [], "without": []}
            for _ in range(self.words.rounds):
                found["without"].append(self._rate(backbone, *fixed))
                found["with"].append(self._rate(backbone, *others, override))
            what = f"{backbone}: {override} beside without"
            rows.append(compared(what, found["with"], found["without"], unit="img/s", bar=None, faster=False))
        return rows

    def _rate(self, backbone: str, *more: str) -> float:
        seconds = bench_step.ours(self._overrides(backbone, *more), steps=self.words.steps, gpu=self.gpu)
        _empty()
        return float(self.words.batch / seconds)

    def packed(self) -> list[Row]:
        """A sweep of small runs, several at once, beside one after another."""
        words = self.words
        photos = make_jpegs(self.folder / "small", words.small_images)
        self._sweep(photos, "warm", together=1, runs=1)
        found: dict[str, list[float]] = {"packed": [], "in turn": []}
        for turn in range(max(1, words.rounds - 1)):
            for name, together, runs in (
                ("in turn", 1, max(2, words.runs // 2)),
                ("packed", words.runs, words.runs),
            ):
                whole = self._sweep(photos, f"{name}-{turn}".replace(" ", "-"), together=together, runs=runs)
                # the same command once more finds all done: what is left is starting, planning and comparing
                rest = self._sweep(photos, f"{name}-{turn}".replace(" ", "-"), together=together, runs=runs)
                # of runs too short to be told from that, all of the time is taken
                found[name].append(runs * 3600 / (whole - rest if whole > 1.2 * rest else whole))
        what = f"runs of {words.small} at {words.small_size} px, {words.runs} at once beside one after another"
        return [compared(what, found["packed"], found["in turn"], unit="runs/h", bar=2.5, faster=False)]

    def _sweep(self, photos: Path, name: str, *, together: int, runs: int) -> float:
        """Seconds of the command."""
        words = self.words
        cores = os.cpu_count() or 1
        place = f"launcher.jobs_per_gpu={together}" if self.gpu else f"launcher.workers={together}"
        overrides = [
            f"backbone.name={words.small}", "weights=scratch", "strategy=full", "data=image_folder",
            f"data.path={photos}", f"data.image_size={words.small_size}", "data.batch_size=64",
            f"seed=range({runs})" if runs > 1 else "seed=0", f"trainer.max_epochs={words.small_epochs}",
            f"trainer.accelerator={'gpu' if self.gpu else 'cpu'}", f"trainer.threads={max(1, cores // words.runs)}",
            "data.num_workers=1" if self.gpu else "data.num_workers=0", "trainer.progress=none", "logger=csv",
            f"sweep.name={name}", place,
        ]  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "headstart", "train", "-m", *overrides],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return time.monotonic() - began


def _busy(work: Callable[[], Any]) -> float:
    """The share of its time that the GPU computes or copies, from the first to the last thing it does."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == DeviceType.CUDA
    )
    # what comes before the steps (the loader's start) is no step
    spans = spans[len(spans) // 5 :]
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(busy / (reached - spans[0][0]))


def _empty() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
