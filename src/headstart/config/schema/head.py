"""What stands on the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
POOLS = ("auto", "avg", "max", "avgmax", "catavgmax", "token")


@dataclass
class HeadConfig:
    """What turns a backbone's features into class scores."""

    name: str = required("Kind of head; choose it with `head=`.")
    pool: str = option(
        "auto",
        "How the feature map becomes one vector; `auto` is what the backbone was trained with.",
        choices=POOLS,
    )
    init: str = option(
        "default", "How its last layer starts: PyTorch's default, or `zero`.", choices=("default", "zero")
    )
    dropout: float = option(0.0, "Share of features dropped before each linear layer.", least=0, below=1)


@dataclass
class LinearHeadConfig(HeadConfig):
    """One linear layer."""

    name: str = "linear"


@dataclass
class MlpHeadConfig(HeadConfig):
    """Hidden layers, then a linear one."""

    name: str = "mlp"
    hidden: list[int] = option([512], "Width of each hidden layer.", least=1)
    activation: str = option("relu", "After each hidden layer.", choices=ACTIVATIONS)


OPTIONS = {"linear": LinearHeadConfig, "mlp": MlpHeadConfig}
