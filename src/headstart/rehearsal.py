"""Models and data of one run after another: what several share is read and built once."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from headstart.config.schema.root import Config
from headstart.config.schema.weights import LoadedConfig
from headstart.data import ImageDataModule, load_data
from headstart.facts import DataFacts
from headstart.models.classifier import Built, build_classifier, on_same_backbone
from headstart.models.weights import WeightsFile
from headstart.resolve import spec_of
from headstart.strategies.additions import attaches


@dataclass
class Rehearsal:
    """What the check of a sweep's jobs keeps from one to the next."""

    gpu_elsewhere: bool = False
    """Whether the runs will have a GPU on another machine."""
    runs: bool = False
    """Whether what is prepared will run: then each has the initial values of its own seed, and weights are there.
    Those whose heads alone train share their backbone, the very module."""
    data: dict[str, ImageDataModule] = field(default_factory=dict)
    weights: dict[str, WeightsFile | None] = field(default_factory=dict)
    models: dict[str, Built] = field(default_factory=dict)

    def keep(self, key: str, built: Built) -> None:
        """Keep a model as well, and as many of those before it as memory allows."""
        self.models[key] = built
        while len(self.models) > 1 and sum(map(_size_of, self.models.values())) > _NUMBERS_KEPT:
            del self.models[next(iter(self.models))]


_NUMBERS_KEPT = 500_000_000
"""Numbers in the parameters of all models that are kept: 2 GB."""


def _size_of(built: Built) -> int:
    return sum(group.size for group in built.layers.groups)


def model_of(config: Config, facts: DataFacts, weights: WeightsFile | None, rehearsal: Rehearsal | None) -> Built:
    """The model of a resolved config; in a mere rehearsal its initial values may be those of another seed."""
    first_k = config.weights.first_k if isinstance(config.weights, LoadedConfig) else None

    def build() -> Built:
        return build_classifier(
            name=config.backbone.name,
            library=config.backbone.library,
            head=config.head,
            classes=facts.num_outputs,
            channels=config.data.channels,
            size=facts.image_size,
            weights=weights,
            seed=config.seed,
            first_k=first_k,
            units=facts.units,
        )

    if rehearsal is None:
        return build()
    loaded = weights and (weights.path, weights.sha256)
    backbone = repr((config.backbone, config.head.pool, config.data.channels, facts.image_size, loaded, first_k))
    if not rehearsal.runs:
        key = repr((backbone, config.head, facts.num_outputs, facts.units))
        built = rehearsal.models.get(key)
        if built is None:
            built = build()
            rehearsal.keep(key, built)
        return replace(built, model=copy.deepcopy(built.model))
    own = f"{backbone} seed {config.seed}"
    built = rehearsal.models.get(backbone) or rehearsal.models.get(own)
    if built is None:
        built = build()
        rehearsal.keep(own if is_drawn(config, built) else backbone, built)
    if attaches(config.strategy):
        return replace(built, model=copy.deepcopy(built.model))
    return on_same_backbone(
        built, head=config.head, classes=facts.num_outputs, units=facts.units, seed=config.seed, first_k=first_k
    )


def is_drawn(config: Config, built: Built) -> bool:
    """Whether something in a backbone that was just built was drawn from the seed."""
    first_k = getattr(config.weights, "first_k", None)
    return built.report is None or bool(built.report.missing) or first_k is not None


def data_of(config: Config, rehearsal: Rehearsal | None, *, fresh: bool) -> ImageDataModule:
    """The data of a resolved config."""
    spec = spec_of(config)
    key = repr((config.data, spec, config.trainer.devices))
    if rehearsal and key in rehearsal.data:
        kept = rehearsal.data[key]
        return kept.for_seed(config.seed) if rehearsal.runs else kept
    threads, workers = config.trainer.threads or 1, config.data.num_workers or 0
    data = load_data(config.data, spec, seed=config.seed, threads=threads, num_workers=workers, fresh=fresh)
    data.world = config.trainer.devices
    if rehearsal:
        rehearsal.data[key] = data
    return data
