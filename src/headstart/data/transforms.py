"""What is done to an image before the model sees it; evaluation follows timm's own transform."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import create_transform
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import v2

from headstart.data.workers import share_out
from headstart.facts import InputSpec

Geometry = Callable[[Any], torch.Tensor]
"""PIL image or uint8 tensor -> uint8 tensor (channels, height, width) of the size the model takes."""


class Normalize:
    """uint8 (..., channels, height, width) in [0, 255] -> float32, zero mean and unit spread per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)
        self._sent: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise on the device that `pixels` are on."""
        if pixels.device.type == "cpu" and pixels.ndim == 4:
            return self._one_by_one(pixels)
        if pixels.device.type == "cpu":
            return pixels.float().div_(255).sub_(self.mean).div_(self.std)
        return self._at_once(pixels)

    def _at_once(self, pixels: torch.Tensor) -> torch.Tensor:
        """In one pass over memory, as a GPU wants it; equal to 1e-6 of the largest value."""
        scale, shift = self._on(pixels.device)
        return torch.addcmul(shift, pixels, scale)

    def _one_by_one(self, pixels: torch.Tensor) -> torch.Tensor:
        """The same bits: image by image what is in between stays in the processor's cache."""
        out = torch.empty(pixels.shape, dtype=torch.float32)

        def some(places: range) -> None:
            for place in places:
                torch.div(pixels[place].float().div_(255).sub_(self.mean), self.std, out=out[place])

        share_out(some, len(pixels))
        return out

    def _on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """1 / (255 std) and -mean / std where they are needed; they are sent to a GPU once."""
        if device not in self._sent:
            mean, std = self.mean.double(), self.std.double()
            both = (1 / (255 * std)).float(), (-mean / std).float()
            self._sent[device] = (both[0].to(device), both[1].to(device))
        return self._sent[device]

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


def whole(spec: InputSpec, size: Sequence[int]) -> Geometry:
    """Resize to `size` itself, whatever the image's shape."""
    resized = v2.Resize(list(size), interpolation=interpolation_mode(spec.interpolation), antialias=True)
    transform: Geometry = v2.Compose([resized, v2.PILToTensor()])
    return transform


def interpolation_mode(name: str) -> Any:
    """torchvision's own word for a way to interpolate."""
    return str_to_interp_mode(name)


def bit_size(height: int, width: int) -> int:
    """Side in pixels that BiT-HyperRule trains images of this size at."""
    return 128 if height * width < 96 * 96 else 480


def bit_precrop(size: tuple[int, int]) -> list[int]:
    """What BiT-HyperRule resizes to before it crops: 160 for 128, 512 for 480."""
    return [round(side * (160 / 128 if side <= 128 else 512 / 480)) for side in size]
