#!/usr/bin/env python3
"""Benchmarks: ratios against the plain way, measured in one run, with their spread.

.venv/bin/python scripts/bench.py strategies
.venv/bin/python scripts/bench.py strategies --backbone resnet50 --size 224 --rounds 9 --json strategies.json

.venv/bin/python scripts/bench.py sweep --rounds 3
.venv/bin/python scripts/bench.py listing --rounds 3 --threads 2
.venv/bin/python scripts/bench.py reproduce --rounds 2 --backbone test_resnet --vit test_vit --size 32
.venv/bin/python scripts/bench.py data --size 224

`strategies` takes training steps of each strategy beside those of `full`: seconds per step, peak memory, and how
much faster than `full` it is, next to what the arithmetic says: the multiplications of forward and backward pass.
Each measurement has a process of its own; the strategies take turns, round after round.

`sweep` runs jobs that train nothing, under Headstart's queue and under Hydra's basic and joblib launchers, and
plans 1,000 jobs over 10 models.

`data` takes JPEG files of about 500 pixels to the model: images per second of Headstart's loader from its cache of
decoded images and of torchvision's ImageFolder in PyTorch's DataLoader, of training steps on synthetic images, and
of training steps on either loader.
`listing` lists, fingerprints and splits 100,000 JPEG files that it makes first (6 GB), with an empty cache of
digests and with a full one.

`reproduce` trains every strategy several times, with and without `trainer.deterministic`, and says whether the same
bits came out and what determinism costs; exit status 1 where a deterministic run did not come out the same.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import bench_data
import bench_listing
import bench_reproduce
import bench_sweep

STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {},
    "linear_probe": {},
    "last_k k=1": {"k": 1},
    "last_k k=4": {"k": 4},
    "first_k k=1": {"k": 1},
    "norm_only": {},
    "bitfit": {},
    "ssf": {},
    "lora": {"rank": 8},
}


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    backbone: str
    size: int
    batch: int
    steps: int
    device: str
    threads: int


def main() -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("strategies", "sweep", "listing", "reproduce", "data"))
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    bench_sweep.add_arguments(parser)
    bench_listing.add_arguments(parser)
    bench_reproduce.add_arguments(parser)
    bench_data.add_arguments(parser)
    words = parser.parse_args()
    if words.what == "sweep":
        bench_sweep.sweep(jobs=words.jobs, rounds=words.rounds)
        return
    if words.what == "listing":
        bench_listing.listing(files=words.files, threads=words.threads, rounds=words.rounds)
        return
    if words.what == "data":
        bench_data.data(
            backbone=words.backbone,
            size=words.size,
            batch=words.batch,
            images=words.loader_images,
            steps=words.steps,
            rounds=words.rounds,
            device=words.device,
            augment=words.augment,
            workers=words.workers,
            own_workers=words.own_workers,
            path=words.json,
        )
        return
    if words.what == "reproduce":
        same = bench_reproduce.reproduce(
            backbone=words.backbone,
            vit=words.vit,
            size=words.size,
            batch=words.batch,
            images=words.images,
            device=words.device,
            precision=words.precision,
            rounds=words.rounds,
            path=words.json,
        )
        sys.exit(0 if same else 1)
    setting = Setting(words.backbone, words.size, words.batch, words.steps, words.device, words.threads)
    strategies(setting, list(dict.fromkeys(["full", *words.only])), rounds=words.rounds, path=words.json)


def strategies(setting: Setting, names: list[str], *, rounds: int, path: Path | None) -> None:
    """Measure each strategy beside `full`, print a table and perhaps write it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headstart.experiment"])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_measure, args=(name, setting, theirs))
            process.start()
            theirs.close()
            found[name].append(ours.recv())
            process.join()
            print(
                f"round {i + 1}/{rounds}  {name:<14} {found[name][-1]['seconds'] * 1e3:8.1f} ms per step",
                flush=True,
            )
    full = found["full"]
    rows = []
    for name, results in found.items():
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(full, results, strict=True)]
        rows.append(
            {
                "strategy": name,
                "ms_per_step": 1e3 * statistics.median(one["seconds"] for one in results),
                "times_faster": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "arithmetic": full[0]["arithmetic"] / results[0]["arithmetic"],
                "peak_mb": statistics.median(one["memory"] for one in results) / 2**20,
                "trainable": results[0]["trainable"],
            }
        )
    print(f"\n{_machine(setting)}\n")
    print(
        "| strategy | ms per step | times as fast as full | lowest to highest | by arithmetic | peak MiB | trains |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['strategy']} | {row['ms_per_step']:.1f} | {row['times_faster']:.2f} | {row['lowest']:.2f} to "
            f"{row['highest']:.2f} | {row['arithmetic']:.2f} | {row['peak_mb']:.0f} | {row['trainable']:,.0f} |"
        )
    if path:
        path.write_text(
            json.dumps({"setting": asdict(setting), "machine": _machine(setting), "rows": rows}, indent=1)
        )


