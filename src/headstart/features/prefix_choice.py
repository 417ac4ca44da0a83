"""For which phases of a run the activations above the frozen part are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from headstart.config.schema.root import Config
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.features.cut import Cut
from headstart.features.prefix import IN_MEMORY, cuts_of, that_fit
from headstart.models.classifier import Built, Classifier
from headstart.strategies.penalties import Penalty
from headstart.strategies.plan import TrainingPlan

PREFIX = "prefix"
"""In `measured`: numbers of the phases for which activations are kept."""


def obstacle(config: Config, penalties: nn.ModuleDict) -> str:
    """Why activations cannot stand in for images in a run of a resolved config; empty where they can."""
    data, trainer = config.data, config.trainer
    if config.features.use is False:
        return "features.use=false computes everything in every epoch"
    if data.augment != "none":
        return f"data.augment={data.augment} draws anew in every epoch"
    for key in ("mixup_alpha", "cutmix_alpha"):
        if getattr(data, key):
            return f"data.{key}={getattr(data, key):g} mixes images anew in every step"
    for name, penalty in penalties.items():
        if not isinstance(penalty, Penalty) or penalty.needs_images:
            return f"regularizer={name} needs the images of every step"
    if trainer.devices > 1:
        return f"trainer.devices={trainer.devices} trains in several processes"
    if trainer.compile != "none":
        return f"trainer.compile={trainer.compile} compiles the backbone as a whole"
    if trainer.grad_checkpointing:
        return "trainer.grad_checkpointing=true computes the backbone's layers again"
    return ""


def possible_cuts(
    config: Config, model: Classifier, layers: Any, plan: TrainingPlan, facts: DataFacts
) -> dict[int, Cut]:
    """The cuts of the phases in which something is frozen, as far as their activations fit; by number of the phase.

    Raises ConfigError where `features.prefix=true` and there is none.
    """
    shape = (config.data.channels, *facts.image_size)
    cuts, problem = cuts_of(model.backbone, layers, plan, shape=shape)
    images = facts.sizes["train"] + facts.sizes.get("val", 0)
    itemsize = np.dtype(config.features.dtype).itemsize
    room = int(config.features.cache_gb * 1e9) if config.features.cache else IN_MEMORY
    fitting = that_fit(cuts, images=images, itemsize=itemsize, room=room)
    if config.features.prefix and not cuts:
        raise ConfigError(f"features.prefix=true: {config.backbone.name} has no cut: {problem}.")
    if config.features.prefix and not fitting:
        cut = next(iter(cuts.values()))
        what = "features.cache_gb" if config.features.cache else "features.cache=false leaves memory:"
        raise ConfigError(
            f"features.prefix=true: activations of {images} images at {cut.name} take "
            f"{images * cut.width * itemsize / 1e9:.1f} GB; {what} {room / 1e9:g} GB."
        )
    return fitting


def chosen(config: Config, cuts: Mapping[int, Cut]) -> list[int]:
    """Numbers of the phases for which activations are kept, from what a config says and what was measured."""
    if config.features.prefix is False:
        return []
    if config.features.prefix:
        return list(cuts)
    measured = config.measured.get(PREFIX)
    return [number for number in measured if number in cuts] if isinstance(measured, list) else []


def require_prefix(
    config: Config, built: Built, plan: TrainingPlan, penalties: nn.ModuleDict, facts: DataFacts
) -> None:
    """Raise ConfigError where `features.prefix=true` and activations cannot stand in for what is frozen."""
    reason = obstacle(config, penalties)
    if reason:
        raise ConfigError(f"features.prefix=true: {reason}.")
    if plan.moves_the_features:  # else the head is fitted on kept features anyway
        possible_cuts(config, built.model, built.layers, plan, facts)
