"""The scores that a run's tested weights give to images, as they are or spoilt."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from headstart.config.schema.root import Config
from headstart.data import ImageDataModule
from headstart.data.corruptions import corrupt
from headstart.data.dataset import Batch
from headstart.errors import RecordError
from headstart.preparation import set_determinism
from headstart.records.store import read_record
from headstart.resolve import resolve_accelerator, resolve_precision
from headstart.trained.load import load_run, tested_weights
from headstart.training.checkpoints import weights_sha256

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Spoiling:
    """Which corruption, how strong."""

    corruption: str
    severity: int


class Scorer:
    """A run's model on the CPU or GPU, and the machine as the run's config wants it."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Load it; raises RecordError where the weights are gone, or are not those that the run tested."""
        record = read_record(folder)
        name = tested_weights(folder).stem
        self.weights_sha256 = weights_sha256(folder)[name]
        if record.final_weights.get(name, self.weights_sha256) != self.weights_sha256:
            raise RecordError(f"{folder}: its weights ({name}.safetensors) were changed after the run.")
        trainer = config.trainer
        self.accelerator = resolve_accelerator(trainer.accelerator)
        same = self.accelerator == record.config["trainer"].get("accelerator")
        chosen = (
            trainer.precision if same or trainer.precision != record.config["trainer"].get("precision") else "auto"
        )
        self.precision = resolve_precision(chosen, accelerator=self.accelerator)
        self.threads = trainer.threads or 1
        set_determinism(trainer.deterministic)
        torch.set_num_threads(self.threads)
        self.device = torch.device("cuda" if self.accelerator == "gpu" else "cpu")
        self.model, _ = load_run(folder)
        self.model.to(self.device)

    def score(
        self,
        data: ImageDataModule,
        loader: DataLoader[Batch],
        *,
        spoiling: Spoiling | None = None,
        tell: Callable[[int], None] = lambda count: None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (n, outputs) before softmax or sigmoid and targets of the split `test`, in its order.

        `loader` is `data.test_dataloader()`, worth keeping: it remembers images and processes. `tell` hears how
        many images are done. Raises RecordError where scores are not finite.
        """
        ids = data.splits["test"].ids
        scores: list[torch.Tensor] = []
        targets: list[torch.Tensor] = []
        done = 0
        with torch.inference_mode(), ThreadPoolExecutor(self.threads) as pool:
            for batch in loader:
                if spoiling is not None:
                    batch = _spoilt(batch, ids, spoiling, pool)
                scores.append(self._of(data, batch))
                targets.append(batch["target"])
                done += len(batch["target"])
                tell(done)
            found = torch.cat(scores).float().cpu()
        if not bool(torch.isfinite(found).all()):
            raise RecordError(f"the scores are not finite ({self.precision} on {self.device.type}).")
        return found, torch.cat(targets)

    def _of(self, data: ImageDataModule, batch: Batch) -> torch.Tensor:
        moved = {**batch, "image": batch["image"].to(self.device)}
        images = data.on_after_batch_transfer(moved, 0)["image"]
        kind = _AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype=kind, enabled=kind is not None):
            scores: torch.Tensor = self.model(images)
        return scores.float()


def _spoilt(batch: Batch, ids: list[str], spoiling: Spoiling, pool: ThreadPoolExecutor) -> Batch:
    """The same batch with spoilt images: each by itself, so that its neighbours and the threads do not matter."""
    images = batch["image"].numpy()
    examples = [ids[position] for position in batch["index"].tolist()]
    found = pool.map(
        lambda image, example: corrupt(image, spoiling.corruption, spoiling.severity, example=example),
        images,
        examples,
    )
    return {**batch, "image": torch.from_numpy(np.stack(list(found)))}
