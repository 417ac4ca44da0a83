"""Backbones from timm: any of its models, without its classifier."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import nn

from headstart.errors import ConfigError, WeightsError, did_you_mean
from headstart.facts import InputSpec
from headstart.models.loading import LoadReport, State


@lru_cache
def full_name(name: str) -> str:
    """`resnet50` -> `resnet50.a1_in1k`: the tag decides the weights and the preprocessing.

    Raises ConfigError where timm has no such model or tag, with near ones.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        hint = did_you_mean(architecture, known, count=3) or " `headstart list backbones` shows them."
        raise ConfigError(f"backbone.name={name}: timm has no such model.{hint}")
    cfg = timm.get_pretrained_cfg(architecture)
    if tag:
        tags = [other.partition(".")[2] for other in timm.list_pretrained(f"{architecture}.*")]
        if tag not in tags:
            hint = did_you_mean(tag, tags) or f" It has {', '.join(tags) or 'none'}."
            raise ConfigError(f"backbone.name={name}: {architecture} has no weights tag {tag!r}.{hint}")
        return name
    return f"{architecture}.{cfg.tag}" if cfg is not None and cfg.tag else architecture


def pretrained_cfg(name: str) -> dict[str, Any]:
    """What timm knows of a model's weights and preprocessing."""
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return dict(cfg.to_dict()) if cfg is not None else {}


def input_spec(name: str) -> InputSpec:
    """What the model was trained on, by timm's own resolution of its config."""
    config = timm.data.resolve_data_config({}, pretrained_cfg=pretrained_cfg(name))
    return InputSpec(
        size=(config["input_size"][1], config["input_size"][2]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"] or "center",
    )


def create(
    name: str, *, channels: int, size: tuple[int, int], pool: str, state: State | None
) -> tuple[nn.Module, LoadReport | None]:
    """Build the model without its classifier; with `state`, load it the way timm loads its own weights.

    timm renames old keys, resizes position embeddings and adapts the first layer to the number of channels.
    Raises ConfigError where the model takes no such size, channels or pooling, WeightsError where timm cannot
    make sense of the file.
    """
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    cfg = pretrained_cfg(name)
    if cfg.get("fixed_input_size") and tuple(cfg["input_size"][1:]) != size:
        options["img_size"] = size
    if pool != "auto":
        options["global_pool"] = pool
    plain = dict(options)
    if state is not None:
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state), "source": ""}}
    with _watched_loading() as reports, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name, **options)
        except _REFUSALS as error:
            if state is not None:
                create(name, channels=channels, size=size, pool=pool, state=None)  # is it the model's fault?
                raise WeightsError(f"weights: the file is not of {name} ({_reason(error)}).") from error
            raise ConfigError(_refusal(name, plain, error)) from error
    return model, reports[-1] if reports else None


_REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, LookupError, NotImplementedError, AttributeError)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _refusal(name: str, options: dict[str, Any], error: Exception) -> str:
    reason = _reason(error)
    if "global_pool" in options and ("pool" in reason or isinstance(error, AssertionError)):
        return f"head.pool={options['global_pool']}: {name} has no such pooling; use head.pool=auto ({reason})."
    if "img_size" in options:
        height, width = options["img_size"]
        return f"data.image_size: {name} cannot take {height} x {width} pixels ({reason})."
    if options["in_chans"] != 3:
        return f"data.channels={options['in_chans']}: {name} cannot take them ({reason})."
    return f"backbone.name={name}: timm cannot build it ({reason})."


@contextmanager
def _watched_loading() -> Iterator[list[LoadReport]]:
    """Record what `load_state_dict` did inside `timm.create_model`, which tells it to its log alone.

    Tensors of another shape are left out and counted as missing, in place of an exception at the first few.
    """
    reports: list[LoadReport] = []
    original = nn.Module.load_state_dict

    def watched(module: nn.Module, state: Any, strict: bool = True, assign: bool = False) -> Any:
        own = module.state_dict()
        fitting = {k: v for k, v in state.items() if k not in own or own[k].shape == v.shape}
        result = original(module, fitting, strict=False, assign=assign)
        reports.append(
            LoadReport(
                matched=len(own) - len(result.missing_keys),
                total=len(own),
                missing=tuple(result.missing_keys),
                unexpected=tuple(result.unexpected_keys),
            )
        )
        return result

    nn.Module.load_state_dict = watched  # type: ignore[method-assign, assignment]
    try:
        yield reports
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]


def key_names(name: str) -> list[str]:
    """Names of the model's own tensors, classifier included, in order."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(timm.create_model(name).state_dict())


def classifier_names(name: str) -> tuple[str, ...]:
    """Where the model's own classifier, or its several ones, would be."""
    names = pretrained_cfg(name).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
