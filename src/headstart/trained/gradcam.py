"""Where a model looks: Grad-CAM (Selvaraju et al. 2017), for networks with maps and with tokens alike."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from headstart.errors import ConfigError
from headstart.models.classifier import Classifier


def grad_cam(model: Classifier, image: torch.Tensor, *, target: int, against: bool = False) -> torch.Tensor:
    """Relevance of each place of an image for an output, (height, width) of the image, from 0 to 1.

    `against` asks what speaks against it, as for the first of two classes. `image` is normalised, (channels,
    height, width). The weights of the maps are the mean gradient of the output (eq. 1), their weighted sum is cut
    off below zero (eq. 2) and enlarged bilinearly. The maps are the last ones on which the output depends at more
    than one place: for a transformer that pools a class token, those before its last block. All zero where nothing
    speaks for it. Raises ConfigError where there are no maps.
    """
    maps = _maps(model, image[None])
    score = maps.pop("score")[0, target] * (-1 if against else 1)
    for activation in reversed(list(maps.values())):
        (gradient,) = torch.autograd.grad(score, activation, retain_graph=True, allow_unused=True)
        if gradient is None:
            continue
        places, slopes = _as_maps(activation, image.shape[-2:]), _as_maps(gradient, image.shape[-2:])
        if places is None or slopes is None or int((slopes.abs().sum(dim=1) > 0).sum()) < 2:
            continue
        cam = (slopes.mean(dim=(2, 3), keepdim=True) * places).sum(dim=1, keepdim=True).relu()
        cam = nn.functional.interpolate(cam, size=image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
        top = cam.max()
        return (cam / top if top > 0 else cam).detach().cpu()
    raise ConfigError("Grad-CAM: this backbone has no maps of places that its scores depend on.")


def _maps(model: Classifier, images: torch.Tensor) -> dict[str, Any]:
    """Outputs of the backbone's modules that could be maps or tokens, in the order in which they came about."""
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.ndim in (3, 4) and output.requires_grad:
                found.pop(name, None)
                found[name] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.backbone.named_modules() if name]
    try:
        with torch.enable_grad():
            found["score"] = model(images.detach().clone().requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
    score = found.pop("score")
    return {**found, "score": score}


def _as_maps(output: torch.Tensor, image: torch.Size) -> torch.Tensor | None:
    """(1, channels, height, width) of an output; None where it has no places.

    Maps whose channels come last are told by their sides: height over width is that of the image.
    """
    if output.ndim == 3:
        return _from_tokens(output, image)
    _, a, b, c = output.shape
    first, last = b * image[1] == c * image[0], a * image[1] == b * image[0]
    if last and not (first and a >= c):
        output = output.permute(0, 3, 1, 2)
    return output if output.shape[2] * output.shape[3] > 1 else None


def _from_tokens(output: torch.Tensor, image: torch.Size) -> torch.Tensor | None:
    """(1, tokens, channels) -> maps: the tokens that fill a grid of the image's shape, without those before it."""
    _, tokens, channels = output.shape
    ratio = image[0] / image[1]
    for before in range(6):  # class, distillation and register tokens
        width = math.sqrt((tokens - before) / ratio) if tokens > before else 0
        height = round(width * ratio)
        if round(width) > 1 and round(width) * height == tokens - before:
            grid = output[:, before:].transpose(1, 2)
            return grid.reshape(1, channels, height, round(width))
    return None
