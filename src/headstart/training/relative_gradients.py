"""Auto-RGN: the rate of each tensor follows its relative gradient norm (Lee et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class RelativeGradientNorms(nn.Module):
    """Multiples of the learning rate per tensor, learned along the way and part of the checkpoint.

    Over an epoch, RGN_i = mean over its steps of ||g_i|| / ||w_i||, before the step moves w_i; the multiples
    of the next epoch are RGN_i / max_j RGN_j, in [0, 1]. Those of the first epoch come from the
    first step that counts: under float16 the scale of the loss may make one overflow. A
    tensor of zeros that has a gradient has no finite RGN: its multiple is 1, and it is not in the maximum.
    """

    multiples: torch.Tensor
    sums: torch.Tensor
    count: torch.Tensor
    settled: torch.Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = {name: i for i, name in enumerate(names)}
        self.register_buffer("multiples", torch.ones(len(names), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(len(names), dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool))
        self._in_force: list[float] | None = None

    def of(self, name: str) -> float:
        """The multiple in force of a tensor; the device is asked once for all of them."""
        if self._in_force is None:
            self._in_force = self.multiples.tolist()
        return float(self._in_force[self.names[name]]) if name in self.names else 1.0

    def _load_from_state_dict(self, *arguments: Any, **more: Any) -> None:
        super()._load_from_state_dict(*arguments, **more)
        self._in_force = None  # what is in force comes from the checkpoint now

    @torch.no_grad()
    def look(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add one step's gradients, in the order of the names; a step with one that is not finite is left out.

        Nothing here waits for the device.
        """
        ratios = torch.stack([_ratio(parameter) for parameter in parameters]).to(self.sums)
        counts = ~torch.isnan(ratios).any()
        self.sums += torch.where(counts, ratios, 0.0)
        self.count += counts

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
            self.settled.fill_(True)
            self._in_force = None
        if forget:
            self.sums.zero_()
            self.count.zero_()


def _ratio(parameter: nn.Parameter) -> torch.Tensor:
    """||g|| / ||w||: 0 without a gradient, infinite for a tensor of zeros with one, NaN where g is not finite."""
    if parameter.grad is None:
        return torch.zeros((), dtype=torch.float64, device=parameter.device)
    gradient, size = parameter.grad.double().norm(), parameter.detach().double().norm()
    ratio = torch.where(gradient == 0, 0.0, gradient / size)
    return torch.where(torch.isfinite(gradient), ratio, torch.nan)
