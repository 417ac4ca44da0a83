"""What every `auto` stands for: a config that is resolved says all there is to know, on any machine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from headstart.config.checks import MAIN_METRIC, THRESHOLDED, check_mixup, metrics_of
from headstart.config.head_checks import GRADIENT, check_solver_for, solver_of
from headstart.config.paths import expanded
from headstart.config.schema.data import CsvConfig, HuggingFaceConfig, ImageFolderConfig, TorchvisionConfig
from headstart.config.schema.head import HeadConfig, LinearHeadConfig
from headstart.config.schema.root import Config
from headstart.config.schema.schedule import BitHyperRuleConfig
from headstart.config.schema.weights import STAGE, FileConfig, PretrainedConfig, RunConfig
from headstart.data.augmentation import DEFAULT_MAGNITUDES, kept_side
from headstart.data.split_file import split_digest
from headstart.errors import ConfigError
from headstart.facts import DataFacts, InputSpec
from headstart.machine import usable_cores
from headstart.models.classifier import full_name, input_spec
from headstart.models.weights import resolve_origin
from headstart.training.losses import resolve_loss
from headstart.training.schedules import bit_rule

DEFAULT_EPOCHS = 10
PENALTIES = {"lbfgs": (1e-6, 1e5, 45), "ridge": (1e-4, 1e6, 41)}
"""Lowest, highest and how many; of lbfgs those of Kornblith et al. 2019 (SimCLR, appendix B.8)."""
NEIGHBORS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
"""Of Wu et al. 2018, and DINO's (Caron et al. 2021)."""


def resolve(config: Config, *, gpu_elsewhere: bool = False) -> Config:
    """Replace what can be resolved without reading data: names, preprocessing, machine and budget.

    With `gpu_elsewhere` the run will have a GPU on another machine, whatever this one has. Raises ConfigError for
    an unknown backbone or a machine that is not there.
    """
    library = config.backbone.library
    name = full_name(config.backbone.name, library=library)
    weights = config.weights
    if isinstance(weights, PretrainedConfig):
        origin = resolve_origin(weights.origin, name=config.backbone.name, library=library)
        weights = replace(weights, origin=origin)
    elif isinstance(weights, FileConfig | RunConfig):
        weights = replace(weights, path=_absolute(weights.path))
    accelerator = resolve_accelerator(config.trainer.accelerator, gpu_elsewhere=gpu_elsewhere)
    if accelerator == "gpu" and not gpu_elsewhere and config.trainer.devices > gpu_count():
        raise ConfigError(f"trainer.devices={config.trainer.devices}: there are {gpu_count()} GPUs here.")
    trainer = replace(
        config.trainer,
        max_epochs=resolve_epochs(config),
        accelerator=accelerator,
        precision=resolve_precision(config.trainer.precision, accelerator=accelerator, elsewhere=gpu_elsewhere),
        threads=config.trainer.threads or usable_cores(),
    )
    optimizer = replace(config.optimizer, fused=resolve_fused(config, precision=trainer.precision))
    restart = config.schedule.restart
    if restart == "auto":
        restart = "phase" if config.strategy.name == "lp_ft" else "run"
    return replace(
        config,
        head=resolve_head(config.head),
        schedule=replace(config.schedule, restart=restart),
        backbone=replace(config.backbone, name=name),
        weights=weights,
        optimizer=optimizer,
        trainer=trainer,
        data=resolve_data(config, input_spec(name, library=library), accelerator=accelerator),
    )


