"""What is wrong with a config although every key exists and every type fits."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from headstart.config.data_checks import check_labels, check_splits
from headstart.config.head_checks import check_head
from headstart.config.schema.data import REST
from headstart.config.schema.root import Config
from headstart.config.strategy_checks import check_regularizers, check_strategy, uses_stochnorm
from headstart.errors import ConfigError, did_you_mean
from headstart.redaction import holds_secret

METRICS = {
    "multiclass": ("accuracy_micro", "accuracy_macro", "f1_macro", "auroc", "ece", "log_loss", "accuracy_top5"),
    "multilabel": ("map_macro", "f1_micro", "f1_macro", "log_loss"),
    "binary": (
        "auroc",
        "average_precision",
        "accuracy_micro",
        "accuracy_macro",
        "f1",
        "precision",
        "recall",
        "specificity",
        "ece",
        "log_loss",
    ),
    "regression": ("r2", "rmse", "mae", "mse"),
}
"""Names of the metrics of a task, without their split."""

MAIN_METRIC = {"multiclass": "accuracy_micro", "multilabel": "map_macro", "binary": "auroc", "regression": "r2"}
"""What chooses the checkpoint and is compared where nothing is said.

Of two classes the one that no threshold and no share of positives moves; of numbers the one that has no unit, so
that each of several numbers counts alike.
"""

THRESHOLDED = ("multilabel", "binary")
"""Tasks in which a label counts as predicted above a threshold."""

LOWER_IS_BETTER = ("ece", "log_loss", "mse", "mae", "rmse")
TOP = 5
"""`accuracy_top5` is there where there are more classes than that."""


def metrics_of(task: str, *, classes: int) -> tuple[str, ...]:
    """Names of the metrics, without their split, of a task with so many classes."""
    names = METRICS[task]
    return names if classes > TOP else tuple(name for name in names if name != "accuracy_top5")


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric, such as `val/log_loss`, is better."""
    return metric.rpartition("/")[2] in LOWER_IS_BETTER


LARGEST = 2**63 - 1
"""Of whole numbers; PyTorch's go no further."""


def check(config: Config) -> None:
    """Raise ConfigError for the first value that cannot be, alone or beside another."""
    for key, value, field in _options(config):
        _check_value(key, value, field.metadata)
        _check_secret(key, value)
    _check_budget(config)
    _check_schedule(config)
    _check_data(config)
    _check_augmentation(config)
    _check_monitor(config)
    _check_threshold(config)
    _check_loss(config)
    _check_refit(config)
    _check_measured(config.measured)
    check_strategy(config.strategy)
    check_head(config)
    check_regularizers(config)
    check_mixup(config)
    _check_features(config)


