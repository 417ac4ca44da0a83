"""Mixup: each image of a batch is mixed with another, and so is the loss (Zhang et al. 2018)."""

from __future__ import annotations

import torch


def draw_mixup(images: int, alpha: float) -> tuple[float, torch.Tensor]:
    """The share that an image keeps, from Beta(alpha, alpha), and each one's partner in the batch.

    Drawn from the global generator, which is seeded anew for every step.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return share, torch.randperm(images)
