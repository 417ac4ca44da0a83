"""What stands in for the frozen layers of a prepared run, and in which phases, by a short measurement."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch import nn

from headstart.config.paths import cache_dir
from headstart.config.schema.root import Config
from headstart.features.bank import CONTIGUOUS, FeatureBank, open_bank
from headstart.features.prefix import IN_MEMORY, Prefix
from headstart.features.prefix_choice import PREFIX, chosen, obstacle, possible_cuts
from headstart.features.prefix_speed import speed_of
from headstart.features.store import to_stderr
from headstart.preparation import Prepared

STEPS, EPOCHS = 200, 2
"""A run of fewer optimiser steps, or a phase of fewer epochs, is not worth a measurement."""


def measure_prefix(prepared: Prepared) -> Prepared:
    """The same with the phases whose frozen part is faster read than computed, in `config.measured`.

    A config that says something, or has a choice already, as a saved one has, keeps it.
    """
    config, budget, plan = prepared.config, prepared.budget, prepared.plan
    if config.features.prefix is not None or PREFIX in config.measured or budget.total_steps < STEPS:
        return prepared
    if not plan.moves_the_features or obstacle(config, prepared.penalties):
        return prepared
    epochs = [length / budget.steps_per_epoch for length in plan.lengths(budget.total_steps)]
    if not any(epochs[number] >= EPOCHS and _freezes(prepared, number) for number in range(len(plan.phases))):
        return prepared
    facts = prepared.facts
    cuts = possible_cuts(config, prepared.built.model, prepared.built.layers, plan, facts)
    images = facts.sizes["train"] + facts.sizes.get("val", 0)
    found = []
    for number, cut in cuts.items():
        if epochs[number] < EPOCHS:
            continue
        speed = speed_of(
            cut,
            name=config.backbone.name,
            shape=(config.data.channels, *facts.image_size),
            batch_size=config.features.batch_size,
            precision=config.trainer.precision,
            device=_device(config),
            dtype=config.features.dtype,
            on_disk=images * cut.width * 4 > CONTIGUOUS,
            cache=cache_dir(),
        )
        if speed.pays(epochs[number]):
            found.append(number)
            if config.trainer.progress != "none":
                times = speed.compute / max(speed.read, 1e-12)
                print(
                    f"  features.prefix: activations at {cut.name} are kept; measured to be read {times:.0f} times "
                    "as fast as computed",
                    file=sys.stderr,
                    flush=True,
                )
    return replace(prepared, config=replace(config, measured={**config.measured, PREFIX: found}))


def _freezes(prepared: Prepared, number: int) -> bool:
    moved = {name for phase in prepared.plan.phases[: number + 1] for name in phase.rates}
    return any(group.name not in moved for group in prepared.built.layers.backbone)


def shortcut_of(prepared: Prepared) -> Prefix | None:
    """What stands in for the frozen layers of a run, where something is to."""
    config, plan, facts = prepared.config, prepared.plan, prepared.facts
    asked = config.features.prefix if config.features.prefix is not None else bool(config.measured.get(PREFIX))
    if not asked or not plan.moves_the_features or obstacle(config, prepared.penalties):
        return None
    numbers = chosen(config, possible_cuts(config, prepared.built.model, prepared.built.layers, plan, facts))

    def open_one(module: nn.Module, cut: str | None) -> FeatureBank:
        return open_bank(
            module,
            name=config.backbone.name,
            library=config.backbone.library,
            pool=config.head.pool,
            precision=config.trainer.precision,
            device=_device(config),
            batch_size=config.features.batch_size,
            dtype=config.features.dtype,
            cache=cache_dir() if config.features.cache else None,
            cache_gb=config.features.cache_gb,
            cut=cut,
            in_memory=IN_MEMORY,
        )

    shape = (config.data.channels, *facts.image_size)
    return (
        Prefix(prepared.built.layers, plan, numbers, shape=shape, open_bank=open_one, say=to_stderr)
        if numbers
        else None
    )


def _device(config: Config) -> torch.device:
    return torch.device("cuda" if config.trainer.accelerator == "gpu" else "cpu")
