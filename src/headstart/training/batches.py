"""Whether batches are large enough for the normalisations that train on them."""

from __future__ import annotations

from headstart.errors import ConfigError
from headstart.facts import LayerMap
from headstart.strategies.plan import TrainingPlan


def check_pieces(layers: LayerMap, plan: TrainingPlan, *, micro_batch_size: int | None) -> None:
    """Raise ConfigError where a batch in pieces would have one of a single image, which has no spread."""
    if micro_batch_size is not None and micro_batch_size < 3 and _normalises_batches(layers, plan):
        raise ConfigError(
            f"trainer.micro_batch_size={micro_batch_size}: batch normalisation trains on 2 images or more, and odd "
            "batches would leave single ones; raise it to 3, or use strategy.normalization=eval."
        )


def check_batches(layers: LayerMap, plan: TrainingPlan, *, batch_size: int) -> None:
    """Raise ConfigError where batch normalisation would train on single images: they have no spread."""
    if batch_size == 1 and _normalises_batches(layers, plan):
        raise ConfigError(
            "data.batch_size: batch normalisation trains on 2 images or more per process; raise it, or use "
            "strategy.normalization=eval."
        )


def _normalises_batches(layers: LayerMap, plan: TrainingPlan) -> bool:
    """Whether a batch normalisation takes its statistics from the batch in some phase."""
    batch_norms = {group.name for group in layers.groups if group.batch_norms}
    return any(
        phase.normalization != "eval"
        and {name for name in phase.rates if phase.runs_in_training_mode(name)} & batch_norms
        for phase in plan.phases
    )