def _measure(name: str, setting: Setting, pipe: Any) -> None:
    """In a process of its own: build, warm up, time the steps, count the arithmetic."""
    import torch

    from headstart.config.schema.head import LinearHeadConfig
    from headstart.config.schema.optimizer import AdamWConfig
    from headstart.config.schema.strategy import OPTIONS
    from headstart.models.classifier import build_classifier, full_name
    from headstart.strategies import Timing, build_plan
    from headstart.strategies.additions import attach
    from headstart.training.module import TransferModule
    from headstart.training.schedules import constant

    torch.set_num_threads(setting.threads)
    gpu = setting.device == "gpu" or (setting.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if gpu else "cpu")
    kind = name.partition(" ")[0]
    config = OPTIONS[kind](**STRATEGIES[name])
    built = build_classifier(
        name=full_name(setting.backbone, library="timm"),
        library="timm",
        head=LinearHeadConfig(),
        classes=10,
        channels=3,
        size=(setting.size, setting.size),
        weights=None,
        seed=0,
    )
    layers = attach(config, built.model, built.layers, shape=(3, setting.size, setting.size), seed=0)
    plan = build_plan(config, layers, Timing(setting.steps, setting.steps))
    module = TransferModule(
        built.model,
        layers=layers,
        plan=plan,
        loss=torch.nn.functional.cross_entropy,
        optimizer=AdamWConfig(),
        factor=constant,
        task="multiclass",
        seed=0,
    ).to(device)
    module.enter(plan.at(0))
    module.train()
    optimizer = module.configure_optimizers()["optimizer"]
    batch = {
        "image": torch.randn(setting.batch, 3, setting.size, setting.size, device=device),
        "target": torch.arange(setting.batch, device=device) % 10,
    }
    before = 0 if gpu else _resident()

    def step() -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    step()
    step()
    times = []
    for _ in range(setting.steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() if gpu else max(0, _peak() - before)
    counted = _count_arithmetic(built.model, step)
    pipe.send(
        {
            "seconds": statistics.median(times),
            "memory": memory,
            "arithmetic": counted,
            "trainable": plan.count_trainable(layers),
        }
    )
    pipe.close()


def _count_arithmetic(model: Any, step: Callable[[], None]) -> int:
    """Multiplications of one step in linear and convolutional layers.

    A layer multiplies once forward, once more for the gradient of its input where that has one, and once more for
    the gradient of its weight where that trains. (PyTorch's own counter takes grouped convolutions for whole ones.)
    """
    from torch import nn

    total = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal total
        once = output.numel() * module.weight[0].numel()
        total += once * (1 + inputs[0].requires_grad + module.weight.requires_grad)

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [module.register_forward_hook(count) for module in layers]
    step()
    for handle in handles:
        handle.remove()
    return total


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _machine(setting: Setting) -> str:
    return (
        f"{bench_reproduce.machine(setting.device)}, {setting.threads} threads; {setting.backbone}, "
        f"{setting.size} pixels, batches of {setting.batch}"
    )


if __name__ == "__main__":
    main()
