"""The layer groups of a backbone, from the input up: from timm's `group_matcher`, so one rule serves them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

from headstart.facts import LayerGroup, LayerMap
from headstart.models import timm_backbone, torchvision_backbone


def backbone_groups(backbone: nn.Module, *, name: str, library: str) -> tuple[dict[str, str], str]:
    """Group of every parameter and buffer of a backbone, in order of the groups; and why there are none.

    What the library puts beside its classifier (VGG's `pre_logits`, MobileNetV3's `conv_head`, final norms)
    is `neck`. Without groups everything is in one called `backbone`, and the reason is returned.
    """
    tensors = [key for key, _ in (*backbone.named_parameters(), *backbone.named_buffers())]
    if library == "torchvision":
        keys = {key: torchvision_backbone.group_key(key) for key in tensors}
        top = (1, 0)
    else:
        try:
            matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]
            classifiers = [f"{c}.weight" for c in timm_backbone.classifier_names(name)]
            named = [(key, None) for key in dict.fromkeys((*tensors, *classifiers))]
            found = group_with_matcher(named, matcher, reverse=True)
        except (AttributeError, NotImplementedError, TypeError, ValueError, IndexError):
            return dict.fromkeys(tensors, "backbone"), f"timm has no layer groups for {name}"
        keys = {key: (0, found[key]) for key in tensors}
        top = (0, min((found[key] for key in classifiers), default=max(found.values()) + 1))
    below = sorted({key for key in keys.values() if key < top})
    names = {key: "stem" if i == 0 else f"block.{i - 1}" for i, key in enumerate(below)}
    grouped = {key: names.get(place, "neck") for key, place in keys.items()}
    ordered = [*names.values(), "neck"]
    return dict(sorted(grouped.items(), key=lambda item: ordered.index(item[1]))), ""


def layer_map(model: nn.Module, groups: dict[str, str], *, order_problem: str) -> LayerMap:
    """The map of a whole model whose parts are called `backbone` and `head`.

    The head's group holds exactly what the head holds; every parameter is in exactly one group.
    """
    of = {f"backbone.{key}": group for key, group in groups.items()}
    of |= {key: "head" for key, _ in _tensors(model) if key.startswith("head.")}
    names = [*dict.fromkeys(groups.values()), "head"]
    parameters = dict(model.named_parameters())
    buffers = {key for key, _ in model.named_buffers()}
    if set(of) != set(parameters) | buffers:
        odd = sorted(set(of) ^ (set(parameters) | buffers))
        raise AssertionError(f"tensors in no group, or in one and not in the model: {odd[:3]}")
    return LayerMap(
        groups=tuple(
            LayerGroup(
                name=name,
                parameters=tuple(key for key in of if of[key] == name and key in parameters),
                buffers=tuple(key for key in of if of[key] == name and key in buffers),
                size=sum(parameters[key].numel() for key in of if of[key] == name and key in parameters),
            )
            for name in names
        ),
        prefix_problem=order_problem,
    )


def run_once(backbone: nn.Module, groups: dict[str, str], image: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Features of `image` in evaluation mode, and whether the groups ran one after another.

    Groups that are entered again after a later one has begun (CaiT's and CoaT's) have no prefix to freeze.
    """
    order = list(dict.fromkeys(groups.values()))
    seen: list[int] = []

    def entered(group: str) -> Callable[[nn.Module, object], None]:
        return lambda module, inputs: seen.append(order.index(group))

    hooks = []
    for name, module in backbone.named_modules():
        own = [f"{name}.{key}" for key in _own(module)] if name else []
        if own:
            hooks.append(module.register_forward_pre_hook(entered(groups[own[0]])))
    before = {name: module.training for name, module in backbone.named_modules()}
    try:
        backbone.eval()
        with torch.no_grad():
            features = backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
        for name, module in backbone.named_modules():
            module.training = before[name]
    return features, all(a <= b for a, b in pairwise(seen))


def _own(module: nn.Module) -> Iterable[str]:
    return [key for key, _ in module.named_parameters(recurse=False)]


def _tensors(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
