"""In which order examples come: drawn from (seed, epoch), or their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from headstart.seeds import derive


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, position) of every example, in an order drawn from (seed, epoch), or in their own order.

    With `weights` as many examples are drawn with replacement, each as likely as its weight.

    Where several processes train together, each has its share of every batch, all of the same size: the last
    batch leaves out what cannot be divided.

    The epoch is asked for, not told: Lightning tells samplers the wrong one after a resume (its count of
    processed epochs runs ahead by one), and asks for the first batches before it tells.
    """

    def __init__(
        self,
        length: int,
        *,
        seed: int,
        epoch: Callable[[], int] | None,
        batch_size: int = 1,
        rank: int = 0,
        world: int = 1,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.length = length
        self.seed = seed
        self.epoch = epoch
        self.batch_size = batch_size
        self.rank = rank
        self.world = world
        self.weights = weights

    def __len__(self) -> int:
        if self.world == 1:
            return self.length
        whole, rest = divmod(self.length, self.batch_size)
        return whole * (self.batch_size // self.world) + rest // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.epoch is None:
            return iter([(0, position) for position in range(self.length)])
        epoch = self.epoch()
        order: list[int] = self.order(epoch).tolist()
        if self.world > 1:
            order = [
                position
                for start in range(0, self.length, self.batch_size)
                for position in self._share(order, start)
            ]
        return iter([(epoch, position) for position in order])

    def order(self, epoch: int) -> torch.Tensor:
        """Positions in the order of an epoch, of all processes together: (length,)."""
        generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
        if self.weights is None:
            return torch.randperm(self.length, generator=generator)
        likely = torch.from_numpy(self.weights)
        return torch.multinomial(likely, self.length, replacement=True, generator=generator)

    def _share(self, order: list[int], start: int) -> list[int]:
        """This process's share of the batch that begins at `start`."""
        batch = order[start : start + self.batch_size]
        size = len(batch) // self.world
        return batch[self.rank * size : (self.rank + 1) * size]
