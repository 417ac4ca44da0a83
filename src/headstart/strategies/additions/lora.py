"""LoRA through peft: trainable low-rank updates of a frozen backbone's matrices (Hu et al. 2022)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from headstart.config.schema.strategy import LoraConfig
from headstart.errors import ConfigError, did_you_mean
from headstart.strategies.additions.products import is_product

_IN_ATTENTION = ("*attn.*", "*attention.*", "*.attn_*")


def attach(backbone: nn.Module, config: LoraConfig, shape: tuple[int, int, int]) -> None:
    """Wrap the target layers; raises ConfigError where peft is not installed, or a target cannot have it.

    `shape` is that of an image: (channels, height, width).
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError('strategy=lora: needs peft: pip install "headstart[lora]".')
    targets = _targets(backbone, config.targets, shape)
    import peft  # takes seconds, so not before it is needed

    options = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft only divides by it
        lora_dropout=config.dropout,
        target_modules=f"(?:{'|'.join(map(re.escape, targets))})",  # as a list, it would match endings of names too
        bias="none",
    )
    peft.inject_adapter_in_model(options, backbone)
    reached = {name for name, _ in _wrapped(backbone)}
    if reached != set(targets):
        raise ConfigError(f"strategy.targets: peft did not take {sorted(set(targets) - reached)[0]}.")


def _targets(backbone: nn.Module, patterns: list[str] | None, shape: tuple[int, int, int]) -> list[str]:
    able = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    called = _called(backbone, able, shape)
    fitting = [name for name, m in able.items() if name in called and not _grouped(m) and is_product(m)]
    if not patterns:
        linear = [name for name in fitting if isinstance(able[name], nn.Linear)]
        inside = [name for name in linear if any(fnmatchcase(name, pattern) for pattern in _IN_ATTENTION)]
        found = inside or fitting
        if not found:
            raise ConfigError(
                "strategy=lora: this backbone has no linear or ungrouped convolutional layer that it fits."
            )
        return found
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matched = [name for name in able if fnmatchcase(name, pattern)]
        if not matched:
            hint = did_you_mean(pattern, able)
            some = ", ".join(list(able)[:3])
            raise ConfigError(
                f"strategy.targets: {pattern!r} matches no layer of the backbone.{hint} It has {some} ..."
            )
        for name in matched:
            if _grouped(able[name]):
                raise ConfigError(f"strategy.targets: {name} is a grouped convolution; LoRA is for ungrouped ones.")
            if not is_product(able[name]):
                raise ConfigError(
                    f"strategy.targets: {name} ({type(able[name]).__name__}) changes its weight before it uses it; "
                    "an update would not fold into that."
                )
            if name not in called:
                raise ConfigError(
                    f"strategy.targets: {name} is not run as a layer here, its weight is used by what is around it."
                )
        chosen |= dict.fromkeys(matched)
    return list(chosen)


def _grouped(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


@torch.no_grad()
def _called(backbone: nn.Module, layers: dict[str, Any], shape: tuple[int, int, int]) -> set[str]:
    """Which layers run as such: some attentions use the weight of their layer and never call it."""
    called: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: called.add(name)

    handles = [module.register_forward_pre_hook(note(name)) for name, module in layers.items()]
    before = {module: module.training for module in backbone.modules()}
    try:
        backbone.eval()(torch.zeros(1, *shape))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in before.items():
            module.training = training
    return called


def _wrapped(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """peft's layers in a model; none where peft is not loaded."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def fold(model: nn.Module) -> None:
    """Add the updates to the weights, and take peft's layers away."""
    for name, layer in list(_wrapped(model)):
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())


@torch.no_grad()
def fold_state(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """In `state`, put updated weights in the place of their parts."""
    for name, layer in _wrapped(model):
        (adapter,) = layer.active_adapters
        weight = layer.base_layer.weight.detach() + layer.get_delta_weight(adapter).detach()
        bias = layer.base_layer.bias
        for key in [key for key in state if key.startswith(f"{name}.")]:
            del state[key]
        state[f"{name}.weight"] = weight
        if bias is not None:
            state[f"{name}.bias"] = bias.detach()
