"""A trained model back from its run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from headstart.config.measured import channels_last_of
from headstart.config.plain import read_config
from headstart.config.schema.strategy import STANDING
from headstart.data.forms import Finished
from headstart.data.pictures import as_channels
from headstart.data.source import Picture
from headstart.data.transforms import Geometry, Normalize
from headstart.errors import RecordError
from headstart.facts import outputs_of
from headstart.models.classifier import Classifier, build_classifier
from headstart.records.store import CONFIG, read_record
from headstart.resolve import spec_of
from headstart.strategies.additions import attach
from headstart.training.checkpoints import BEST, FOLDER, LAST, load_weights


class Transform:
    """Image -> normalised float32 tensor (channels, height, width), as the run evaluated its own."""

    def __init__(self, geometry: Geometry, normalize: Normalize, channels: int) -> None:
        self.geometry = geometry
        self.normalize = normalize
        self.channels = channels

    def __call__(self, image: Picture) -> torch.Tensor:
        """Resize, crop and normalise one image."""
        return self.normalize(self.geometry(as_channels(image, self.channels)))


def tested_weights(folder: Path) -> Path:
    """The file of the weights that a run tested; raises RecordError where it kept none."""
    record = read_record(folder)
    config = read_config(folder / CONFIG)
    path = folder / FOLDER / (BEST if config.trainer.checkpoint == "best" else LAST)
    if not path.is_file():
        raise RecordError(f"{folder}: this run ({record.status}) kept no weights ({path.name}).")
    return path


def load_run(folder: Path) -> tuple[Classifier, Transform]:
    """Model and transform of a run; raises RecordError where it kept no weights."""
    path = tested_weights(folder)
    record = read_record(folder)
    config = read_config(folder / CONFIG)
    spec = spec_of(config)
    names, task = len(record.data["class_names"]), str(record.data.get("task"))
    built = build_classifier(
        name=config.backbone.name,
        library=config.backbone.library,
        head=config.head,
        classes=outputs_of(task, names),
        channels=config.data.channels,
        size=spec.size,
        weights=None,
        seed=config.seed,
        # what they are lies in the weights
        units=([0.0] * names, [1.0] * names) if task == "regression" else None,
    )
    model = built.model
    if config.strategy.name in STANDING:
        shape = (config.data.channels, *spec.size)
        attach(config.strategy, model, built.layers, shape=shape, seed=config.seed)
    load_weights(path, model)
    if channels_last_of(config):  # as it was tested, to the last bit
        model.to(memory_format=torch.channels_last)
    model.eval()
    geometry = Finished(spec, config.data.channels, squashed=config.data.augment == "bit").geometry
    return model, Transform(geometry, Normalize(spec.mean, spec.std), config.data.channels)
