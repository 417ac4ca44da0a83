"""Which layers use their weight as it is: what is added to it, or scales it, does the same to their output."""

from __future__ import annotations

from timm.layers import Conv2dSame
from torch import nn

_FORWARD = tuple(layer.forward for layer in (nn.Linear, nn.Conv2d, Conv2dSame))


def is_product(module: nn.Module) -> bool:
    """Whether a layer multiplies its input with its weight; weight-standardised convolutions do not."""
    return type(module).forward in _FORWARD
