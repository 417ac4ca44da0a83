"""A linear probe on features that are computed once, beside the loop that people write.

The plain way: images decoded in memory; in each of the epochs all of them go through the backbone in evaluation
mode under no_grad, and a linear layer is trained on what comes out. Ours: `seconds.fit` and `seconds.features`
together of a run of the same length, in this process, with an empty cache (cold) and with the features of an
earlier run (warm). Training split only: 20 images are left for validation, without which no run goes, and
nothing is tested. The plain loop's epochs are alike: `--plain-epochs` of them are timed and scaled. Beside it,
the wall clock of the whole command from the prompt.
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

COLD, WARM = 6.0, 100.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is probed."""
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="pretrained", help="as `weights=`")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--plain-epochs", type=int, default=1, help="epochs of the plain loop that are timed")
    parser.add_argument("--rounds", type=int, default=3)


def run(words: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch() as folder:
        return show(measure(words, folder), device="cpu", path=words.json)


def measure(words: argparse.Namespace, folder: Path) -> list[Row]:
    """Both ways in turn, round after round."""
    import torch

    from headstart.config.compose import compose
    from headstart.experiment import run as run_experiment
    from headstart.preparation import prepare

    photos = make_jpegs(folder / "photos", words.images + 40)
    overrides = [
        f"backbone.name={words.backbone}", f"weights={words.weights}", "strategy=linear_probe", "data=image_folder",
        f"data.path={photos}", f"data.image_size={words.size}", f"data.batch_size={words.batch}",
        "data.val_size=20", "data.test_size=20", f"trainer.max_epochs={words.epochs}", "trainer.test=false",
        "trainer.accelerator=cpu", "trainer.progress=none", "logger=csv",
    ]  # fmt: skip
    prepared = prepare(compose(overrides))
    config = prepared.config
    batches = list(prepared.data.plain_train_dataloader())
    images = torch.cat([batch["image"] for batch in batches])
    targets = torch.cat([batch["target"] for batch in batches])
    found: dict[str, list[float]] = {name: [] for name in ("plain", "cold", "warm", "command cold", "command warm")}
    for turn in range(words.rounds):
        plain = Plain(prepared.built.model.backbone, classes=2, lr=config.optimizer.lr, batch=words.batch)
        seconds = plain.fit(images, targets, mean=config.data.mean, std=config.data.std, epochs=words.plain_epochs)
        found["plain"].append(seconds * words.epochs / words.plain_epochs)
        os.environ["HEADSTART_CACHE"] = str(folder / f"cache{turn}")
        for name in ("cold", "warm"):
            seconds_of = run_experiment(compose(overrides))[1].seconds
            found[name].append(seconds_of["fit"] + seconds_of.get("features", 0.0))
        os.environ["HEADSTART_CACHE"] = str(folder / f"command{turn}")
        for name in ("command cold", "command warm"):
            found[name].append(_command(overrides))
        said = "  ".join(f"{name} {values[-1]:.2f} s" for name, values in found.items())
        print(f"round {turn + 1}/{words.rounds}  {said}", flush=True)
    what = f"linear probe, {words.epochs} epochs, {words.images:,} images at {words.size} px"
    rows = [
        compared(f"{what}, {name}", found[name], found["plain"], unit="s", bar=bar, faster=True)
        for name, bar in (("cold", COLD), ("warm", WARM))
    ]
    return rows + [
        alone(f"the whole command, {name}", found[f"command {name}"], unit="s", bar=None)
        for name in ("cold", "warm")
    ]


class Plain:
    """The loop that people write."""

    def __init__(self, backbone: object, *, classes: int, lr: float, batch: int) -> None:
        import torch

        self.backbone: torch.nn.Module = backbone  # type: ignore[assignment]
        self.backbone.eval().requires_grad_(False)
        self.batch = batch
        self.classes, self.lr = classes, lr

    def fit(
        self, images: object, targets: object, *, mean: Sequence[float], std: Sequence[float], epochs: int
    ) -> float:
        """Seconds of `epochs` epochs over uint8 images (n, channels, height, width) and targets (n,)."""
        import torch
        from torch.nn import functional as F

        assert isinstance(images, torch.Tensor)
        assert isinstance(targets, torch.Tensor)
        middle, spread = (torch.tensor(list(values)).view(-1, 1, 1) for values in (mean, std))
        with torch.no_grad():
            width = self.backbone(torch.zeros(2, *images.shape[1:])).shape[1]
        head = torch.nn.Linear(width, self.classes)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr)

        def step(rows: torch.Tensor) -> None:
            with torch.no_grad():
                features = self.backbone((images[rows].float() / 255 - middle) / spread)
            loss = F.cross_entropy(head(features), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        step(torch.arange(min(self.batch, len(images))))  # what is done once is not timed
        began = time.perf_counter()
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(self.batch):
                step(rows)
        return time.perf_counter() - began


def _command(overrides: Sequence[str]) -> float:
    """Seconds of `headstart train` from the prompt."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "headstart", "train", *overrides], check=True, capture_output=True)
    return time.perf_counter() - began