def resolve_for_data(config: Config, facts: DataFacts) -> Config:
    """Replace what depends on the data: the loss, the metric that chooses the checkpoint, and what BiT's rule says.

    Raises ConfigError where what was named does not fit them.
    """
    monitor = config.trainer.monitor
    metric = None if config.data.metric == "auto" else config.data.metric
    names = metrics_of(facts.task, classes=facts.num_classes)
    of = f"a {facts.task} task" + (f" of {facts.num_classes} classes" if facts.task == "multiclass" else "")
    if metric is not None and metric not in names:
        raise ConfigError(f"data.metric={metric}: is no metric of {of}; it has {', '.join(names)}.")
    if monitor == "auto":
        monitor = f"val/{MAIN_METRIC[facts.task] if metric is None else metric}"
    elif monitor.removeprefix("val/") not in names:
        known = ", ".join(f"val/{name}" for name in names)
        raise ConfigError(f"trainer.monitor={monitor}: is no metric of {of}; it has {known}.")
    # trained on all, there is no validation that could choose
    tested = "last" if config.data.refit_on_val else config.trainer.checkpoint
    threshold = resolve_threshold(config.trainer.threshold, task=facts.task, refit=config.data.refit_on_val)
    trainer = replace(config.trainer, monitor=monitor, checkpoint=tested, threshold=threshold)
    alpha = config.data.mixup_alpha
    if facts.task == "regression":
        for key in ("mixup_alpha", "cutmix_alpha"):
            if value := getattr(config.data, key):
                raise ConfigError(f"data.{key}={value:g}: mixes images of classes; these targets are numbers.")
        alpha = 0.0
    if isinstance(config.schedule, BitHyperRuleConfig):
        steps, by_rule = bit_rule(facts.sizes["train"])
        alpha = by_rule if alpha is None else alpha
        if trainer.max_steps is None and trainer.max_epochs is None:
            trainer = replace(trainer, max_steps=steps[-1])
    resolved = replace(
        config,
        trainer=trainer,
        data=replace(config.data, mixup_alpha=alpha or 0.0),
        loss=resolve_loss(config.loss, facts),
        head=resolve_for_targets(config, facts),
    )
    check_mixup(resolved)
    return resolved


def resolve_head(head: HeadConfig) -> HeadConfig:
    """What a solver chooses among, as far as that does not depend on the data."""
    if not isinstance(head, LinearHeadConfig):
        return head
    if head.solver in PENALTIES and head.penalties is None:
        return replace(head, penalties=log_spaced(*PENALTIES[head.solver]))
    if head.solver == "knn" and head.temperature is None:
        return replace(head, temperature=TEMPERATURE)
    return head


def resolve_for_targets(config: Config, facts: DataFacts) -> HeadConfig:
    """The head with what depends on the data; raises ConfigError where its solver does not fit them."""
    # what is refitted on validation images is chosen without them
    images = facts.sizes["train"] - (facts.sizes["val"] if config.data.refit_on_val else 0)
    check_solver_for(config, facts.task, images=images)
    head = config.head
    if isinstance(head, LinearHeadConfig) and head.solver == "knn" and head.neighbors is None:
        return replace(head, neighbors=[count for count in NEIGHBORS if count <= images])
    return head


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """`count` numbers from `low` to `high`, evenly spaced on a logarithmic scale."""
    first, last = math.log10(low), math.log10(high)
    return [10 ** (first + (last - first) * i / (count - 1)) for i in range(count)]


def resolve_threshold(choice: Any, *, task: str, refit: bool) -> Any:
    """`validation`, a number, or None for a task that has no threshold; raises ConfigError where that has one."""
    if task not in THRESHOLDED:
        if choice not in (None, "auto"):
            raise ConfigError(
                f"trainer.threshold={choice}: is for several labels per image or data.positive; a {task} task "
                "has none."
            )
        return None
    if choice not in (None, "auto"):
        return choice
    return 0.5 if refit else "validation"


def resolve_epochs(config: Config) -> int | None:
    """The budget in epochs, unless it is given in steps or the head is solved without any."""
    if solver_of(config) != GRADIENT:
        return None
    if config.trainer.max_steps is not None or isinstance(config.schedule, BitHyperRuleConfig):
        return config.trainer.max_epochs
    return config.trainer.max_epochs or DEFAULT_EPOCHS


def resolve_accelerator(choice: str, *, gpu_elsewhere: bool = False) -> str:
    """`cpu` or `gpu`; raises ConfigError where a GPU is asked for and there is none."""
    import torch

    if gpu_elsewhere:
        return "cpu" if choice == "cpu" else "gpu"
    there = torch.cuda.is_available()
    if choice == "gpu" and not there:
        raise ConfigError("trainer.accelerator=gpu: PyTorch finds no GPU here; `headstart doctor` says more.")
    return "gpu" if choice != "cpu" and there else "cpu"


def gpu_count() -> int:
    """GPUs that PyTorch finds."""
    import torch

    return torch.cuda.device_count()


