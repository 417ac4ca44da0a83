"""One candidate: features of the training images, what its source's classifier says of them, and what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.config.compose import compose
from headstart.config.schema.root import Config
from headstart.config.schema.weights import LoadedConfig
from headstart.data import ImageDataModule
from headstart.errors import WeightsError
from headstart.features.bank import FeatureBank
from headstart.finding.memory import estimate
from headstart.models.source_head import source_head
from headstart.preparation import Prepared, prepare
from headstart.rehearsal import Rehearsal, data_of, is_drawn
from headstart.resolve import resolve
from headstart.together import bank_of
from headstart.transferability.candidates import Candidate
from headstart.transferability.scores import Examples
from headstart.transferability.scores.examples import CLASSES, blocks
from headstart.trouble import ran_out_of_memory

Floats = npt.NDArray[np.floating[Any]]

IMAGES = 32
"""Images of each forward pass that is timed, or as many as there is room for."""
_PASSES = 3
_FORMS = 4
"""Data modules that are kept for candidates that see images in the same form."""
_LONGEST = 2.0
"""Seconds of a pass above which one is timed and no more."""


@dataclass(frozen=True)
class Examined:
    """What one candidate makes of the training images."""

    prepared: Prepared
    bank: FeatureBank
    examples: Examples
    no_source: str
    """Why `examples.source` is not there; empty where it is."""
    parameters: int
    images_per_second: float
    memory: int
    seconds: dict[str, float]

    @property
    def weights(self) -> dict[str, Any]:
        """As `Ranked.weights` says."""
        config, weights = self.prepared.config, self.prepared.weights
        return {
            "source": config.weights.source,
            "name": weights.name if weights else None,
            "sha256": weights.sha256 if weights else None,
            "seed": config.seed if is_drawn(config, self.prepared.built) else None,
        }


def config_of(candidate: Candidate, shared: Sequence[str], config_dirs: tuple[str, ...]) -> Config:
    """The experiment that would fine-tune all of a candidate; raises ConfigError for overrides that cannot be."""
    words = [*candidate.after(shared), "strategy=full", "logger=none"]
    return compose(words, config_dirs=config_dirs)


def read_data(config: Config, rehearsal: Rehearsal) -> None:
    """Read the data as a candidate sees them; raises a HeadstartError that all candidates would raise."""
    data_of(resolve(config), rehearsal, fresh=False)


def examine(config: Config, rehearsal: Rehearsal, *, with_source: bool) -> Examined:
    """Load a candidate, pass the training images through it once, as they are evaluated, and weigh it.

    Features come from the cache where that has them. With `with_source` the classifier that it was pretrained with
    is asked too. `rehearsal` keeps the data for candidates that see images in the same form. Raises a
    HeadstartError where weights or data cannot be had.
    """
    began = time.monotonic()
    prepared = prepare(config, rehearsal=rehearsal)
    rehearsal.models.clear()  # they are large, and each is asked for once
    while len(rehearsal.data) > _FORMS:
        del rehearsal.data[next(iter(rehearsal.data))]
    ready = time.monotonic()
    bank = bank_of(prepared)
    features = features_of(bank, prepared.data, prepared.config)
    targets = prepared.data.targets("train").numpy()
    source: npt.NDArray[Any] | None = None
    no_source = "was not asked for"
    if with_source and prepared.facts.task in CLASSES:
        source, no_source = _ask_source(prepared, features)
    computed = time.monotonic()
    return Examined(
        prepared,
        bank,
        Examples(
            features,
            targets,
            prepared.facts.task,
            prepared.facts.num_classes,
            source,
            prepared.data.images("train", augmented=False).digests,
        ),
        no_source,
        parameters=sum(p.numel() for p in prepared.built.model.backbone.parameters()),
        images_per_second=_throughput(prepared),
        memory=_memory(prepared),
        seconds={
            "setup": round(ready - began, 3),
            "features": round(computed - ready, 3),
            "costs": round(time.monotonic() - computed, 3),
        },
    )


def features_of(bank: FeatureBank, data: ImageDataModule, config: Config) -> Floats:
    """(n, width) float32: features of the training split in its order, without augmentation."""
    if bank.missing(data, ["train"]):
        as_evaluated(data).warm(threads=config.trainer.threads or 1, test=False, val=False)
    table = bank.tables(data, ["train"])["train"]
    found: Floats = table.rows(torch.arange(len(table))).cpu().numpy()
    return found


def as_evaluated(data: ImageDataModule) -> ImageDataModule:
    """The same data, whose training images are seen as they are evaluated."""
    other = data.for_seed(data.seed)
    other.augmentation = None
    return other


def _ask_source(prepared: Prepared, features: Floats) -> tuple[npt.NDArray[Any] | None, str]:
    """(n, source classes) float32 probabilities of the source's classifier, or None and why it has none."""
    config = prepared.config
    try:
        head = source_head(
            prepared.weights,
            backbone=prepared.built.model.backbone,
            name=config.backbone.name,
            library=config.backbone.library,
            shape=(config.data.channels, *prepared.facts.image_size),
            pool=config.head.pool,
            first_k=config.weights.first_k if isinstance(config.weights, LoadedConfig) else None,
        )
    except WeightsError as error:
        return None, str(error)
    said = np.empty((len(features), head.out_features), dtype=np.float32)
    with torch.no_grad():
        for rows in blocks(len(features), width=head.out_features):  # 21,000 classes take room
            said[rows] = head.double()(torch.from_numpy(features[rows]).double()).softmax(dim=1).numpy()
    return said, ""


def _throughput(prepared: Prepared) -> float:
    """Images per second of a forward pass without gradients, the median of a few; 0 where no size has room."""
    count = IMAGES
    while count:
        try:
            return _timed(prepared, count)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
        count //= 2
    return 0.0


def _timed(prepared: Prepared, count: int) -> float:
    config, facts = prepared.config, prepared.facts
    device = torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
    backbone = prepared.built.model.backbone.to(device).eval()
    images = torch.zeros(count, facts.channels, *facts.image_size, device=device)
    images.normal_(generator=torch.Generator(device).manual_seed(0))
    seconds: list[float] = []
    with torch.inference_mode():
        for place in range(_PASSES + 1):
            began = time.monotonic()
            backbone(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent = time.monotonic() - began
            if place or spent > _LONGEST:  # the first makes room for what the others use
                seconds.append(spent)
            if spent > _LONGEST:
                break
    return count / statistics.median(seconds)


def _memory(prepared: Prepared) -> int:
    """Bytes of one step of fine-tuning; 0 where not even a small step has room."""
    try:
        return estimate(prepared).peak()
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return 0
