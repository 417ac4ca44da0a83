"""The losses of an epoch's steps: their means, and the first one that is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

LOOK_EVERY = 50
"""Steps between two looks at the losses on a GPU, each of which waits for it."""


class LossWatch:
    """Keeps losses where they are and looks at many of them at once; on a CPU a look costs nothing."""

    def __init__(self) -> None:
        self.first_bad: int | None = None
        """The first step whose loss was not finite, as far as has been looked."""
        self._waiting: list[tuple[int, dict[str, torch.Tensor]]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def begin_epoch(self) -> None:
        """Forget the losses of the epoch before."""
        self.look()
        self._sums, self._count = {}, 0

    def add(self, step: int, parts: Mapping[str, torch.Tensor]) -> None:
        """Keep a step's `loss`, penalties included, and each penalty; scalars."""
        self._waiting.append((step, {name: part.detach() for name, part in parts.items()}))
        if parts["loss"].device.type == "cpu" or len(self._waiting) >= LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Add what was kept to the sums; waits for the device once."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        if waiting[0][1]["loss"].device.type == "cpu":
            values = [float(part) for _, parts in waiting for part in parts.values()]
        else:
            values = torch.stack([part.float() for _, parts in waiting for part in parts.values()]).tolist()
        found = iter(values)
        for step, parts in waiting:
            for name in parts:
                value = next(found)
                self._sums[name] = self._sums.get(name, 0.0) + value
                if name == "loss" and self.first_bad is None and not math.isfinite(value):
                    self.first_bad = step
        self._count += len(waiting)

    def means(self) -> dict[str, float]:
        """Means over the epoch so far: `loss`, penalties included, and each penalty; waits for the device."""
        self.look()
        return {name: value / max(1, self._count) for name, value in self._sums.items()}