def resolve_precision(choice: str, *, accelerator: str, elsewhere: bool = False) -> str:
    """Mixed precision on a GPU, float32 on a CPU; raises ConfigError for one that the machine has not.

    A GPU `elsewhere` cannot be asked what it has: it must be said.
    """
    import torch

    if choice == "16-mixed" and accelerator == "cpu":
        raise ConfigError("trainer.precision=16-mixed: needs a GPU; a CPU has 32-true and bf16-mixed.")
    if choice != "auto":
        return choice
    if accelerator == "cpu":
        return "32-true"
    if elsewhere:
        raise ConfigError(
            "trainer.precision=auto: the GPUs are on other machines; say bf16-mixed, 16-mixed or 32-true."
        )
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def resolve_fused(config: Config, *, precision: str) -> bool:
    """Whether the optimiser is fused; raises ConfigError where it is asked for and something stands against it.

    A fused optimiser unscales float16's gradients itself, in its step: nothing can look at them before.
    """
    trainer, asked = config.trainer, config.optimizer.fused
    looks = "trainer.gradient_clip_val" if trainer.gradient_clip_val is not None else ""
    looks = looks or ("strategy=auto_rgn" if config.strategy.name == "auto_rgn" else "")
    possible = precision != "16-mixed" or not looks
    if asked and not possible:
        raise ConfigError(
            f"optimizer.fused=true: under trainer.precision=16-mixed it hides the gradients that {looks} needs; "
            "leave it out."
        )
    return possible if asked is None else asked


def resolve_data(config: Config, spec: InputSpec, *, accelerator: str) -> Any:
    """The data's config with the backbone's own preprocessing wherever it says nothing else."""
    data = config.data
    is_folder = isinstance(data, HuggingFaceConfig) and expanded(data.path).is_dir()
    if isinstance(data, ImageFolderConfig | TorchvisionConfig | CsvConfig) or is_folder:
        data = replace(data, path=_absolute(data.path))  # type: ignore[call-arg, attr-defined]
    if isinstance(data, CsvConfig) and data.root is not None:
        data = replace(data, root=_absolute(data.root))
    # what `auto` stands for follows from the data themselves, as null does
    task, metric = (None if value == "auto" else value for value in (data.task, data.metric))
    data = replace(data, split_sha256=None, task=task, metric=metric)
    if data.split_file is not None:
        path = _absolute(data.split_file)
        data = replace(data, split_file=path, split_sha256=split_digest(path))
    size = data.image_size
    workers = 0 if accelerator == "cpu" else min(8, max(1, usable_cores() - 1))
    sides = list(spec.size) if size is None else [size, size] if isinstance(size, int) else list(size)
    crops = data.augment not in ("none", "bit")
    return replace(
        data,
        image_size=sides,
        keep_side=(data.keep_side or kept_side(sides)) if crops else None,
        augment_magnitude=DEFAULT_MAGNITUDES.get(data.augment)
        if data.augment_magnitude is None
        else data.augment_magnitude,
        mean=_per_channel(data.mean or spec.mean, data.channels),
        std=_per_channel(data.std or spec.std, data.channels),
        interpolation=data.interpolation or spec.interpolation,
        crop_pct=data.crop_pct if data.crop_pct is not None else spec.crop_pct,
        num_workers=workers if data.num_workers is None else data.num_workers,
    )


def spec_of(config: Config) -> InputSpec:
    """The preprocessing that a resolved config names."""
    data = config.data
    own = input_spec(config.backbone.name, library=config.backbone.library)
    return InputSpec(
        size=(data.image_size[0], data.image_size[1]),
        mean=tuple(data.mean or ()),
        std=tuple(data.std or ()),
        interpolation=str(data.interpolation),
        crop_pct=float(data.crop_pct or 1.0),
        crop_mode=str(data.crop_mode or own.crop_mode),
    )


def _absolute(path: str) -> str:
    """A path that holds from every folder: a run may be resumed from another. A stage is no path yet."""
    if path.startswith(STAGE):
        return path
    return str(expanded(path).absolute())


def _per_channel(values: Any, channels: int) -> list[float]:
    """One number per channel: grey images get the colours' mean, further channels repeat them."""
    values = [float(value) for value in values]
    if len(values) == 1 or channels == len(values):
        return values * (channels // len(values))
    if channels == 1:
        return [sum(values) / len(values)]
    return [values[i % len(values)] for i in range(channels)]
