"""Backbones from torchvision, for architectures that timm does not have: those built as features and classifier."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn
from torchvision import models

from headstart.errors import ConfigError, did_you_mean
from headstart.facts import InputSpec
from headstart.models.loading import LoadReport, State


@lru_cache
def usable_models() -> tuple[str, ...]:
    """torchvision's classification models whose layers are a sequence `features`, then a `classifier`."""
    known = models.list_models(module=models)
    families = ("alexnet", "vgg", "mobilenet", "efficientnet", "convnext", "densenet")
    return tuple(name for name in known if name.startswith(families))


def full_name(name: str) -> str:
    """`alexnet` -> `alexnet.IMAGENET1K_V1`; raises ConfigError for an unknown model or tag."""
    architecture, _, tag = name.partition(".")
    if architecture not in usable_models():
        hint = did_you_mean(architecture, usable_models(), count=3) or " timm may have it: backbone.library=timm."
        raise ConfigError(f"backbone.name={name}: torchvision has no such model that can be used here.{hint}")
    tags = list(models.get_model_weights(architecture).__members__)
    tag = tag or str(models.get_model_weights(architecture).DEFAULT.name)
    if tag not in tags:
        raise ConfigError(f"backbone.name={name}: {architecture} has no weights {tag!r}; it has {', '.join(tags)}.")
    return f"{architecture}.{tag}"


def published(name: str) -> Any:
    """torchvision's entry of weights for a full name: its url and its transform."""
    architecture, _, tag = full_name(name).partition(".")
    return models.get_model_weights(architecture)[tag]


def input_spec(name: str) -> InputSpec:
    """What the model was trained on, from the transform published with its weights."""
    preset = published(name).transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    return InputSpec(
        size=(crop, crop),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_pct=crop / resize,
    )


def create(
    name: str, *, channels: int, size: tuple[int, int], pool: str, state: State | None
) -> tuple[nn.Module, LoadReport | None]:
    """Build the model with its last linear layer taken off; with `state`, load it.

    Raises ConfigError for channels or a pooling that it does not have.
    """
    if channels != 3:
        raise ConfigError(f"data.channels={channels}: torchvision's {name} takes 3.")
    if pool != "auto":
        raise ConfigError(f"head.pool={pool}: torchvision's {name} has its own; use head.pool=auto.")
    # some constructors draw numbers that depend on the classes; the count is that of the published weights
    model = models.get_model(name.partition(".")[0], weights=None)
    path = classifier_path(model)
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    if state is None:
        return model, None
    own = model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return model, LoadReport(
        matched=len(fitting),
        total=len(own),
        missing=tuple(key for key in own if key not in fitting),
        unexpected=tuple(key for key in state if key not in own and not key.startswith(f"{path}.")),
    )


def classifier_path(model: nn.Module) -> str:
    """Name of the last linear layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def group_key(name: str) -> tuple[int, int]:
    """Sort key of a tensor's layer group: each child of `features`, then the rest."""
    parts = name.split(".")
    return (0, int(parts[1]) if parts[1].isdigit() else _order(parts[1])) if parts[0] == "features" else (1, 0)


def _order(part: str) -> int:
    """densenet names the children of `features`: conv0, norm0, denseblock1, transition1, ..., norm5."""
    order = ["conv0", "norm0"]
    for i in range(1, 5):
        order += [f"denseblock{i}", f"transition{i}"]
    return order.index(part) if part in order else len(order)
