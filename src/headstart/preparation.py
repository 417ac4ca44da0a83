"""Everything that a run needs, found, read, built and checked before anything is written."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace

import torch
from torch import nn

from headstart.config.paths import output_dir_of
from headstart.config.schema.root import Config
from headstart.config.schema.weights import STAGE, LoadedConfig, RunConfig
from headstart.data import ImageDataModule
from headstart.data.load import bit_image_size
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.features.eligible import fits_on_features, shared_features
from headstart.features.prefix_choice import require_prefix
from headstart.machine import keep_freed_memory
from headstart.models.classifier import Built
from headstart.models.source_head import source_head
from headstart.models.weights import WeightsFile, locate_weights
from headstart.records.store import check_writable
from headstart.rehearsal import Rehearsal as Rehearsal
from headstart.rehearsal import data_of, is_drawn, model_of
from headstart.resolve import resolve, resolve_for_data
from headstart.strategies import Timing, TrainingPlan, build_plan, resolve_strategy
from headstart.strategies.additions import attach
from headstart.strategies.penalties import Parts, build_penalties
from headstart.training.batches import check_batches, check_pieces
from headstart.training.checkpointing import enable_checkpointing
from headstart.training.compiling import check_compiler
from headstart.training.loggers import check_logger
from headstart.training.losses import build_loss
from headstart.training.normalization import set_momentum
from headstart.training.schedules import Factor, build_run_factor
from headstart.training.trainer import Budget


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing is on disk yet."""

    config: Config
    data: ImageDataModule
    built: Built
    plan: TrainingPlan
    penalties: nn.ModuleDict
    factor: Factor
    budget: Budget
    weights: WeightsFile | None
    together: str = ""
    """Empty where the run is not fitted on features that are computed once; else a digest that runs share exactly
    when one process can fit them on the same features."""

    @property
    def of_penalties(self) -> int:
        """Numbers that penalties train beside the model, as Co-Tuning does the source's classifier."""
        return sum(parameter.numel() for parameter in self.penalties.parameters())

    @property
    def facts(self) -> DataFacts:
        """What the data says of itself."""
        return self.data.facts


