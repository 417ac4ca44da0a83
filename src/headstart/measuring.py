"""Short measurements at the start of a run, whose choices the run's config keeps."""

from __future__ import annotations

import sys
from dataclasses import replace

from headstart.config.measured import CHANNELS_LAST
from headstart.config.paths import cache_dir
from headstart.preparation import Prepared
from headstart.shortcuts import measure_prefix
from headstart.training.memory_format import STEPS, channels_last_is_faster


def measure(prepared: Prepared) -> Prepared:
    """The same with what this machine's measurements choose where the config leaves it open, in `config.measured`.

    A config that has a choice already, as a saved one has, keeps it: nothing is measured then.
    """
    return measure_prefix(_measure_memory(prepared))


def _measure_memory(prepared: Prepared) -> Prepared:
    """The same with the order of channels in memory."""
    config, budget, plan = prepared.config, prepared.budget, prepared.plan
    trainer = config.trainer
    open_to_choice = trainer.channels_last is None and CHANNELS_LAST not in config.measured
    if not open_to_choice or budget.total_steps < STEPS:
        return prepared
    if prepared.together:  # the head is fitted on kept features
        return prepared
    _, phase = max(zip(plan.lengths(budget.total_steps), plan.phases, strict=True), key=lambda pair: pair[0])
    share = config.data.batch_size // trainer.devices
    faster = channels_last_is_faster(
        prepared.built.model,
        name=config.backbone.name,
        trains=[p.name for g in prepared.built.layers.groups for p in g.parameters if phase.trains(g.name, p.kind)],
        batch_size=min(share, trainer.micro_batch_size or share),
        shape=(config.data.channels, *prepared.facts.image_size),
        accelerator=trainer.accelerator,
        precision=trainer.precision,
        threads=max(1, (trainer.threads or 1) // trainer.devices),
        checkpointing=trainer.grad_checkpointing,
        cache=cache_dir(),
    )
    if faster and trainer.progress != "none":
        print("  channels_last: measured to be faster here, and used", file=sys.stderr, flush=True)
    return replace(prepared, config=replace(config, measured={**config.measured, CHANNELS_LAST: faster}))
