"""The layer groups of a backbone, from the input up: from timm's `group_matcher`, so one rule serves them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from timm.models._manipulate import group_with_matcher
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.errors import ConfigError
from headstart.facts import LayerGroup, LayerMap, LayerParameter, ParameterKind
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
    return _mapped(model, of, order=[*dict.fromkeys(groups.values()), "head"], problem=order_problem)


def with_head(layers: LayerMap, head: nn.Module) -> LayerMap:
    """The map of a model that has another head on the same backbone."""
    kinds = _kinds(head)
    group = LayerGroup(
        name="head",
        parameters=tuple(
            LayerParameter(f"head.{key}", p.numel(), kinds[key]) for key, p in head.named_parameters()
        ),
        buffers=tuple(f"head.{key}" for key, _ in head.named_buffers()),
        batch_norms=sum(isinstance(module, _BatchNorm) for module in head.modules()),
    )
    return replace(layers, groups=(*layers.backbone, group))


def keep_first(k: int, loaded: nn.Module, fresh: nn.Module, groups: dict[str, str], *, problem: str) -> None:
    """Copy the first k layer groups, buffers included, from `loaded` into `fresh`.

    Raises ConfigError where the groups have no order, or there are not k of them.
    """
    names = list(dict.fromkeys(groups.values()))
    if problem:
        raise ConfigError(f"weights.first_k: {problem}.")
    if k > len(names):
        raise ConfigError(
            f"weights.first_k={k}: the backbone has {len(names)} layer groups ({names[0]} ... {names[-1]})."
        )
    targets = dict(_tensors(fresh))
    with torch.no_grad():
        for name, tensor in _tensors(loaded):
            if groups[name] in names[:k]:
                targets[name].copy_(tensor)


@dataclass(frozen=True)
class Census:
    """The tensors and modules of a model by identity, which names that change later cannot blur."""

    groups: dict[int, str]
    """Layer group of each parameter and buffer."""
    modules: frozenset[int]


def census(model: nn.Module, layers: LayerMap) -> Census:
    """Who is there, before something is put into the backbone."""
    group_of = layers.group_of()
    groups = {id(tensor): group_of[name] for name, tensor in _tensors(model)}
    return Census(groups, frozenset(id(module) for module in model.modules()))


def with_additions(model: nn.Module, layers: LayerMap, before: Census) -> LayerMap:
    """The map after something was put into the backbone, which may have given tensors other names.

    What is new goes with the group of what lies nearest around it.
    """
    named = dict(_tensors(model))
    old = {name: before.groups[id(tensor)] for name, tensor in named.items() if id(tensor) in before.groups}

    def nearest(name: str) -> str:
        while name:
            name = name.rpartition(".")[0]
            near = [group for key, group in old.items() if key.startswith(f"{name}.")]
            if near:
                return min(near, key=layers.names.index)
        raise AssertionError("a tensor outside the model")

    new = {name: nearest(name) for name in named if name not in old}
    fresh = [name for name, module in model.named_modules() if name and id(module) not in before.modules]
    modules = {name: nearest(f"{name}.x") for name in fresh}
    of = dict(sorted((old | new).items(), key=lambda item: layers.names.index(item[1])))
    return _mapped(model, of, order=list(layers.names), added=new, modules=modules, problem=layers.prefix_problem)


def _mapped(
    model: nn.Module,
    of: dict[str, str],
    *,
    order: list[str],
    added: Iterable[str] = (),
    modules: dict[str, str] | None = None,
    problem: str,
) -> LayerMap:
    """The map of tensors that are sorted by group; raises AssertionError unless it holds each exactly once."""
    parameters = dict(model.named_parameters())
    buffers = {key for key, _ in model.named_buffers()}
    if set(of) != set(parameters) | buffers:
        odd = sorted(set(of) ^ (set(parameters) | buffers))
        raise AssertionError(f"tensors in no group, or in one and not in the model: {odd[:3]}")
    kinds: dict[str, ParameterKind] = _kinds(model)
    kinds.update(dict.fromkeys(added, "added"))
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    held = [next((group for key, group in of.items() if key.startswith(f"{name}.")), "") for name in norms]
    return LayerMap(
        groups=tuple(
            LayerGroup(
                name=name,
                parameters=tuple(
                    LayerParameter(key, parameters[key].numel(), kinds[key])
                    for key in of
                    if of[key] == name and key in parameters
                ),
                buffers=tuple(key for key in of if of[key] == name and key in buffers),
                batch_norms=held.count(name),
                added_modules=tuple(key for key, group in (modules or {}).items() if group == name),
            )
            for name in order
        ),
        prefix_problem=problem,
    )


def _kinds(model: nn.Module) -> dict[str, ParameterKind]:
    """What each parameter is; a normalisation is a module whose class is named so and that has parameters."""
    kinds: dict[str, ParameterKind] = {}
    for prefix, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for key, _ in module.named_parameters(recurse=False):
            is_bias = key == "bias" or key.endswith("_bias")
            name = f"{prefix}.{key}" if prefix else key
            if is_norm:
                kinds[name] = "norm_bias" if is_bias else "norm_weight"
            else:
                kinds[name] = "bias" if is_bias else "weight"
    return kinds


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


def depth(name: str, *, library: str) -> int:
    """How many layer groups a backbone has, its head not counted; nothing is computed for it.

    Raises ConfigError for an unknown backbone, or one without groups.
    """
    source = {"timm": timm_backbone, "torchvision": torchvision_backbone}[library]
    full = source.full_name(name)
    with torch.device("meta"):
        backbone, _ = source.create(full, channels=3, size=source.input_spec(full).size, pool="auto", state=None)
    groups, problem = backbone_groups(backbone, name=full, library=library)
    if problem:
        raise ConfigError(f"{problem}, so that they cannot be counted.")
    return len(set(groups.values()))
