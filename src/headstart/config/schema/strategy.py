"""How to transfer: which part trains, when and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option, required

NORMALIZATIONS = ("train", "eval", "batch_stats", "stochnorm")
UNITS = ("epoch", "step")
STANDING = ("adapter", "visual_prompts")
"""Strategies whose additions stay beside the backbone: what is saved is no plain backbone any more."""
_FREEZE = "to freeze it use linear_probe, last_k, groups or phases"


@dataclass
class StrategyConfig:
    """Which part of the model trains, when and how fast."""

    name: str = required("Kind of strategy; choose it with `strategy=`.")
    backbone_lr_mult: float = option(
        1.0, "Multiple of the learning rate for the whole backbone; the head has 1.", above=0, hint=_FREEZE
    )
    layer_decay: float | None = option(
        None,
        "Layer-wise decay: each layer group has this share of the rate of the one above it (BEiT; timm's 0.75).",
        above=0,
        most=1,
        auto="no decay",
        hint=_FREEZE,
    )
    layer_decay_min: float = option(0.0, "The least multiple that layer_decay gives.", least=0, most=1)
    discriminative: float | None = option(
        None,
        "Discriminative rates: each layer group has the rate of the one above it divided by this (ULMFiT: 2.6).",
        least=1,
        auto="one rate",
    )
    lr_span: float | None = option(
        None,
        "The lowest layer group has the head's rate divided by this, the others lie evenly between in the "
        "logarithm (fastai's slice: 100).",
        least=1,
        auto="one rate",
    )
    normalization: Any = option(
        "train",
        "How the normalisations of the groups that train behave: `train`; `eval`: running statistics, unchanged; "
        "`batch_stats`: the batch's, the running ones left alone; `stochnorm`: the batch's for channels drawn at "
        "random (Kou et al. 2020). One, or a list with one per phase. Frozen groups are always in eval mode.",
        choices=NORMALIZATIONS,
    )
    batch_norm_momentum: Any = option(
        None,
        "Share by which a batch moves the running statistics of batch normalisations: a number, or `by_epoch` for "
        "min(0.1, 10 / steps per epoch) (Chen et al. 2020, B.8).",
        above=0,
        most=1,
        auto="the backbone's own",
    )
    stochnorm_p: float = option(
        0.5, "How often `stochnorm` takes a channel's statistics from the batch.", least=0, most=1
    )


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


@dataclass
class FirstKConfig(StrategyConfig):
    """The first k layer groups of the backbone train, and the head; what lies between is frozen."""

    name: str = "first_k"
    k: int = option(
        1, "How many layer groups, counted from the input, train (they are not the frozen ones).", least=1
    )


@dataclass
class FreezeFirstKConfig(StrategyConfig):
    """The first k layer groups of the backbone are frozen; everything above them trains."""

    name: str = "freeze_first_k"
    k: int = option(1, "How many layer groups are frozen, counted from the input.", least=1)


@dataclass
class GroupsConfig(StrategyConfig):
    """The layer groups that are named train, and the head: surgical fine-tuning (Lee et al. 2023)."""

    name: str = "groups"
    groups: list[str] = required(
        "Names or globs of layer groups, such as [stem,block.1*]; `headstart plan` shows them."
    )


@dataclass
class GradualConfig(StrategyConfig):
    """Gradual unfreezing from the top: the head, then more layer groups at each milestone (ULMFiT)."""

    name: str = "gradual"
    milestones: list[float] | None = option(
        None, "When more groups begin to train.", above=0, auto="each epoch of the run's first half"
    )
    unit: str = option("epoch", "What milestones count.", choices=UNITS)
    groups_per_step: int | None = option(
        None,
        "Layer groups added at each milestone.",
        least=1,
        auto="as few as have all of them training from the last milestone on",
    )


@dataclass
class LpFtConfig(StrategyConfig):
    """A linear probe, then fine-tuning of everything from the probed head (Kumar et al. 2022)."""

    name: str = "lp_ft"
    probe_share: float = option(0.5, "Share of the budget that the probe has.", above=0, below=1)
    finetune_lr_mult: float = option(1.0, "Multiple of the rates in the second part.", above=0, hint=_FREEZE)


@dataclass
class PhasesConfig(StrategyConfig):
    """The user's own list of phases."""

    name: str = "phases"
    phases: Any = required(
        "A list such as [{start: 0, groups: [head]}, {start: 2, groups: {block.*: 0.1, head: 1}, normalization: "
        "eval}]: when each begins (and, if you like, its `end`), the layer groups that train by name or glob, with "
        "the multiple of the rate where it is not 1, `lr_mult` for all of them, a normalisation of its own."
    )
    unit: str = option("epoch", "What `start` and `end` count.", choices=UNITS)


@dataclass
class NormOnlyConfig(StrategyConfig):
    """Scales and shifts of the normalisations train, and the head."""

    name: str = "norm_only"


@dataclass
class BitFitConfig(StrategyConfig):
    """The biases train, and the head (Ben Zaken et al. 2022)."""

    name: str = "bitfit"


@dataclass
class AutoRgnConfig(StrategyConfig):
    """Everything trains, each tensor at a rate that follows its relative gradient norm (Lee et al. 2023)."""

    name: str = "auto_rgn"


@dataclass
class LoraConfig(StrategyConfig):
    """Low-rank updates of the backbone's matrices train, and the head (Hu et al. 2022); they fold into it."""

    name: str = "lora"
    rank: int = option(8, "Rank of the updates.", least=1)
    alpha: float = option(16.0, "The updates are scaled by alpha / rank.", above=0)
    dropout: float = option(0.0, "Dropout before the first factor.", least=0, below=1)
    targets: list[str] | None = option(
        None,
        "Names or globs of modules in the backbone, such as ['*.attn.qkv'].",
        auto="the linear layers of attention; without attention all linear and ungrouped convolutional ones",
    )


@dataclass
class SsfConfig(StrategyConfig):
    """A scale and a shift per channel train, and the head (SSF, Lian et al. 2022); they fold into the weights."""

    name: str = "ssf"
    init_std: float = option(0.02, "Spread of the initial scales around 1 and of the shifts around 0.", least=0)


@dataclass
class AdapterConfig(StrategyConfig):
    """Bottleneck adapters behind attention and MLP layers train, and the head (Houlsby et al. 2019)."""

    name: str = "adapter"
    width: int = option(64, "Width of the bottleneck.", least=1)
    places: list[str] = option(
        ["attn", "mlp"], "Behind which layers of a block they stand.", choices=("attn", "mlp")
    )


@dataclass
class VisualPromptsConfig(StrategyConfig):
    """Prompt tokens train, and the head (VPT, Jia et al. 2022); for vision transformers."""

    name: str = "visual_prompts"
    tokens: int = option(10, "Prompt tokens per layer.", least=1)
    deep: bool = option(True, "New prompts before each block (VPT-deep); else before the first one (VPT-shallow).")


OPTIONS = {
    "full": FullConfig,
    "linear_probe": LinearProbeConfig,
    "last_k": LastKConfig,
    "first_k": FirstKConfig,
    "freeze_first_k": FreezeFirstKConfig,
    "groups": GroupsConfig,
    "gradual": GradualConfig,
    "lp_ft": LpFtConfig,
    "phases": PhasesConfig,
    "norm_only": NormOnlyConfig,
    "bitfit": BitFitConfig,
    "auto_rgn": AutoRgnConfig,
    "lora": LoraConfig,
    "ssf": SsfConfig,
    "adapter": AdapterConfig,
    "visual_prompts": VisualPromptsConfig,
}
