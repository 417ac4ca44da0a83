"""Mixup and CutMix: each image of a batch is mixed with another, and so is the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mixed:
    """A batch whose images hold a share of their own and the rest of a partner."""

    images: torch.Tensor
    share: float
    """What an image keeps of itself, and its target of the loss."""
    partners: torch.Tensor
    """(n,) places of the partners in the batch."""


@dataclass(frozen=True)
class Mixing:
    """Which of the two, and from which Beta distribution the share is drawn; an alpha of 0 is off.

    Mixup: Zhang et al. 2018, eq. 1. CutMix: Yun et al. 2019, eq. 1 and 2. With both each step takes one of them,
    each as likely.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def __call__(self, images: torch.Tensor) -> Mixed:
        """Mix (n, channels, height, width); draws are the global generator's, which each step seeds anew."""
        cuts = self.cutmix_alpha > 0
        if cuts and self.mixup_alpha > 0:
            cuts = bool(torch.rand(()) < 0.5)
        alpha = self.cutmix_alpha if cuts else self.mixup_alpha
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        partners = torch.randperm(len(images))
        if not cuts:
            return Mixed(share * images + (1 - share) * images[partners], share, partners)
        top, bottom, left, right = _rectangle(images.shape[2], images.shape[3], share)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
        covered = (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        return Mixed(mixed, 1 - covered, partners)


def _rectangle(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a rectangle of the image's shape, 1 - `share` of its area, around any pixel;
    what lies outside of the image is cut off."""
    side = math.sqrt(1 - share)
    tall, wide = int(height * side), int(width * side)
    middle, across = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(middle - tall // 2, 0), min(middle + tall // 2, height)
    left, right = max(across - wide // 2, 0), min(across + wide // 2, width)
    return top, bottom, left, right
