"""Auto-RGN: the rate of each tensor follows its relative gradient norm (Lee et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class RelativeGradientNorms(nn.Module):
    """Multiples of the learning rate per tensor, learned along the way and part of the checkpoint.

    Over an epoch, RGN_i = mean over its steps of ||g_i|| / ||w_i||, before the step moves w_i; the multiples
    of the next epoch are RGN_i / max_j RGN_j, in [0, 1]. Those of the first epoch come from its first step. A
    tensor of zeros that has a gradient has no finite RGN: its multiple is 1, and it is not in the maximum.
    """

    multiples: torch.Tensor
    sums: torch.Tensor
    count: torch.Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = {name: i for i, name in enumerate(names)}
        self.register_buffer("multiples", torch.ones(len(names), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def of(self, name: str) -> float:
        """The multiple in force of a tensor."""
        return float(self.multiples[self.names[name]]) if name in self.names else 1.0

    @torch.no_grad()
    def look(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add one step's gradients, in the order of the names; a step with one that is not finite is left out."""
        ratios = torch.stack([_ratio(parameter) for parameter in parameters]).to(self.sums)
        if not bool(torch.isnan(ratios).any()):
            self.sums += ratios
            self.count += 1

    @torch.no_grad()
    def settle(self, *, forget: bool) -> None:
        """Turn what was seen into multiples; with `forget`, begin anew."""
        if int(self.count):
            means = self.sums / self.count
            finite = torch.isfinite(means)
            most = means[finite].max() if bool(finite.any()) else means.new_zeros(())
            self.multiples.fill_(1.0)
            if float(most) > 0:
                self.multiples.copy_(torch.where(finite, means / most, 1.0))
        if forget:
            self.sums.zero_()
            self.count.zero_()


def _ratio(parameter: nn.Parameter) -> torch.Tensor:
    """||g|| / ||w||: 0 without a gradient, infinite for a tensor of zeros with one, NaN where g is not finite."""
    if parameter.grad is None:
        return torch.zeros((), dtype=torch.float64, device=parameter.device)
    gradient, size = parameter.grad.double().norm(), parameter.detach().double().norm()
    if not bool(torch.isfinite(gradient)):
        return torch.full_like(gradient, float("nan"))
    return torch.zeros_like(gradient) if float(gradient) == 0 else gradient / size