def prepare(config: Config, *, rehearsal: Rehearsal | None = None, fresh: bool = False) -> Prepared:
    """Find the weights, read the data, build the model and the plan.

    In a `rehearsal`, data that it has read is not read again, and weights that another job of the sweep will
    make may be missing. With `fresh` all data is read, whatever its cache knows. Raises a HeadstartError for any
    mistake that a person could have made; leaves nothing behind.
    """
    check_writable(output_dir_of(config))
    check_logger(config.logger)
    if config.data.augment == "bit" and config.data.image_size is None:
        config = replace(config, data=replace(config.data, image_size=bit_image_size(config.data)))
    config = resolve(config, gpu_elsewhere=rehearsal is not None and rehearsal.gpu_elsewhere)
    torch.set_num_threads(max(1, (config.trainer.threads or 1) // config.trainer.devices))
    set_determinism(config.trainer.deterministic)
    if config.trainer.accelerator == "cpu":
        keep_freed_memory()
    if config.trainer.compile != "none" and not (rehearsal is not None and rehearsal.gpu_elsewhere):
        check_compiler(gpu=config.trainer.accelerator == "gpu")
    awaited = isinstance(config.weights, RunConfig) and config.weights.path.startswith(STAGE)
    if awaited and (rehearsal is None or rehearsal.runs):
        raise ConfigError(
            "weights.path=stage:...: names a job of an experiment file; add -m to run it with that one."
        )
    weights = None if awaited else _weights(config, rehearsal)
    data = data_of(config, rehearsal, fresh=fresh)
    config = resolve_for_data(config, data.facts)
    built = model_of(config, data.facts, weights, rehearsal)
    timing = Timing(
        config.trainer.max_steps or (config.trainer.max_epochs or 1) * data.steps_per_epoch, data.steps_per_epoch
    )
    start = copy.deepcopy(built.model.backbone) if config.regularizer else built.model.backbone
    random_start = is_drawn(config, built)
    shape = (config.data.channels, *data.facts.image_size)
    layers = attach(config.strategy, built.model, built.layers, shape=shape, seed=config.seed)
    built = replace(built, layers=layers)
    config = replace(config, strategy=resolve_strategy(config.strategy, built.layers, timing))
    set_momentum(built.model, config.strategy.batch_norm_momentum)
    plan = build_plan(config.strategy, built.layers, timing)
    check_batches(built.layers, plan, batch_size=config.data.batch_size // config.trainer.devices)
    check_pieces(built.layers, plan, micro_batch_size=config.trainer.micro_batch_size)
    if config.trainer.grad_checkpointing:
        enable_checkpointing(built.model.backbone, plan, name=config.backbone.name)
    penalties = _penalties(config, built, plan, data.facts, start=start, weights=weights, awaited=awaited)
    if config.features.prefix:
        require_prefix(config, built, plan, penalties, data.facts)
    factor = build_run_factor(
        config.schedule,
        starts=[phase.start for phase in plan.phases],
        total_steps=timing.total_steps,
        steps_per_epoch=timing.steps_per_epoch,
        images=data.facts.sizes["train"],
    )
    build_loss(config.loss, data.facts)  # a list of class weights of the wrong length is said now
    budget = Budget(
        timing.total_steps,
        timing.steps_per_epoch,
        config.trainer.max_time,
        config.trainer.early_stopping_patience,
        patient_from=plan.phases[-1].start,
    )
    together = ""
    if fits_on_features(config, plan):
        together = shared_features(
            config,
            data_fingerprint=data.facts.fingerprint,
            weights_sha256=weights.sha256 if weights else None,
            random_start=random_start,
        )
    return Prepared(config, data, built, plan, penalties, factor, budget, weights, together)


def _weights(config: Config, rehearsal: Rehearsal | None) -> WeightsFile | None:
    """The file of weights of a resolved config."""
    name, library = config.backbone.name, config.backbone.library
    key = repr((config.weights, name, library))
    if rehearsal and key in rehearsal.weights:
        return rehearsal.weights[key]
    found = locate_weights(config.weights, name=name, library=library)
    if rehearsal:
        rehearsal.weights[key] = found
    return found


def _penalties(
    config: Config,
    built: Built,
    plan: TrainingPlan,
    facts: DataFacts,
    *,
    start: nn.Module,
    weights: WeightsFile | None,
    awaited: bool,
) -> nn.ModuleDict:
    """The regularisers; `start` is the backbone as it started, with nothing added."""
    shape = (config.data.channels, *facts.image_size)
    name, library = config.backbone.name, config.backbone.library

    def head_of_source() -> nn.Module:
        if awaited:
            return _stand_in(start, shape)
        first_k = config.weights.first_k if isinstance(config.weights, LoadedConfig) else None
        return source_head(
            weights,
            backbone=start,
            name=name,
            library=library,
            shape=shape,
            pool=config.head.pool,
            first_k=first_k,
        )

    share = config.data.batch_size // config.trainer.devices
    parts = Parts(
        model=built.model,
        layers=built.layers,
        plan=plan,
        facts=facts,
        reference=lambda: start.requires_grad_(False).eval(),
        source_head=head_of_source,
        backbone=name,
        batch_size=min(share, config.trainer.micro_batch_size or share),
        first_k=config.weights.first_k if isinstance(config.weights, LoadedConfig) else None,
        seed=config.seed,
    )
    return build_penalties(config.regularizer, parts, strategy=config.strategy.name)


def _stand_in(backbone: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """In the place of a head that another job will have trained."""
    with torch.no_grad():
        return nn.Linear(backbone.eval()(torch.zeros(1, *shape)).shape[1], 2)


def set_determinism(wanted: bool) -> None:
    """Choose operations that give the same bits again; before CUDA is first used.

    cuDNN's and cuBLAS's own are always the deterministic ones, as they cost little. Where it is `wanted`, all
    others are too, and one that has no deterministic form raises RuntimeError that names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(wanted)
