"""Gradient checkpointing: activations that the backward pass computes again in place of keeping them."""

from __future__ import annotations

from types import TracebackType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.errors import ConfigError
from headstart.strategies.plan import TrainingPlan
from headstart.training.normalization import leave_statistics


def enable_checkpointing(backbone: nn.Module, plan: TrainingPlan, *, name: str) -> None:
    """Have a backbone keep the activations between its blocks alone (Chen et al. 2016), the way timm does.

    Raises ConfigError where it cannot, or where what is computed again would not be the same.
    """
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError, NotImplementedError, TypeError):
        raise ConfigError(f"trainer.grad_checkpointing=true: {name} has no gradient checkpointing.") from None
    if not any(getattr(module, "grad_checkpointing", False) for module in backbone.modules()):
        raise ConfigError(f"trainer.grad_checkpointing=true: {name} has no gradient checkpointing.")
    if any(phase.normalization == "stochnorm" for phase in plan.phases):
        raise ConfigError(
            "trainer.grad_checkpointing=true: stochnorm normalises with statistics that have moved when they are "
            "computed again; use another strategy.normalization."
        )


class Recomputing:
    """While a backward pass goes on, batch normalisations that are run again leave their running statistics."""

    def __init__(self, backbone: nn.Module) -> None:
        self.on = False
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                leave_statistics(module, when=lambda: self.on)

    def __enter__(self) -> None:
        self.on = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on = False
