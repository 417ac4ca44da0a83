"""How long a person waits: for the command line, and from the prompt to the first training step.

The commands are timed whole, in an empty results folder. The first step is that of a script with the bare
imports of torch, torchvision, timm and pytorch_lightning, the same model and one step, beside `headstart
train`: both in a process of its own, in turn, with warm file caches, from before the process starts until the
optimiser's first step is done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench_data import make_jpegs
from bench_rows import Row, alone, compared, scratch, show

COMMANDS, FIRST = 0.6, 1.3

BARE = """
import sys, time
import torch, torchvision, timm, pytorch_lightning
torch.set_num_threads(int(sys.argv[4]))
model = timm.create_model(sys.argv[1], num_classes=10)
optimizer = torch.optim.AdamW(model.parameters())
size = int(sys.argv[2])
images = torch.randn(int(sys.argv[3]), 3, size, size)
torch.nn.functional.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.long)).backward()
optimizer.step()
print(time.time(), flush=True)
import os
os._exit(0)
"""

OURS = """
import os, sys, time

class Found:
    def find_spec(self, name, path=None, target=None):
        if name == "pytorch_lightning":  # by now torch is there
            sys.meta_path.remove(self)
            from torch.optim.optimizer import register_optimizer_step_post_hook

            register_optimizer_step_post_hook(lambda *_: (print(time.time(), flush=True), os._exit(0)))
        return None

sys.meta_path.insert(0, Found())
from headstart.cli import main
main(sys.argv[1:])
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What takes the first step."""
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)


def run(words: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch() as folder:
        return show(measure(words, folder), device="cpu", path=words.json)


def measure(words: argparse.Namespace, folder: Path) -> list[Row]:
    """Commands, then the first step of both ways in turn."""
    rows = []
    for command in (["--help"], ["runs"], ["compare"]):
        seconds = [_seconds(["-m", "headstart", *command]) for _ in range(words.rounds + 1)][1:]
        rows.append(alone(f"headstart {command[0]}", seconds, unit="s", bar=COMMANDS))
    photos = make_jpegs(folder / "photos", words.images)
    common = [
        f"backbone.name={words.backbone}", "strategy=full", f"data.image_size={words.size}",
        f"data.batch_size={words.batch}", f"trainer.threads={words.threads}", "trainer.max_steps=1",
        "trainer.accelerator=cpu", "trainer.progress=none", "logger=none",
    ]  # fmt: skip
    kinds = {
        "digits, from scratch": [*common, "weights=scratch", "data=digits"],
        f"{words.images:,} JPEG files, pretrained": [*common, "data=image_folder", f"data.path={photos}"],
    }
    bare = [words.backbone, str(words.size), str(words.batch), str(words.threads)]
    for name, overrides in kinds.items():
        if "from scratch" not in name and not _has_weights(words.backbone):
            continue
        _first(OURS, ["train", *overrides])  # digests and decoded images are there from now on
        ours, plain = [], []
        for _ in range(words.rounds):
            plain.append(_first(BARE, bare))
            ours.append(_first(OURS, ["train", *overrides]))
        print(f"{name}: {' '.join(f'{a:.2f}/{b:.2f}' for a, b in zip(ours, plain, strict=True))} s", flush=True)
        rows.append(
            compared(
                f"to the first step, {words.backbone}, {name}",
                ours,
                plain,
                unit="s",
                bar=FIRST,
                faster=False,
                at_most=True,
            )
        )
    return rows


def _has_weights(backbone: str) -> bool:
    """Whether there are weights without a network."""
    from headstart.config.schema.weights import PretrainedConfig
    from headstart.errors import HeadstartError
    from headstart.models.classifier import full_name
    from headstart.models.weights import locate_weights, resolve_origin

    try:
        origin = resolve_origin("auto", name=backbone, library="timm")
        name = full_name(backbone, library="timm")
        return locate_weights(PretrainedConfig(origin=origin), name=name, library="timm") is not None
    except HeadstartError:
        return False


def _seconds(words: Sequence[str]) -> float:
    """Of a command that may have nothing to show."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
    if done.returncode not in (0, 2):
        raise RuntimeError(done.stderr.decode())
    return time.perf_counter() - began


def _first(program: str, words: Sequence[str]) -> float:
    """Seconds until a program says that its first step is done."""
    began = time.time()
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    try:
        return float(done.stdout.split()[-1]) - began
    except (ValueError, IndexError):
        raise RuntimeError(f"{done.stdout}\n{done.stderr}") from None
