"""What holds the model near its start: penalties on top of the loss, any number of them."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option


@dataclass
class RegularizerConfig:
    """A penalty that is added to the loss."""


@dataclass
class L2SpConfig(RegularizerConfig):
    """The backbone is drawn to its start, the head to zero (L2-SP, Li et al. 2018); replaces weight decay."""

    alpha: float = option(0.01, "Strength on the backbone: alpha/2 ||w - w0||^2.", least=0)
    beta: float = option(0.01, "Strength on the head: beta/2 ||w||^2.", least=0)


@dataclass
class DeltaConfig(RegularizerConfig):
    """Feature maps stay near those of the start, the head near zero (DELTA, Li et al. 2019); replaces decay."""

    strength: float = option(0.01, "Strength on the feature maps, mean over the images of a batch.", least=0)
    beta: float = option(0.01, "Strength on the head: beta/2 ||w||^2.", least=0)
    attention: bool = option(
        False,
        "Weight each channel by how much the loss rises without it; a head is trained for that first, on frozen "
        "features.",
    )
    attention_epochs: int = option(10, "Epochs of that head's training.", least=1)
    attention_batches: int = option(10, "Batches of 32 images on which the rise of the loss is measured.", least=1)
    taps: list[str] | None = option(
        None,
        "Names of the modules whose outputs are compared.",
        auto="the ends of the backbone's stages, last four",
    )


@dataclass
class BssConfig(RegularizerConfig):
    """The smallest singular values of a batch of features are kept small (BSS, Chen et al. 2019)."""

    strength: float = option(
        0.001,
        "Strength on the squares of the smallest singular values.",
        least=0,
    )
    k: int = option(1, "How many of the smallest singular values.", least=1)


@dataclass
class CoTuningConfig(RegularizerConfig):
    """The source's classifier goes on learning, from how its classes relate to the target's (You et al. 2020)."""

    strength: float = option(2.3, "Strength of the source classifier's cross-entropy.", least=0)


OPTIONS = {"l2_sp": L2SpConfig, "delta": DeltaConfig, "bss": BssConfig, "co_tuning": CoTuningConfig}
