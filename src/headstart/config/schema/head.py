"""What stands on the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
SOLVERS = ("gradient", "lbfgs", "ridge", "knn")
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
    """One linear layer, or the nearest training images."""

    name: str = "linear"
    solver: str = option(
        "gradient",
        "How it is found: `gradient`, in steps, by the optimiser; `lbfgs`, l2-regularised logistic regression for "
        "a path of penalties; `ridge`, least squares in closed form for such a path; `knn`, no layer but a vote of "
        "the most similar training images. All but the first need a wholly frozen backbone, and choose among their "
        "candidates by trainer.monitor.",
        choices=SOLVERS,
    )
    penalties: list[float] | None = option(
        None,
        "Of lbfgs and ridge: strengths to choose from, each times the squared norm of the weights and added to the "
        "sum of the losses of all training images (scikit-learn: C = 1 / (2 x penalty), and ridge's alpha).",
        above=0,
        auto="lbfgs: 45 from 1e-6 to 1e5; ridge: 41 from 1e-4 to 1e6; spaced evenly on a logarithmic scale",
    )
    neighbors: list[int] | None = option(
        None,
        "Of knn: numbers of neighbours to choose from.",
        least=1,
        auto="those of 1, 5, 10, 20, 50, 100 and 200 that the training images allow",
    )
    temperature: float | None = option(
        None,
        "Of knn: a neighbour counts exp(cosine similarity / temperature).",
        above=0,
        auto="0.07",
    )


@dataclass
class MlpHeadConfig(HeadConfig):
    """Hidden layers, then a linear one."""

    name: str = "mlp"
    hidden: list[int] = option([512], "Width of each hidden layer.", least=1)
    activation: str = option("relu", "After each hidden layer.", choices=ACTIVATIONS)


OPTIONS = {"linear": LinearHeadConfig, "mlp": MlpHeadConfig}
