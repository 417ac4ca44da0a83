"""How parameters are updated."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required

_FREEZE = "to freeze a part use strategy=linear_probe, last_k, groups or phases"


@dataclass
class OptimizerConfig:
    """Options that every optimiser has."""

    name: str = required("Kind of optimiser; choose it with `optimizer=`.")
    lr: float = option(1e-3, "Base learning rate, before the schedule.", above=0, hint=_FREEZE)
    weight_decay: float = option(
        0.0, "Applied to matrices and kernels; biases and normalisation parameters have none.", least=0
    )
    fused: bool | None = option(
        None,
        "Update all tensors of a group in one kernel (PyTorch's fused optimisers): two to three times as fast; "
        "other last bits.",
        auto="true; false under trainer.precision=16-mixed with gradient clipping or strategy=auto_rgn",
    )


@dataclass
class AdamConfig(OptimizerConfig):
    """torch.optim.Adam: decay is added to the gradient."""

    name: str = "adam"
    betas: list[float] = option([0.9, 0.999], "Decay of the two running means.", least=0, below=1)
    eps: float = option(1e-8, "Added to the denominator.", above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """torch.optim.AdamW: decay is decoupled from the gradient."""

    name: str = "adamw"
    weight_decay: float = option(
        0.01, "Applied to matrices and kernels; biases and normalisation parameters have none.", least=0
    )


@dataclass
class SGDConfig(OptimizerConfig):
    """torch.optim.SGD."""

    name: str = "sgd"
    lr: float = option(1e-2, "Base learning rate, before the schedule.", above=0, hint=_FREEZE)
    momentum: float = option(0.9, "Share of the last update kept.", least=0, below=1)
    nesterov: bool = option(True, "Look ahead by the momentum.")


OPTIONS = {"adamw": AdamWConfig, "adam": AdamConfig, "sgd": SGDConfig}
