"""A batch in pieces: what goes through the model at once, and what each piece counts for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

Weigh = Callable[[torch.Tensor], torch.Tensor]
"""Targets (n, ...) -> what a mean of the loss over them divides by, a scalar."""


def pieces(count: int, *, most: int | None) -> list[slice]:
    """The rows of a batch of `count` in as few pieces of `most` rows as will do, their sizes as equal as can be."""
    number = 1 if most is None else max(1, -(-count // most))
    small, larger = divmod(count, number)
    ends = [small * i + min(i, larger) for i in range(number + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def sizes_of(count: int, *, most: int | None) -> frozenset[int]:
    """How many rows the pieces of a batch have."""
    return frozenset(rows.stop - rows.start for rows in pieces(count, most=most))


class Shares:
    """What each piece's mean loss counts for in that of the whole batch, so that gradients are the whole batch's.

    A piece counts by its images; the loss by the weights of its targets, where these are weighed. Where
    `world` processes train together, the batch is that of all of them, whose gradients are averaged.
    """

    def __init__(self, targets: torch.Tensor, *, weigh: Weigh | None, world: int) -> None:
        self.targets, self.weigh = targets, weigh
        self.total: torch.Tensor | None = None
        if weigh is not None:
            self.total = weigh(targets)
            if world > 1:  # each has as many images as the others, but not of the same classes
                self.total = self.total.clone()
                torch.distributed.all_reduce(self.total)
                self.total /= world

    def of_images(self, rows: slice) -> float:
        """For what is a mean over images."""
        return (rows.stop - rows.start) / len(self.targets)

    def of_loss(self, rows: slice) -> float | torch.Tensor:
        """For the loss."""
        if self.weigh is None or self.total is None:
            return self.of_images(rows)
        return self.weigh(self.targets[rows]) / self.total
