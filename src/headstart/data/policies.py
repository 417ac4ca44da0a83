"""Augmentation policies over a batch: torchvision's operations, each applied at once to all images that drew it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from headstart.data.draws import Draws

Space = Mapping[str, tuple[Callable[[int, int, int], torch.Tensor | None], bool]]
"""Operation -> its magnitudes for (bins, height, width), or None, and whether the sign is drawn."""


@dataclass(frozen=True)
class RandAugment:
    """Two operations in a row at one magnitude of 0 to 30 (Cubuk et al. 2020)."""

    magnitude: int
    operations: int = 2

    @property
    def draws(self) -> int:
        """How many draws an image takes."""
        return 2 * self.operations

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """uint8 (n, channels, height, width) -> the same; `draws` is (n, self.draws)."""
        own = v2.RandAugment(num_ops=self.operations, magnitude=self.magnitude)
        bins = np.full(len(images), self.magnitude)
        for turn in range(self.operations):
            drawn = draws[:, 2 * turn : 2 * turn + 2]
            images = _one_operation(own, images, drawn[:, 0], bins, drawn[:, 1], own.num_magnitude_bins)
        return images


@dataclass(frozen=True)
class TrivialAugment:
    """One operation at one of 31 magnitudes (Mueller and Hutter 2021)."""

    draws: int = 3

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """uint8 (n, channels, height, width) -> the same; `draws` is (n, self.draws)."""
        own = v2.TrivialAugmentWide()
        bins = (draws[:, 1] * own.num_magnitude_bins).astype(np.int64)
        return _one_operation(own, images, draws[:, 0], bins, draws[:, 2], own.num_magnitude_bins)


_WIDTH, _DEPTH = 3, 3


@dataclass(frozen=True)
class AugMix:
    """The image mixed with three chains of one to three operations each, of a severity of 1 to 10
    (Hendrycks et al. 2020, algorithm 1)."""

    severity: int
    draws: int = 1 + _WIDTH * (2 + 3 * _DEPTH)

    def __call__(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """uint8 (n, channels, height, width) -> the same; `draws` is (n, self.draws)."""
        own = v2.AugMix(severity=self.severity)
        mixed = draws[:, 0]  # Beta(1, 1)
        chains = draws[:, 1:].reshape(len(draws), _WIDTH, 2 + 3 * _DEPTH)
        weights = -np.log1p(-chains[:, :, 0])
        weights = np.maximum(weights, 1e-12)
        weights = weights / weights.sum(axis=1, keepdims=True) * mixed[:, None]  # Dirichlet(1, 1, 1)
        depths = 1 + (chains[:, :, 1] * _DEPTH).astype(np.int64)
        result = _weighted(images, 1 - mixed)
        for chain in range(_WIDTH):
            made = images
            for turn in range(_DEPTH):
                drawn = chains[:, chain, 2 + 3 * turn : 5 + 3 * turn]
                bins = (drawn[:, 1] * self.severity).astype(np.int64)
                goes_on = depths[:, chain] > turn
                made = _one_operation(own, made, drawn[:, 0], bins, drawn[:, 2], own._PARAMETER_MAX, goes_on)
            result += _weighted(made, weights[:, chain])
        return result.round_().clamp_(0, 255).to(torch.uint8)


Policy = RandAugment | TrivialAugment | AugMix


def _weighted(images: torch.Tensor, weights: npt.NDArray[np.float64]) -> torch.Tensor:
    return images.float() * torch.from_numpy(weights).float().to(images.device)[:, None, None, None]


def _one_operation(
    own: Any,
    images: torch.Tensor,
    which: npt.NDArray[np.float64],
    bins: npt.NDArray[np.int64],
    signs: npt.NDArray[np.float64],
    most: int,
    wanted: npt.NDArray[np.bool_] | None = None,
) -> torch.Tensor:
    """The operation of torchvision's `own` space that each image drew, at the magnitude of its bin."""
    space: Space = own._AUGMENTATION_SPACE
    names = list(space)
    height, width = F.get_size(images)
    magnitudes = {name: space[name][0](most, height, width) for name in names}
    groups: dict[tuple[str, float], list[int]] = {}
    for place, name in enumerate(names[int(draw * len(names))] for draw in which):
        if wanted is not None and not wanted[place]:
            continue
        levels = magnitudes[name]
        magnitude = 0.0 if levels is None else float(levels[int(bins[place])])
        if levels is not None and space[name][1] and signs[place] < 0.5:
            magnitude = -magnitude
        groups.setdefault((name, magnitude), []).append(place)
    changed = images.clone()
    for (name, magnitude), places in groups.items():
        chosen = torch.tensor(places, device=images.device)
        with _any_algorithm():
            changed[chosen] = own._apply_image_or_video_transform(
                images[chosen], name, magnitude, interpolation=own.interpolation, fill=own._fill
            )
    return changed


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Also those that a GPU has in no deterministic form: what they add up are whole numbers, in whatever order."""
    wanted = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(wanted)
