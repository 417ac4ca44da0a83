"""What is done to an image before the model sees it; evaluation follows timm's own transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import create_transform
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import v2

from headstart.facts import InputSpec

Geometry = Callable[[Any], torch.Tensor]
"""PIL image or uint8 tensor -> uint8 tensor (channels, height, width) of the size the model takes."""


class Normalize:
    """uint8 (..., channels, height, width) in [0, 255] -> float32, zero mean and unit spread per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise on the device that `pixels` are on."""
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return pixels.float().div_(255).sub_(mean).div_(std)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()})"


def evaluation(spec: InputSpec) -> Geometry:
    """Resize and centre crop, as timm evaluates this backbone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transform: Geometry = create_transform(
            input_size=(3, *spec.size),
            is_training=False,
            interpolation=spec.interpolation,
            crop_pct=spec.crop_pct,
            crop_mode=spec.crop_mode,
            normalize=False,
        )
    return transform


def training(spec: InputSpec, *, augment: str) -> Geometry:
    """What training images go through: `none` is the evaluation's, `light` crops and flips at random.

    The crop covers 0.2 to 1 of the image's area, as in the fine-tuning protocol of the
    Transfer-Learning-Library (Jiang et al. 2022).
    """
    if augment == "none":
        return evaluation(spec)
    if augment == "bit":
        resized = v2.Resize(
            bit_precrop(spec.size), interpolation=str_to_interp_mode(spec.interpolation), antialias=True
        )
        bit: Geometry = v2.Compose([resized, v2.RandomCrop(spec.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        return bit
    light: Geometry = v2.Compose(
        [
            v2.RandomResizedCrop(
                spec.size,
                scale=(0.2, 1.0),
                interpolation=str_to_interp_mode(spec.interpolation),
                antialias=True,
            ),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    return light


def _resized(spec: InputSpec, size: list[int]) -> v2.Resize:
    return v2.Resize(size, interpolation=str_to_interp_mode(spec.interpolation), antialias=True)


def bit_size(height: int, width: int) -> int:
    """Side in pixels that BiT-HyperRule trains images of this size at."""
    return 128 if height * width < 96 * 96 else 480


def bit_precrop(size: tuple[int, int]) -> list[int]:
    """What BiT-HyperRule resizes to before it crops: 160 for 128, 512 for 480."""
    return [round(side * (160 / 128 if side <= 128 else 512 / 480)) for side in size]


def evaluation_for(spec: InputSpec, *, augment: str) -> Geometry:
    """What evaluation images go through: BiT's are resized to the size itself, others as timm evaluates them."""
    if augment != "bit":
        return evaluation(spec)
    whole: Geometry = v2.Compose([_resized(spec, list(spec.size)), v2.PILToTensor()])
    return whole


def describe(geometry: Geometry, normalize: Normalize) -> str:
    """The transform in words, for the record."""
    return " ".join(f"{geometry} {normalize!r}".split())
