"""Training steps of each strategy beside those of `full`: seconds, peak memory, and what the arithmetic says.

The arithmetic counts multiplications of the forward and backward pass. Each measurement has a process of its
own; the strategies take turns, round after round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_rows import machine

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how often."""
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES), metavar="STRATEGY")


def run(words: argparse.Namespace) -> int:
    """Measure each strategy that was asked for."""
    setting = Setting(words.backbone, words.size, words.batch, words.steps, words.device, words.threads)
    strategies(setting, list(dict.fromkeys(["full", *words.only])), rounds=words.rounds, path=words.json)
    return 0


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    backbone: str
    size: int
    batch: int
    steps: int
    device: str
    threads: int


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
    print(f"\n{_said(setting)}\n")
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
        path.write_text(json.dumps({"setting": asdict(setting), "machine": _said(setting), "rows": rows}, indent=1))


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


def _said(setting: Setting) -> str:
    return (
        f"{machine(setting.device)}, {setting.threads} threads; {setting.backbone}, "
        f"{setting.size} pixels, batches of {setting.batch}"
    )
