"""How fast images come: the loader alone, the training step alone, and both together, beside the plain way."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SCALE = (0.2, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What comes, and how."""
    parser.add_argument("--augment", default="light", help="data: as data.augment; plainly none or light")
    parser.add_argument("--workers", type=int, default=None, help="data: worker processes of the plain way")
    parser.add_argument("--own-workers", type=int, default=None, help="data: as data.num_workers")
    parser.add_argument("--loader-images", type=int, default=1000, help="data: JPEG files of about 500 pixels")


def data(
    *,
    backbone: str,
    size: int,
    batch: int,
    images: int,
    steps: int,
    rounds: int,
    device: str,
    augment: str,
    workers: int | None,
    own_workers: int | None,
    path: Path | None,
) -> None:
    """Print images per second of both ways and their ratios, round by round and as medians.

    Both ways take the same files through the same crops, flips and normalisation to float batches on the device;
    the plain one is torchvision's ImageFolder in PyTorch's DataLoader.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HEADSTART_CACHE"] = str(Path(scratch) / "cache")
        os.environ["HEADSTART_OUTPUTS"] = str(Path(scratch) / "outputs")
        photos = make_jpegs(Path(scratch) / "photos", images)
        ours = Ours(photos, backbone, size, batch, device, augment, own_workers)
        plain = Plain(photos, ours, workers)
        print(
            f"{backbone}, {size} pixels, batches of {batch}, {images} JPEG files, data.augment={augment}, on "
            f"{ours.device}; decoded once in {ours.decoding:.1f} s; {plain.workers} workers in the plain way, "
            f"{ours.workers} in ours",
            flush=True,
        )
        found: dict[str, list[float]] = {}
        for turn in range(rounds):
            rates = {
                "plain loader": rate(plain.batches(), images, ours.wait),
                "own loader": rate(ours.batches(), images, ours.wait),
                "step, synthetic": ours.steps(ours.synthetic(), steps),
                "step, own loader": ours.steps(ours.forever(ours.batches), steps),
                "step, plain loader": ours.steps(ours.forever(plain.batches), steps),
            }
            for name, value in rates.items():
                found.setdefault(name, []).append(value)
            print(f"round {turn + 1}/{rounds}  " + "  ".join(f"{n} {v:.0f}" for n, v in rates.items()), flush=True)
    ratios = {
        "loader, times the plain one": _ratio(found["own loader"], found["plain loader"]),
        "training on own loader over synthetic": _ratio(found["step, own loader"], found["step, synthetic"]),
        "training on plain loader over synthetic": _ratio(found["step, plain loader"], found["step, synthetic"]),
    }
    print("\nimages per second, median [lowest, highest]")
    for name, values in found.items():
        print(f"  {name:<20} {statistics.median(values):9.1f} [{min(values):.1f}, {max(values):.1f}]")
    for name, (middle, low, high) in ratios.items():
        print(f"  {name:<40} {middle:.3f} [{low:.3f}, {high:.3f}]")
    if path:
        path.write_text(json.dumps({"rates": found, "ratios": ratios}, indent=1))


def _ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(each), min(each), max(each)


def rate(batches: Iterable[Any], images: int, wait: Callable[[], None]) -> float:
    """Images per second of one pass."""
    began = time.perf_counter()
    for _ in batches:
        pass
    wait()
    return images / (time.perf_counter() - began)


def make_jpegs(root: Path, count: int) -> Path:
    """JPEG files of 500 x 375 pixels, about 65 kB each, in two classes: windows of scikit-learn's photographs."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for name in ("0", "1"):
        (root / name).mkdir(parents=True)

    def make(i: int) -> None:
        random = np.random.default_rng(i)
        wide = int(random.integers(400, 570))
        left, top = int(random.integers(0, 641 - wide)), int(random.integers(0, 428 - wide * 3 // 4))
        window = photographs[i % 2].resize((500, 375), box=(left, top, left + wide, top + wide * 3 // 4))
        window.save(root / str(i % 2) / f"{i:06d}.jpg", quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, range(count)))
    return root


class Ours:
    """Headstart's data module and training step."""

    def __init__(
        self,
        photos: Path,
        backbone: str,
        size: int,
        batch: int,
        device: str,
        augment: str,
        workers: int | None,
    ) -> None:
        import torch

        from headstart.assembly import module_of
        from headstart.config.compose import compose
        from headstart.preparation import prepare

        words = [
            f"backbone.name={backbone}", "weights=scratch", "data=image_folder", f"data.path={photos}",
            f"data.image_size={size}", f"data.batch_size={batch}", f"data.augment={augment}", "data.val_size=2",
            "data.test_size=2", "logger=none", f"trainer.accelerator={device}",
        ]  # fmt: skip
        if workers is not None:
            words.append(f"data.num_workers={workers}")
        prepared = prepare(compose(words))
        self.config = prepared.config
        self.module = prepared.data
        self.device = "cuda" if prepared.config.trainer.accelerator == "gpu" else "cpu"
        self.workers = prepared.config.data.num_workers
        self.size, self.batch = size, batch
        self.precision = torch.bfloat16 if self.device == "cuda" else None
        began = time.perf_counter()
        prepared.data.warm(threads=os.cpu_count() or 1, test=False)
        self.decoding = time.perf_counter() - began
        self._loader = prepared.data.train_dataloader()
        self.model = module_of(prepared).to(self.device).train()
        self.model.enter(prepared.plan.at(0))
        self.optimizer = torch.optim.SGD(self.model.model.parameters(), lr=1e-3, momentum=0.9)

    def batches(self) -> Iterator[Any]:
        """One epoch, ready for the model."""
        for batch in self._loader:
            yield self.module.on_after_batch_transfer(self.moved(batch), 0)

    def moved(self, batch: dict[str, Any]) -> dict[str, Any]:
        """On the device, as Lightning moves it."""
        import torch
        from lightning_fabric.utilities import move_data_to_device

        moved: dict[str, Any] = move_data_to_device(batch, torch.device(self.device))
        return moved

    def synthetic(self) -> Iterator[Any]:
        """The same batch again and again, already on the device."""
        import torch

        images = torch.randn(self.batch, 3, self.size, self.size, device=self.device)
        targets = torch.zeros(self.batch, dtype=torch.long, device=self.device)
        return itertools.repeat({"image": images, "target": targets, "index": targets})

    @staticmethod
    def forever(batches: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Epoch after epoch."""
        while True:
            yield from batches()

    def steps(self, batches: Iterator[Any], count: int) -> float:
        """Images per second of training steps, the first two left out."""
        import torch

        began, images = 0.0, 0
        for turn, batch in enumerate(itertools.islice(batches, count + 2)):
            if turn == 2:
                self.wait()
                began = time.perf_counter()
            with torch.autocast(self.device, dtype=self.precision, enabled=self.precision is not None):
                # not by `training_step`: without a trainer each of its steps is the first, and waits for the device
                loss = self.model.loss(self.model(batch["image"]), batch["target"])
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            images += len(batch["target"]) if turn >= 2 else 0
        self.wait()
        return images / (time.perf_counter() - began)

    def wait(self) -> None:
        """Until the device has done all of it."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()


class Plain:
    """torchvision's ImageFolder and PyTorch's DataLoader."""

    def __init__(self, photos: Path, ours: Ours, workers: int | None) -> None:
        import torch
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        data = ours.config.data
        mode = v2.InterpolationMode(data.interpolation)
        crop = (
            [v2.Resize(round(ours.size / data.crop_pct), interpolation=mode), v2.CenterCrop(ours.size)]
            if data.augment == "none"
            else [
                v2.RandomResizedCrop(ours.size, scale=SCALE, interpolation=mode),
                v2.RandomHorizontalFlip(),
            ]
        )
        transform = v2.Compose(
            [*crop, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std)]
        )
        self.workers = (os.cpu_count() or 1) if workers is None else workers
        self._ours = ours
        self._loader = DataLoader(
            ImageFolder(photos, transform),
            batch_size=ours.batch,
            shuffle=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=ours.device == "cuda",
        )

    def batches(self) -> Iterator[Any]:
        """One epoch, ready for the model."""
        for images, targets in self._loader:
            moved = images.to(self._ours.device, non_blocking=True)
            target = targets.to(self._ours.device, non_blocking=True)
            yield {"image": moved, "target": target, "index": target}
