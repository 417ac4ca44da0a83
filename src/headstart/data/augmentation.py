"""What is done to training images, by name: a cut from each on the way, the rest to the batch on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.data import crops
from headstart.data.draws import Draws
from headstart.data.forms import Form, Pixels, Shrunk, Squashed
from headstart.data.policies import AugMix, Policy, RandAugment, TrivialAugment
from headstart.data.resample import Crops, resample
from headstart.data.transforms import bit_precrop
from headstart.facts import InputSpec

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
"""Of random resized crops: the share of the area as in the fine-tuning protocol of the Transfer-Learning-Library
(Jiang et al. 2022), and torchvision's width over height."""

DEFAULT_MAGNITUDES = {"randaugment": 9, "augmix": 3}
"""torchvision's own."""
KEPT = 1.5
"""The shorter side of images that are cut at random, over the longer side of what the model takes."""


def kept_side(size: Sequence[int]) -> int:
    """Pixels of the shorter side at which images are kept for random crops, where nothing else is said."""
    return math.ceil(KEPT * max(size))


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip and policy of one config."""

    form: Form
    """What images are brought to first."""
    size: tuple[int, int]
    interpolation: str
    resized: bool
    """Whether crops are of random size and shape, and resized; else of the size itself."""
    policy: Policy | None = None
    scale: tuple[float, float] = SCALE
    ratio: tuple[float, float] = RATIO

    @property
    def draws(self) -> int:
        """How many draws an image takes: the crop's, one for the flip, the policy's."""
        return self._crop_draws + 1 + (self.policy.draws if self.policy else 0)

    @property
    def _crop_draws(self) -> int:
        return crops.RESIZED_DRAWS if self.resized else crops.PLACED_DRAWS

    def cut(self, images: Sequence[Pixels], draws: Draws) -> list[Pixels]:
        """The crop of each (height, width, channels), not copied."""
        sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        drawn = draws[:, : self._crop_draws]
        if self.resized:
            boxes = crops.random_resized(sizes, drawn, scale=self.scale, ratio=self.ratio)
        else:
            boxes = crops.random_placed(sizes, drawn, size=self.size)
        return [
            image[top : top + tall, left : left + wide]
            for image, (top, left, tall, wide) in zip(images, boxes.tolist(), strict=True)
        ]

    def finish(self, cut: Crops, draws: Draws) -> torch.Tensor:
        """What was cut -> uint8 (n, channels, *size) on its device: resized, flipped and changed by the policy."""
        mirrored = draws[:, self._crop_draws] < 0.5
        images = resample(cut, size=self.size, interpolation=self.interpolation, mirrored=mirrored)
        return self.policy(images, draws[:, self._crop_draws + 1 :]) if self.policy else images


def build_augmentation(
    name: str, spec: InputSpec, *, channels: int, side: int, magnitude: int
) -> Augmentation | None:
    """The augmentation called `name`; None for `none`.

    `light` crops and flips; `randaugment`, `trivial` and `augmix` do so and apply their policy, at `magnitude`
    where it takes one; `bit` crops and flips as BiT-HyperRule does. `side`: pixels of the shorter side that images
    have before a random resized crop, at most.
    """
    if name == "none":
        return None
    if name == "bit":
        form: Form = Squashed((*bit_precrop(spec.size),), spec.interpolation, channels)  # type: ignore[arg-type]
        return Augmentation(form, spec.size, spec.interpolation, resized=False)
    policies: dict[str, Policy | None] = {
        "light": None,
        "randaugment": RandAugment(magnitude),
        "trivial": TrivialAugment(),
        "augmix": AugMix(magnitude),
    }
    form = Shrunk(side, spec.interpolation, channels)
    return Augmentation(form, spec.size, spec.interpolation, resized=True, policy=policies[name])
