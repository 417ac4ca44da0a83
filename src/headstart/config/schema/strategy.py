"""How to transfer."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required


@dataclass
class StrategyConfig:
    """Which part of the model trains."""

    name: str = required("Kind of strategy; choose it with `strategy=`.")


@dataclass
class FullConfig(StrategyConfig):
    """Everything trains."""

    name: str = "full"


@dataclass
class LinearProbeConfig(StrategyConfig):
    """The head trains; the whole backbone is frozen."""

    name: str = "linear_probe"


@dataclass
class LastKConfig(StrategyConfig):
    """The last k layer groups of the backbone train, and the head; what lies below is frozen."""

    name: str = "last_k"
    k: int = option(1, "How many layer groups train, counted from the top; `neck` counts as one.", least=1)


OPTIONS = {"full": FullConfig, "linear_probe": LinearProbeConfig, "last_k": LastKConfig}
