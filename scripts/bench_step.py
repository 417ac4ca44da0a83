"""The training step of full fine-tuning, beside the plain PyTorch loop and plain Lightning with the same settings.

Ours is a whole run (data module, decoded cache, records) whose steps are timed from one optimiser step to
another, in the first epoch, after the first ones. The plain ways have the images decoded in memory (on a GPU:
in its memory), pick a batch, normalise it, and step: same model, optimiser, batch, precision and threads. The
three take turns in one process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_data import make_jpegs
from bench_rows import Row, compared, on_gpu, scratch, show

if TYPE_CHECKING:
    from headstart.preparation import Prepared

BAR = 0.98
WARM_UP = 3
"""First steps, which are not timed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how often."""
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="timed steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())


def run(words: argparse.Namespace) -> int:
    """Measure and print."""
    with scratch() as folder:
        return show(measure(words, folder), device=words.device, path=words.json)


def measure(words: argparse.Namespace, folder: Path) -> list[Row]:
    """The three ways in turn, round after round."""
    from headstart.config.compose import compose
    from headstart.preparation import prepare

    count = words.batch * (words.steps + WARM_UP)
    photos = make_jpegs(folder / "photos", count + 20)
    gpu = on_gpu(words.device)
    overrides = overrides_of(words, photos, gpu=gpu)
    first = prepare(compose(overrides))
    first.data.warm(threads=words.threads, test=False)
    plain = Plain(first)
    found: dict[str, list[float]] = {"ours": [], "plain": [], "lightning": []}
    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: plain.loop(words.steps),
        "ours": lambda: ours(overrides, steps=words.steps, gpu=gpu),
        "lightning": lambda: plain.lightning(words.steps),
    }
    for turn in range(words.rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            found[name].append(words.batch / ways[name]())
        said = "  ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
        print(f"round {turn + 1}/{words.rounds}  images per second: {said}", flush=True)
    what = f"step of full fine-tuning, {words.backbone}, {words.size} px, batch {words.batch}"
    where = "GPU" if gpu else "CPU"
    return [
        compared(
            f"{what}, {where}, by {way}",
            found["ours"],
            found[key],
            unit="img/s",
            bar=bar,
            faster=False,
        )
        for key, way, bar in (("plain", "the plain loop", BAR), ("lightning", "plain Lightning", None))
    ]


def overrides_of(words: Any, photos: Path, *, gpu: bool, more: Sequence[str] = ()) -> list[str]:
    """The run that is timed."""
    threads = getattr(words, "threads", multiprocessing.cpu_count())
    return [
        f"backbone.name={words.backbone}", "weights=scratch", "strategy=full", "data=image_folder",
        f"data.path={photos}", f"data.image_size={words.size}", f"data.batch_size={words.batch}",
        "data.val_size=10", "data.test_size=10", f"trainer.max_steps={words.steps + WARM_UP}", "trainer.test=false",
        f"trainer.accelerator={'gpu' if gpu else 'cpu'}", f"trainer.threads={threads}", "trainer.progress=none",
        "logger=csv", *more,
    ]  # fmt: skip


def ours(
    overrides: Sequence[str],
    *,
    steps: int,
    gpu: bool,
    at_first: Callable[[], None] = lambda: None,
    at_last: Callable[[], None] = lambda: None,
) -> float:
    """Seconds per step of a run, from optimiser step `WARM_UP` to the last; the calls come there."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from headstart.config.compose import compose
    from headstart.experiment import run as run_experiment

    marks: list[float] = []
    count = 0

    def stepped(*_: Any) -> None:
        nonlocal count
        count += 1
        if count in (WARM_UP, WARM_UP + steps):
            if count != WARM_UP:
                at_last()
            if gpu:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
            if count == WARM_UP:
                at_first()

    handle = register_optimizer_step_post_hook(stepped)
    try:
        run_experiment(compose(list(overrides)))
    finally:
        handle.remove()
    return (marks[1] - marks[0]) / steps


class Plain:
    """The loops that people write, on the images of a prepared run."""

    def __init__(self, prepared: Prepared) -> None:
        import torch

        self.config = prepared.config
        self.gpu = self.config.trainer.accelerator == "gpu"
        self.device = torch.device("cuda" if self.gpu else "cpu")
        batches = list(prepared.data.plain_train_dataloader())
        self.images = torch.cat([batch["image"] for batch in batches]).to(self.device)
        self.targets = torch.cat([batch["target"] for batch in batches]).to(self.device)
        mean, std = (torch.tensor(list(values or ())) for values in (self.config.data.mean, self.config.data.std))
        self.mean, self.std = mean.view(-1, 1, 1).to(self.device), std.view(-1, 1, 1).to(self.device)
        # before the first training, which would leave it trained
        self.model = prepared.built.model.to(self.device).train()

    def optimizer(self) -> Any:
        """As the run has it: matrices decay, vectors do not."""
        import torch

        own = self.config.optimizer
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": own.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=own.lr, fused=own.fused)

    def loss(self, rows: Any) -> Any:
        """Of a batch, by the places of its images."""
        import torch
        from torch.nn import functional as F

        images = (self.images[rows].float() / 255 - self.mean) / self.std
        kind = {"bf16-mixed": torch.bfloat16}.get(self.config.trainer.precision)
        with torch.autocast(self.device.type, dtype=kind, enabled=kind is not None):
            return F.cross_entropy(self.model(images), self.targets[rows])

    def rows(self) -> list[Any]:
        """The places of the images of each batch of an epoch."""
        import torch

        order = torch.randperm(len(self.images), device=self.device)
        return [
            rows for rows in order.split(self.config.data.batch_size) if len(rows) == self.config.data.batch_size
        ]

    def loop(self, steps: int) -> float:
        """Seconds per step of the plain loop."""
        optimizer = self.optimizer()
        began = 0.0
        for turn, rows in enumerate(self.rows()[: steps + WARM_UP]):
            loss = self.loss(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if turn == WARM_UP - 1:
                began = self.now()
        return (self.now() - began) / steps

    def lightning(self, steps: int) -> float:
        """Seconds per step of a plain LightningModule in a plain Trainer."""
        import logging

        import pytorch_lightning as pl

        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        outer = self
        marks: list[float] = []

        class Module(pl.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = outer.model

            def training_step(self, rows: Any, place: int) -> Any:
                return outer.loss(rows)

            def configure_optimizers(self) -> Any:
                return outer.optimizer()

            def on_train_batch_end(self, outputs: Any, batch: Any, place: int) -> None:
                if place in (WARM_UP - 1, WARM_UP + steps - 1):
                    marks.append(outer.now())

        trainer = pl.Trainer(
            accelerator="gpu" if self.gpu else "cpu", devices=1, max_steps=steps + WARM_UP, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Module(), train_dataloaders=_Batches(self.rows()))
        return (marks[1] - marks[0]) / steps

    def now(self) -> float:
        """When the device has done all of it."""
        import torch

        if self.gpu:
            torch.cuda.synchronize()
        return time.perf_counter()


class _Batches:
    """What Lightning takes for one loader: a list would be several."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)
