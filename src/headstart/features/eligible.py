"""Which runs are fitted on features that are computed once, and which of them share these."""

from __future__ import annotations

import hashlib
from dataclasses import asdict

from headstart.config.head_checks import GRADIENT, solver_of
from headstart.config.schema.root import Config
from headstart.errors import ConfigError
from headstart.strategies.plan import HEAD, TrainingPlan


def fits_on_features(config: Config, plan: TrainingPlan) -> bool:
    """Whether a run of this resolved config and plan is fitted on features that are computed once.

    A function of these two alone, so that a run has the same bits always. Raises ConfigError where
    `features.use=true` or the head's solver needs such features and they cannot be.
    """
    solver = solver_of(config)
    obstacle = "features.use=false" if config.features.use is False else _obstacle(config, plan)
    if obstacle and config.features.views is not None:
        raise ConfigError(f"features.views={config.features.views}: is for features that are kept, but {obstacle}.")
    if obstacle and config.features.use:
        raise ConfigError(f"features.use=true: {obstacle}.")
    if obstacle and solver != GRADIENT:
        raise ConfigError(f"head.solver={solver}: is fitted on features that are computed once, but {obstacle}.")
    return not obstacle


def _obstacle(config: Config, plan: TrainingPlan) -> str:
    """Why the features of a run cannot be computed once; empty where they can."""
    data, trainer = config.data, config.trainer
    if plan.moves_the_features:
        return f"strategy={config.strategy.name} trains more than the head"
    if any(HEAD not in phase.rates for phase in plan.phases):
        return "the head does not train in every phase"
    if config.regularizer:
        return f"regularizer={','.join(config.regularizer)} may look at the whole model in every step"
    for key in ("mixup_alpha", "cutmix_alpha"):
        if getattr(data, key):
            return f"data.{key}={getattr(data, key):g} mixes images anew in every step"
    if data.augment != "none" and config.features.views is None:
        return f"data.augment={data.augment} draws anew in every epoch; set features.views, or data.augment=none"
    if trainer.ema_decay is not None:
        return "trainer.ema_decay averages the weights of every step"
    if trainer.devices > 1:
        return f"trainer.devices={trainer.devices} trains in several processes"
    return ""


def shared_features(
    config: Config, *, data_fingerprint: str, weights_sha256: str | None, random_start: bool
) -> str:
    """A digest that runs have in common exactly when one process can fit them on the same features.

    Of all that the features depend on, and of what is one for a whole process: threads and determinism.
    `random_start` says that something in the backbone was drawn from the seed. What may differ: head (but for its
    pooling), loss, optimiser, schedule, seed, split, budget and batch size.
    """
    data, trainer = config.data, config.trainer
    views = config.features.views
    parts = [
        asdict(config.backbone),
        config.head.pool,
        weights_sha256 or asdict(config.weights),
        getattr(config.weights, "first_k", None),
        config.seed if random_start else None,
        data_fingerprint,
        [data.channels, data.image_size, data.mean, data.std, data.interpolation, data.crop_pct, data.crop_mode],
        [data.augment, data.keep_side, data.augment_magnitude] if views or data.augment == "bit" else None,
        [trainer.accelerator, trainer.precision, trainer.threads, trainer.deterministic],
        asdict(config.features),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
