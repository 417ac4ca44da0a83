"""Crops of many sizes -> images of one size, for a whole batch, on the device that it is on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Sizes = npt.NDArray[np.int64]
"""(n, 2): height and width in pixels."""


def resample(images: torch.Tensor, sizes: Sizes, *, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """uint8 (n, height, width, channels), of which each image fills `sizes` -> uint8 (n, channels, *size).

    Antialiased as Pillow does it, with kernels as wide as the reduction; on a CPU by PyTorch's kernels for bytes
    (where it has them), elsewhere as two products with a matrix for each image and axis. The two agree to within
    1/255 but for rounding.
    """
    if bool((sizes == size).all()):
        return images[:, : size[0], : size[1]].permute(0, 3, 1, 2).contiguous()
    if interpolation == "nearest":
        return _nearest(images, sizes, size)
    if images.device.type == "cpu" and interpolation in ("bilinear", "bicubic"):
        return _one_by_one(images, sizes, size, interpolation)
    return _by_products(images, sizes, size, interpolation)


def _one_by_one(images: torch.Tensor, sizes: Sizes, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    out = torch.empty((len(images), images.shape[3], *size), dtype=torch.uint8)

    def one(place: int) -> None:
        height, width = sizes[place]
        crop = images[place, :height, :width].permute(2, 0, 1)[None]
        out[place] = F.interpolate(crop, size, mode=interpolation, antialias=True)[0]

    threads = min(torch.get_num_threads(), len(images))
    if threads == 1:
        for place in range(len(images)):
            one(place)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(len(images))))
    return out


def _by_products(images: torch.Tensor, sizes: Sizes, size: tuple[int, int], interpolation: str) -> torch.Tensor:
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


def _triangle(x: torch.Tensor) -> torch.Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys's kernel with a = -0.5 (Keys 1981, eq. 15), as Pillow has it."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


KERNELS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
    "lanczos": (_lanczos, 3),
}
"""Kernel and how far it reaches, in pixels of the smaller grid."""


def _nearest(images: torch.Tensor, sizes: Sizes, size: tuple[int, int]) -> torch.Tensor:
    """The pixel that the middle of an output pixel lies in, as Pillow takes it."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (
        torch.from_numpy(((np.arange(out) + 0.5) * sizes[:, axis, None] / out).astype(np.int64)).to(images.device)
        for axis, out in enumerate(size)
    )
    return images[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
