"""The state of a head that lets the nearest training images vote."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from headstart.features.solvers.likelihood import require_finite


def bank_of(
    features: torch.Tensor, targets: torch.Tensor, *, count: int, temperature: float
) -> dict[str, torch.Tensor]:
    """The state of a head that is a `NeighborHead`, for training features (n, width) and their targets."""
    require_finite(features)
    state = {
        "bank": F.normalize(features.float(), dim=1),
        "targets": targets.float() if targets.ndim == 2 else targets.long(),
        "ranks": torch.arange(count, device=features.device),
        "temperature": torch.tensor(temperature, device=features.device),
    }
    return {f"0.{name}": value for name, value in state.items()}
