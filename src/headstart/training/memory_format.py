"""Channels first or last in memory: which is faster for a model on this machine, by a short measurement."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

from headstart.records.measurements import keep, kept

GAIN = 1.05
"""How many times as fast channels last must be to be chosen."""
STEPS = 200
"""A run of fewer optimiser steps is not worth a measurement."""
_ROUNDS = 5
_ENOUGH = 5.0
"""Seconds of measuring after which two rounds are enough."""


def channels_last_is_faster(
    model: nn.Module,
    *,
    name: str,
    trains: Sequence[str],
    batch_size: int,
    shape: tuple[int, int, int],
    accelerator: str,
    precision: str,
    threads: int,
    checkpointing: bool,
    cache: Path,
) -> bool:
    """Whether `model` takes its steps at least `GAIN` times as fast with the channels last.

    Steps are forward and backward passes in which the parameters named in `trains` train, or forward passes where
    there are none, of `batch_size` random images (channels, height, width), on a copy. What was measured is kept
    under `cache` for runs of the same model, trained part, batch, size, precision, device, PyTorch and threads.
    """
    device = "cuda" if accelerator == "gpu" else "cpu"
    key = {
        "what": "channels_last",
        "model": [name, [(key, list(value.shape)) for key, value in model.state_dict().items()]],
        "trains": sorted(trains),
        "batch": [batch_size, *shape],
        "precision": precision,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": threads,
        "checkpointing": checkpointing,
    }
    found = kept(cache, key, ("channels_first", "channels_last"))
    if found is None:
        first, last = _measure(model, trains=trains, batch=(batch_size, *shape), device=device, precision=precision)
        found = {"channels_first": first, "channels_last": last}
        keep(cache, key, found, of={**key, "model": name, "trains": len(trains)})
    return found["channels_first"] >= GAIN * found["channels_last"]


def _measure(
    model: nn.Module, *, trains: Sequence[str], batch: tuple[int, int, int, int], device: str, precision: str
) -> tuple[float, float]:
    """The fewest seconds of a step with the channels first and with the channels last, measured in turn."""
    steps = [
        _step(model, trains=trains, batch=batch, device=device, precision=precision, memory=memory)
        for memory in (torch.contiguous_format, torch.channels_last)
    ]
    for step in steps:  # the first makes room and chooses algorithms
        step()
    seconds: list[list[float]] = [[], []]
    began = time.monotonic()
    for count in range(_ROUNDS):
        if count >= 2 and time.monotonic() - began > _ENOUGH:
            break
        for step, own in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            own.append(time.perf_counter() - start)
    return min(seconds[0]), min(seconds[1])


def _step(
    model: nn.Module,
    *,
    trains: Sequence[str],
    batch: tuple[int, int, int, int],
    device: str,
    precision: str,
    memory: torch.memory_format,
) -> Callable[[], None]:
    own = copy.deepcopy(model).to(device, memory_format=memory).train(bool(trains))  # type: ignore[call-overload]
    for key, parameter in own.named_parameters():
        parameter.requires_grad_(key in set(trains))
    images = torch.rand(batch, generator=torch.Generator().manual_seed(0)).to(device, memory_format=memory)
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)

    def step() -> None:
        with torch.random.fork_rng(devices=[] if device == "cpu" else None), torch.set_grad_enabled(bool(trains)):
            with torch.autocast(device, dtype=kind) if kind else nullcontext():
                loss = own(images).float().square().mean()
            if trains:
                own.zero_grad()
                loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step
