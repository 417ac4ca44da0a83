"""Resizing a batch on a GPU: two products of half-precision matrices for each image, with little else moved.

Against float32 in several passes it reads and writes a quarter of the bytes, and the products are those that GPUs
have special units for. Levels are shifted to -128 ... 127, exact in float16; weights have 11 bits; sums are
float32; what is in between is not rounded to whole levels as Pillow does it. Together that moves a result by less
than one level before it is rounded, hence by at most one after (tests/data/test_augmentation.py).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from headstart.data.kernels import KERNELS, Mask, Sizes

_ALIGNED = 8
"""Numbers to a multiple of which rows are padded: 16 bytes, as the units that multiply want them."""
_MIDDLE = 128


def by_half_products(
    images: torch.Tensor, sizes: Sizes, size: tuple[int, int], interpolation: str, *, mirrored: Mask | None = None
) -> torch.Tensor:
    """uint8 (n, height, width, channels) of `sizes` -> uint8 (n, channels, *size), some of them mirrored.

    What lies in `images` beyond an image's own size does not matter. Nothing waits for the device.
    """
    count, height, width, channels = images.shape
    across = -(-width // _ALIGNED) * _ALIGNED
    with torch.autocast(images.device.type, enabled=False):
        levels = torch.empty((count, height, channels, across), dtype=torch.float16, device=images.device)
        levels[..., :width].copy_(images.permute(0, 1, 3, 2))
        levels[..., :width].sub_(_MIDDLE)
        levels[..., width:].zero_()  # weights of 0 do not help against what is no number
        columns = _weights(sizes[:, 1], size[1], across, interpolation, images.device, mirrored=mirrored)
        rows = _weights(sizes[:, 0], size[0], height, interpolation, images.device)
        wide = levels.view(count, height * channels, across) @ columns.transpose(1, 2)
        if interpolation != "bilinear":  # the others overshoot, and Pillow cuts that off on the way
            wide.clamp_(-_MIDDLE, _MIDDLE - 1)
        made = rows @ wide.view(count, height, channels * size[1])
        made.round_().clamp_(-_MIDDLE, _MIDDLE - 1).add_(_MIDDLE)
        whole = made.view(count, size[0], channels, size[1]).transpose(1, 2)
        return whole.to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(
    lengths: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    out: int,
    longest: int,
    interpolation: str,
    device: torch.device,
    *,
    mirrored: Mask | None = None,
) -> torch.Tensor:
    """float16 (n, out, longest): how much each input pixel counts in each output pixel.

    Computed for the few pixels alone that a kernel reaches, and then put in their places among zeros.
    """
    kernel, support = KERNELS[interpolation]
    widest = max(1.0, float(lengths.max()) / out)
    taps = 2 * math.ceil(support * widest) + 2
    before = -(-taps // _ALIGNED) * _ALIGNED
    whole = -(-(before + longest + taps) // _ALIGNED) * _ALIGNED
    extent = torch.from_numpy(lengths).to(device, non_blocking=True)[:, None, None]
    scale = extent / out
    widened = scale.clamp(min=1)
    place = torch.arange(out, device=device).expand(len(lengths), out)
    if mirrored is not None:
        turned = torch.from_numpy(mirrored).to(device, non_blocking=True)[:, None]
        place = torch.where(turned, out - 1 - place, place)
    centers = (place + 0.5)[:, :, None] * scale
    first = (centers - support * widened + 0.5).floor()
    last = (centers + support * widened + 0.5).floor()
    pixels = first + torch.arange(taps, device=device)
    inside = (pixels >= 0) & (pixels < last) & (pixels < extent)
    weights = torch.where(inside, kernel((pixels + 0.5 - centers) / widened), 0.0)
    half = (weights / weights.sum(dim=2, keepdim=True)).half()
    found = torch.zeros((len(lengths), out, whole), dtype=torch.float16, device=device)
    # each tap of a row has a place of its own, those outside of the image in what is cut off
    found.scatter_(2, pixels.long() + before, half)
    return found[:, :, before : before + longest]
