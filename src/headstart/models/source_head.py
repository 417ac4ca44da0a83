"""The classifier that a backbone was pretrained with, proven to be that: the backbone's own scores come out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn
from torchvision import models

from headstart.errors import WeightsError
from headstart.models import timm_backbone, torchvision_backbone
from headstart.models.loading import read_state
from headstart.models.weights import WeightsFile, read_for
from headstart.records.store import read_record

_TOLERANCE = 1e-4


def source_head(
    weights: WeightsFile | None,
    *,
    backbone: nn.Module,
    name: str,
    library: str,
    shape: tuple[int, int, int],
    pool: str,
    first_k: int | None,
) -> nn.Linear:
    """The linear classifier in the file that `backbone` was loaded from; (n, features) -> (n, source classes).

    `shape` is (channels, height, width); `pool` and `first_k` are those of the backbone. Raises WeightsError where
    there is none, or the backbone's features under it do not give what the whole pretrained model gives.
    """
    if weights is None:
        raise WeightsError("the source's classifier is needed, and weights=scratch has none.")
    if first_k is not None:
        raise WeightsError("the source's classifier is needed, and weights.first_k leaves a part of its backbone.")
    if weights.origin == "run":
        return _head_of_run(weights, pool=pool)
    state = read_for(weights, name=name, library=library)
    whole, head = _whole(state, weights, name=name, library=library, shape=shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(2, *shape)
    mode = {module: module.training for module in backbone.modules()}
    backbone.eval()
    with torch.no_grad():
        expected, features = whole.eval()(images), backbone(images)
        fits = features.shape[1] == head.in_features and torch.allclose(
            head(features), expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())
        )
    for module, training in mode.items():
        module.training = training
    if not fits:
        raise WeightsError(
            f"{weights.said}: the source's classifier is not one linear layer on these features of {name} "
            "(head.pool must be what it was trained with)."
        )
    return _copy(head.weight, head.bias)


def _whole(
    state: Mapping[str, torch.Tensor], weights: WeightsFile, *, name: str, library: str, shape: tuple[int, int, int]
) -> tuple[nn.Module, nn.Linear]:
    """The model with its classifier, loaded, and that classifier."""
    missing = WeightsError(f"{weights.said}: holds no classifier of the source.")
    if library == "torchvision":
        model = models.get_model(name.partition(".")[0], weights=None)
        path = torchvision_backbone.classifier_path(model)
    else:
        paths = timm_backbone.classifier_names(name)
        if len(paths) != 1:
            raise WeightsError(f"the source's classifier is needed, and {name} has {len(paths) or 'none'}.")
        path = paths[0]
    weight = state.get(f"{path}.weight")
    if weight is None or weight.ndim != 2:
        raise missing
    classes = weight.shape[0]
    if library == "torchvision":
        model = models.get_model(name.partition(".")[0], weights=None, num_classes=classes)
        model.load_state_dict(dict(state), strict=False)
    else:
        channels, *size = shape
        options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
        cfg = timm_backbone.pretrained_cfg(name)
        if cfg.get("fixed_input_size") and list(cfg["input_size"][1:]) != size:
            options["img_size"] = tuple(size)
        overlay = {"state_dict": dict(state), "source": "", "num_classes": classes}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    head = model.get_submodule(path)
    if not isinstance(head, nn.Linear):
        raise missing
    return model, head


def _head_of_run(weights: WeightsFile, *, pool: str) -> nn.Linear:
    """The head of an earlier run, where it is one linear layer, on features that were pooled alike."""
    record = read_record(weights.path.parent.parent)
    if (task := record.data.get("task")) in ("binary", "multilabel", "regression"):
        raise WeightsError(f"{weights.said}: the head of that run ({task}) tells no classes apart.")
    before = record.config["head"]["pool"]
    if before != pool:
        raise WeightsError(f"{weights.said}: the head of that run stands on head.pool={before}, not {pool}.")
    state = {key: value for key, value in read_state(weights.path).items() if key.startswith("head.")}
    matrices = [key for key, value in state.items() if value.ndim == 2 and key.endswith(".weight")]
    if len(matrices) != 1:
        raise WeightsError(f"{weights.said}: the head of that run is not one linear layer.")
    return _copy(state[matrices[0]], state.get(matrices[0].replace("weight", "bias")))


def _copy(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    head = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head
