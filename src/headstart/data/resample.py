"""Crops of many sizes -> images of one size, for a whole batch, on the device that it is on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from headstart.data.half_products import by_half_products
from headstart.data.kernels import KERNELS, Mask, Sizes
from headstart.data.workers import share_out


@dataclass(frozen=True)
class Packed:
    """Crops of several sizes in one tensor, so that they travel together."""

    images: torch.Tensor
    """uint8 (n, height, width, channels); what lies beyond an image's own size is not defined."""
    sizes: Sizes

    def to(self, device: torch.device | str) -> Packed:
        """On another device, without waiting for it: Lightning would wait for what is no plain tensor."""
        return Packed(self.images.to(device, non_blocking=True), self.sizes)

    def pin_memory(self) -> Packed:
        """In memory that a GPU reads by itself."""
        return Packed(self.images.pin_memory(), self.sizes)


Crops = Packed | list[npt.NDArray[np.uint8]]
"""Crops as they travel, or where they lie, each (height, width, channels)."""


def packed(crops: list[npt.NDArray[np.uint8]]) -> Packed:
    """A copy of all crops in one tensor."""
    sizes = np.array([crop.shape[:2] for crop in crops], dtype=np.int64)
    height, width = sizes.max(axis=0)
    images = np.empty((len(crops), height, width, crops[0].shape[2]), dtype=np.uint8)
    for place, crop in enumerate(crops):
        images[place, : crop.shape[0], : crop.shape[1]] = crop
    return Packed(torch.from_numpy(images), sizes)


def resample(
    crops: Crops, *, size: tuple[int, int], interpolation: str, mirrored: Mask | None = None
) -> torch.Tensor:
    """Crops -> uint8 (n, channels, *size), those that are `mirrored` (n,) with left and right exchanged.

    Antialiased as Pillow does it, with kernels as wide as the reduction; on a CPU by PyTorch's kernels for bytes
    (where it has them), elsewhere as two products with a matrix for each image and axis. All agree to within
    1/255 (lanczos, which overshoots, to within 3/255 of Pillow).
    """
    on_cpu = isinstance(crops, list) or crops.images.device.type == "cpu"
    if on_cpu and interpolation in ("bilinear", "bicubic"):
        return _one_by_one(_each(crops), size, interpolation, mirrored)
    together = packed(crops) if isinstance(crops, list) else crops
    if bool((together.sizes == size).all()):
        made = together.images[:, : size[0], : size[1]].permute(0, 3, 1, 2).contiguous()
    elif interpolation == "nearest":
        made = _nearest(together.images, together.sizes, size)
    elif not on_cpu:
        return by_half_products(together.images, together.sizes, size, interpolation, mirrored=mirrored)
    else:
        made = by_products(together.images, together.sizes, size, interpolation)
    if mirrored is None:
        return made
    mask = torch.from_numpy(mirrored).to(made.device, non_blocking=True)
    return torch.where(mask[:, None, None, None], made.flip(-1), made)


def _each(crops: Crops) -> list[torch.Tensor]:
    if isinstance(crops, list):
        return [torch.from_numpy(crop) for crop in crops]
    return [image[:height, :width] for image, (height, width) in zip(crops.images, crops.sizes, strict=True)]


def _one_by_one(
    crops: list[torch.Tensor], size: tuple[int, int], interpolation: str, mirrored: Mask | None
) -> torch.Tensor:
    out = torch.empty((len(crops), crops[0].shape[2], *size), dtype=torch.uint8)

    def some(places: range) -> None:
        for place in places:
            crop = crops[place].permute(2, 0, 1)
            if crop.shape[1:] != size:
                crop = F.interpolate(crop[None], size, mode=interpolation, antialias=True)[0]
            out[place] = crop if mirrored is None or not mirrored[place] else crop.flip(-1)

    share_out(some, len(crops))
    return out


def by_products(images: torch.Tensor, sizes: Sizes, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """As `resample` does it on a CPU where PyTorch has no kernel; `images` and `sizes` are those of `Packed`."""
    with torch.autocast(images.device.type, enabled=False):
        extent = torch.from_numpy(sizes).to(images.device, non_blocking=True)
        rows = _weights(extent[:, 0], size[0], images.shape[1], interpolation)
        columns = _weights(extent[:, 1], size[1], images.shape[2], interpolation)
        levels = images.permute(0, 3, 1, 2).float()
        wide = (levels @ columns.transpose(1, 2)[:, None]).round_().clamp_(0, 255)  # as Pillow rounds in between
        return (rows[:, None] @ wide).round_().clamp_(0, 255).to(torch.uint8)


def _weights(lengths: torch.Tensor, out: int, longest: int, interpolation: str) -> torch.Tensor:
    """(n, out, longest): how much each input pixel counts in each output pixel."""
    kernel, support = KERNELS[interpolation]
    scale = (lengths / out)[:, None, None]
    widened = scale.clamp(min=1)
    centers = (torch.arange(out, device=lengths.device) + 0.5)[None, :, None] * scale
    places = torch.arange(longest, device=lengths.device)[None, None, :]
    weights = kernel((places + 0.5 - centers) / widened)
    first = (centers - support * widened + 0.5).floor()
    last = (centers + support * widened + 0.5).floor()
    weights = weights * ((places >= first) & (places < last) & (places < lengths[:, None, None]))
    return weights / weights.sum(dim=2, keepdim=True)


def _nearest(images: torch.Tensor, sizes: Sizes, size: tuple[int, int]) -> torch.Tensor:
    """The pixel that the middle of an output pixel lies in, as Pillow takes it."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (
        torch.from_numpy(((np.arange(out) + 0.5) * sizes[:, axis, None] / out).astype(np.int64)).to(images.device)
        for axis, out in enumerate(size)
    )
    return images[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
