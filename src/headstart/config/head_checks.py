"""What is wrong with a head that is solved instead of trained step by step, as far as the config alone can tell."""

from __future__ import annotations

import dataclasses
from typing import Any

from headstart.config.schema.head import LinearHeadConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError

GRADIENT = "gradient"
"""The solver that trains step by step."""
_READ_BY = {"penalties": ("lbfgs", "ridge"), "neighbors": ("knn",), "temperature": ("knn",)}
_OF_STEPS = ("max_epochs", "max_steps", "max_time", "early_stopping_patience", "gradient_clip_val")
_LOSSES = {
    "lbfgs": ("auto", "cross_entropy", "binary_cross_entropy"),
    "ridge": ("auto", "cross_entropy", "binary_cross_entropy", "mse"),
    "knn": ("auto", "cross_entropy", "binary_cross_entropy", "mse"),
}
"""`auto`, and what it stands for in a config that is resolved."""
_WHAT = {
    "lbfgs": "minimises the cross-entropy",
    "ridge": "minimises squared errors, whatever the loss",
    "knn": "minimises nothing",
}


def solver_of(config: Config) -> str:
    """How the head is found."""
    return config.head.solver if isinstance(config.head, LinearHeadConfig) else GRADIENT


def check_head(config: Config) -> None:
    """Raise ConfigError for options that the head's solver does not read, or cannot do."""
    head = config.head
    if not isinstance(head, LinearHeadConfig):
        return
    for key, solvers in _READ_BY.items():
        value = getattr(head, key)
        if value is None:
            continue
        if head.solver not in solvers:
            wanted = " or ".join(solvers)
            raise ConfigError(f"head.{key}: is read by head.solver={wanted}; it is {head.solver}.")
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ConfigError(f"head.{key}={value}: must be a list of numbers, each of them once.")
    if head.solver == GRADIENT:
        return
    solver = f"head.solver={head.solver}"
    if head.dropout:
        raise ConfigError(
            f"head.dropout={head.dropout:g}: {solver} takes no steps in which features could drop out."
        )
    if head.init != LinearHeadConfig.init:
        raise ConfigError(f"head.init={head.init}: {solver} does not start from anything.")
    _check_loss(config, head.solver)
    for key in _OF_STEPS:
        if (value := getattr(config.trainer, key)) is not None:
            raise ConfigError(f"trainer.{key}={value}: is for training in steps; {solver} takes none.")
    if config.schedule.name == "bit_hyperrule":
        raise ConfigError(f"schedule=bit_hyperrule: says how many steps to train; {solver} takes none.")
    for group in ("optimizer", "schedule"):
        _check_untouched(getattr(config, group), group, solver)
    if config.trainer.checkpoint == "last" and not config.data.refit_on_val:
        raise ConfigError(f"trainer.checkpoint=last: {solver} keeps what validation chose among its candidates.")
    if config.data.sampling == "balanced":
        hint = "; use loss.class_weights=balanced" if head.solver == "lbfgs" else ""
        raise ConfigError(f"data.sampling=balanced: {solver} takes every training image once{hint}.")
    if config.features.views is not None:
        raise ConfigError(f"features.views={config.features.views}: {solver} takes every training image once.")


def _check_loss(config: Config, solver: str) -> None:
    loss, said = config.loss, f"head.solver={solver} {_WHAT[solver]}"
    if loss.name not in _LOSSES[solver]:
        raise ConfigError(f"loss.name={loss.name}: {said}; use loss.name=auto.")
    if solver == "lbfgs":
        return
    if loss.label_smoothing:
        raise ConfigError(f"loss.label_smoothing={loss.label_smoothing:g}: {said}.")
    if loss.class_weights != "none":
        raise ConfigError(f"loss.class_weights: {said}.")


def _check_untouched(node: Any, group: str, solver: str) -> None:
    """Raise ConfigError where something of a group that takes no part is not as it was."""
    for field in dataclasses.fields(node):
        default = field.default_factory() if callable(field.default_factory) else field.default
        value = getattr(node, field.name)
        # what `auto` stands for is filled in where nobody has touched anything
        filled = field.name in ("name", "restart") or field.metadata.get("auto")
        if not filled and value != default:
            raise ConfigError(f"{group}.{field.name}={value}: {solver} takes no steps; leave the {group} as it is.")


def check_solver_for(config: Config, task: str, *, images: int) -> None:
    """Raise ConfigError where a head's solver does not fit what the targets are, or how many images there are."""
    head = config.head
    if not isinstance(head, LinearHeadConfig):
        return
    if head.solver == "lbfgs" and task == "regression":
        raise ConfigError("head.solver=lbfgs: is of classes, and these targets are numbers; use ridge or knn.")
    if head.solver == "knn" and head.neighbors and max(head.neighbors) > images:
        raise ConfigError(f"head.neighbors={head.neighbors}: there are {images} training images to be neighbours.")
