"""Batch spectral shrinkage: the smallest singular values of a batch of features are kept small."""

from __future__ import annotations

import torch

from headstart.config.schema.regularizer import BssConfig
from headstart.errors import ConfigError
from headstart.strategies.penalties.base import Parts, Penalty, Step


class Bss(Penalty):
    """strength * sum of the k smallest sigma_i(F)^2, for the features F (n, d) of a batch (Chen et al. 2019).

    Where there are fewer images than features, as is usual, the smallest singular values hardly depend on how
    many there are; divided by n they would.
    """

    needs_images = False

    def __init__(self, config: BssConfig, parts: Parts) -> None:
        super().__init__()
        self.strength, self.k = config.strength, config.k
        if config.k > parts.batch_size:
            raise ConfigError(
                f"regularizer.bss.k={config.k}: a batch of {parts.batch_size} images has fewer singular values."
            )

    def forward(self, step: Step) -> torch.Tensor:
        """The penalty, a scalar."""
        features = step.features if step.features.dtype == torch.float64 else step.features.float()
        with torch.autocast(features.device.type, enabled=False):
            smallest = torch.linalg.svdvals(features)[-self.k :]
        return self.strength * smallest.square().sum()