def _options(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from _options(value, f"{prefix}{field.name}.")
        elif field.name == "regularizer":
            for name, own in value.items():
                yield from _options(own, f"regularizer.{name}.")
        elif field.metadata:
            yield f"{prefix}{field.name}", value, field


def _check_measured(measured: dict[str, Any]) -> None:
    """What a run's start fills in, and a saved config brings back."""
    for key, value in measured.items():
        if key == "channels_last" and isinstance(value, bool):
            continue
        if key == "prefix" and isinstance(value, list) and all(type(number) is int for number in value):
            continue
        raise ConfigError(
            f"measured.{key}={value}: is filled in by a run's start: channels_last true or false, prefix a list of "
            "phases; leave it out to measure anew."
        )


def _check_secret(key: str, value: Any) -> None:
    if holds_secret(value):
        raise ConfigError(
            f"{key}: holds a password, key or token, which would stand in every record; libraries read theirs from "
            "the environment ($HF_TOKEN, $WANDB_API_KEY, ~/.netrc)."
        )


def _check_value(key: str, value: Any, rule: Any) -> None:
    if value is None:
        return
    if rule["choices"]:
        for chosen in value if isinstance(value, list) else [value]:
            if chosen not in rule["choices"]:
                hint = did_you_mean(str(chosen), rule["choices"])
                raise ConfigError(f"{key}={chosen}: must be one of {', '.join(rule['choices'])}.{hint}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if isinstance(number, int) and abs(number) > LARGEST:
            raise ConfigError(f"{key}={str(number)[:20]}...: is more than any number here can be.")
        if not math.isfinite(number):
            raise ConfigError(f"{key}={value}: must be finite.")
        for bound, wrong, words in (
            ("above", lambda x, b: x <= b, "above"),
            ("least", lambda x, b: x < b, "at least"),
            ("below", lambda x, b: x >= b, "below"),
            ("most", lambda x, b: x > b, "at most"),
        ):
            if rule[bound] is not None and wrong(number, rule[bound]):
                hint = f"; {rule['hint']}" if rule.get("hint") else ""
                raise ConfigError(f"{key}={value}: must be {words} {rule[bound]:g}{hint}.")


def _check_budget(config: Config) -> None:
    trainer = config.trainer
    if trainer.max_epochs is not None and trainer.max_steps is not None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both set; choose one.")
    if config.data.batch_size % trainer.devices:
        size = config.data.batch_size
        raise ConfigError(f"trainer.devices={trainer.devices}: cannot divide data.batch_size={size} among them.")
    if trainer.max_time is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", trainer.max_time):
        raise ConfigError(f"trainer.max_time={trainer.max_time}: must be DD:HH:MM:SS, such as 00:01:30:00.")
    if trainer.max_time is not None and not trainer.max_time.strip("0:"):
        raise ConfigError(f"trainer.max_time={trainer.max_time}: must be above zero.")
    if trainer.compile in ("reduce-overhead", "max-autotune") and trainer.micro_batch_size is not None:
        raise ConfigError(
            f"trainer.compile={trainer.compile}: its CUDA graphs write over the gradients of earlier pieces; with "
            "trainer.micro_batch_size use trainer.compile=default."
        )
    # by 1e-3 of a weight in two steps of torch 2.14
    if trainer.compile != "none" and uses_stochnorm(config.strategy):
        raise ConfigError(
            f"trainer.compile={trainer.compile}: PyTorch compiles strategy.normalization=stochnorm into other "
            "results; leave trainer.compile=none."
        )


def _check_schedule(config: Config) -> None:
    schedule: Any = config.schedule
    if schedule.warmup_epochs and schedule.warmup_steps:
        raise ConfigError("schedule.warmup_epochs and schedule.warmup_steps are both set; choose one.")
    if schedule.name == "step":
        if not schedule.milestones or sorted(set(schedule.milestones)) != list(schedule.milestones):
            raise ConfigError(f"schedule.milestones={schedule.milestones}: must be a rising list, such as [6,8].")
        budget = config.trainer.max_epochs if schedule.unit == "epoch" else config.trainer.max_steps
        if schedule.unit == "epoch" and config.trainer.max_steps is None and budget is None:
            budget = 10
        if budget is not None and schedule.milestones[-1] >= budget:
            raise ConfigError(
                f"schedule.milestones={schedule.milestones}: the last one lies beyond the budget of "
                f"{budget} {schedule.unit}s."
            )
    optimizer: Any = config.optimizer
    if optimizer.name == "sgd" and optimizer.nesterov and not optimizer.momentum:
        raise ConfigError("optimizer.nesterov=true needs optimizer.momentum above 0.")
    if optimizer.name in ("adam", "adamw") and len(optimizer.betas) != 2:
        raise ConfigError(f"optimizer.betas={optimizer.betas}: must be two numbers.")


def _check_data(config: Config) -> None:
    data = config.data
    size = data.image_size
    if size is not None:
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
            raise ConfigError(f"data.image_size={size}: must be a whole number, or [height,width].")
    for key in ("train_size", "val_size", "test_size"):
        value = getattr(data, key)
        if value is None or (key == "test_size" and value == REST):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            rest = ", or `rest`" if key == "test_size" else ""
            raise ConfigError(f"data.{key}={value}: must be a count, or a share below 1{rest}.")
        if isinstance(value, float) and value >= 1 and not (key == "train_size" and value == 1):
            raise ConfigError(f"data.{key}={value}: a share must be below 1; write a count without a point.")
    options = getattr(data, "options", None)
    if options is not None and not isinstance(options, dict):
        raise ConfigError(f"data.options={options}: must be keys with values, such as {{split: letters}}.")
    classes = data.classes
    if classes is not None and (
        not isinstance(classes, list)
        or len(classes) < 2
        or any(isinstance(name, bool) or not isinstance(name, int | str) for name in classes)
    ):
        raise ConfigError(f"data.classes={classes}: must be a list of two classes or more, such as [0,1,2].")
    if data.shots is not None and data.train_size is not None:
        raise ConfigError("data.shots and data.train_size are both set; choose one.")
    check_splits(data)
    check_labels(data)
    _check_metric(data.metric)
    for key in ("mean", "std"):
        values = getattr(data, key)
        if values is not None and len(values) not in (1, data.channels):
            raise ConfigError(f"data.{key}={values}: must be one number, or one per channel ({data.channels}).")
    if data.interpolation == "lanczos" and data.channels not in (1, 3, 4):
        raise ConfigError(f"data.interpolation=lanczos: is for 1, 3 or 4 channels, not {data.channels}.")
    positive = data.positive
    if positive is not None and not isinstance(positive, str | int | float):
        raise ConfigError(f"data.positive={positive}: must be the name of a class.")


def _check_loss(config: Config) -> None:
    loss = config.loss
    if loss.gamma is not None and loss.name != "focal":
        raise ConfigError(f"loss.gamma={loss.gamma:g}: is of the focal loss; set loss.name=focal.")
    if loss.label_smoothing and loss.name == "focal":
        raise ConfigError(
            f"loss.label_smoothing={loss.label_smoothing:g}: the focal loss is of whole labels; choose one of them."
        )
    weights = loss.class_weights
    if not (weights in ("none", "balanced") or isinstance(weights, list)):
        raise ConfigError(f"loss.class_weights={weights}: must be none, balanced or a list of numbers.")
    if isinstance(weights, list) and any(isinstance(w, bool) or not isinstance(w, int | float) for w in weights):
        raise ConfigError(f"loss.class_weights={weights}: must be a list of numbers.")


def _check_metric(metric: str | None) -> None:
    known = {name for names in METRICS.values() for name in names}
    if metric not in (None, "auto") and metric not in known:
        hint = did_you_mean(metric, known) or f" One of {', '.join(sorted(known))}."
        raise ConfigError(f"data.metric={metric}: there is no such metric.{hint}")


def _check_threshold(config: Config) -> None:
    threshold = config.trainer.threshold
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number and threshold not in (None, "auto", "validation"):
        raise ConfigError(f"trainer.threshold={threshold}: must be auto, validation or a number between 0 and 1.")


def _check_refit(config: Config) -> None:
    if not config.data.refit_on_val:
        return
    if config.trainer.threshold == "validation":
        raise ConfigError("trainer.threshold=validation: data.refit_on_val leaves no validation to choose it on.")
    if config.trainer.early_stopping_patience is not None:
        raise ConfigError("trainer.early_stopping_patience: data.refit_on_val leaves no validation to stop by.")
    if not config.trainer.test:
        raise ConfigError("trainer.test=false: with data.refit_on_val=true a run would measure nothing.")


def check_mixup(config: Config) -> None:
    """Raise ConfigError where mixed images meet what relates single images to classes."""
    if "co_tuning" not in config.regularizer:
        return
    for key in ("mixup_alpha", "cutmix_alpha"):
        if getattr(config.data, key):
            raise ConfigError(f"regularizer=co_tuning: relates single images to classes; set data.{key}=0.")


def _check_features(config: Config) -> None:
    features = config.features
    if features.views is not None and config.data.augment == "none":
        raise ConfigError(
            f"features.views={features.views}: are versions of augmented images; data.augment=none has but one."
        )
    for key, asked in (("views", features.views is not None), ("prefix", features.prefix)):
        if asked and features.use is False:
            raise ConfigError(
                f"features.{key}: keeps what features.use=false computes anew; leave one of them out."
            )


def _check_augmentation(config: Config) -> None:
    data = config.data
    most = {"randaugment": 30, "augmix": 10}.get(data.augment)
    if data.augment_magnitude is not None and most is None:
        raise ConfigError("data.augment_magnitude: is for data.augment=randaugment and augmix.")
    if data.augment == "augmix" and data.augment_magnitude is not None and not 1 <= data.augment_magnitude <= 10:
        raise ConfigError(f"data.augment_magnitude={data.augment_magnitude}: augmix takes 1 to 10.")
    if data.keep_side is not None and data.augment in ("none", "bit"):
        raise ConfigError(
            f"data.keep_side: is for random resized crops, which data.augment={data.augment} has not."
        )
    if data.augment in ("randaugment", "trivial", "augmix") and data.channels not in (1, 3):
        raise ConfigError(f"data.augment={data.augment}: is for 1 or 3 channels, not {data.channels}.")


def _check_monitor(config: Config) -> None:
    monitor = config.trainer.monitor
    known = {f"val/{name}" for names in METRICS.values() for name in names}
    if monitor != "auto" and monitor not in known:
        hint = did_you_mean(monitor, known) or f" One of {', '.join(sorted(known))}."
        raise ConfigError(f"trainer.monitor={monitor}: there is no such metric.{hint}")
