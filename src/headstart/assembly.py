"""From what a run has prepared to what trains it."""

from __future__ import annotations

import time

import torch

from headstart.config.measured import channels_last_of
from headstart.config.schema.root import Config
from headstart.preparation import Prepared
from headstart.shortcuts import shortcut_of
from headstart.training.losses import build_loss, build_weigh
from headstart.training.mixup import Mixing
from headstart.training.module import TransferModule
from headstart.training.step import Computation
from headstart.training.trainer import Machine


def time_step(prepared: Prepared) -> float:
    """Seconds that one training step of a prepared run takes on this machine's CPU or GPU, on random images."""
    device = "cuda" if prepared.config.trainer.accelerator == "gpu" else "cpu"
    module = module_of(prepared).to(device).train()
    module.compiled = None  # compiling takes longer than what a plan may
    module.enter(prepared.plan.at(prepared.budget.total_steps - 1))
    facts, count = prepared.facts, prepared.config.data.batch_size
    images = torch.zeros(count, facts.channels, *facts.image_size, device=device)
    targets = torch.zeros(count, dtype=torch.long, device=device)
    if facts.task in ("multilabel", "regression"):
        targets = torch.zeros(count, facts.num_outputs, device=device)
    began = 0.0
    for _ in range(2):  # the first one makes room for what the second uses
        began = time.monotonic()
        module.training_step({"image": images, "target": targets, "index": targets}, 0).backward()
        if device == "cuda":
            torch.cuda.synchronize()
    return time.monotonic() - began


def module_of(prepared: Prepared) -> TransferModule:
    """The module that trains a prepared run's model."""
    config = prepared.config
    module = TransferModule(
        prepared.built.model,
        layers=prepared.built.layers,
        plan=prepared.plan,
        loss=build_loss(config.loss, prepared.facts),
        optimizer=config.optimizer,
        factor=prepared.factor,
        task=prepared.facts.task,
        seed=config.seed,
        penalties=prepared.penalties,
        mixing=Mixing(config.data.mixup_alpha or 0.0, config.data.cutmix_alpha),
        refit=config.data.refit_on_val,
        threshold=config.trainer.threshold,
        computation=computation_of(config),
        weigh=build_weigh(config.loss, prepared.facts),
        ema_decay=config.trainer.ema_decay,
    )
    module.shortcut = shortcut_of(prepared)
    return module


def computation_of(config: Config) -> Computation:
    """How a resolved config has its steps computed."""
    trainer = config.trainer
    return Computation(
        batch_size=config.data.batch_size // trainer.devices,
        micro_batch_size=trainer.micro_batch_size,
        channels_last=channels_last_of(config),
        compile=trainer.compile,
        checkpointing=trainer.grad_checkpointing,
    )


def machine_of(config: Config) -> Machine:
    """What a resolved config has its run train on."""
    trainer = config.trainer
    return Machine(trainer.accelerator, trainer.devices, trainer.precision, trainer.deterministic)
