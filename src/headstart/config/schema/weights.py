"""Where the backbone's weights come from."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required

STAGE = "stage:"
"""What `weights.path` begins with where it names another job of the same experiment file."""


@dataclass
class WeightsConfig:
    """Where the backbone's weights come from."""

    source: str = required("Kind of source; choose it with `weights=`.")


@dataclass
class LoadedConfig(WeightsConfig):
    """Options of every source that has a file."""

    first_k: int | None = option(
        None,
        "Only the first k layer groups, counted from the input, come from there; the rest starts at random.",
        least=1,
        auto="the whole backbone",
    )


@dataclass
class PretrainedConfig(LoadedConfig):
    """Published weights of this backbone."""

    source: str = "pretrained"
    origin: str = option(
        "auto",
        "`package`: an installed Python package that carries them; `hub`: timm's own tag, from its cache or "
        "hub; `torchvision`: torchvision's; `auto`: a package if there is one and no tag was named, else the "
        "library's own.",
        choices=("auto", "package", "hub", "torchvision"),
    )


@dataclass
class ScratchConfig(WeightsConfig):
    """None: a random start, drawn from the seed."""

    source: str = "scratch"


@dataclass
class FileConfig(LoadedConfig):
    """A local file of weights of the same architecture, whatever its number of classes."""

    source: str = "file"
    path: str = required("A .safetensors, .pth, .pt or .bin file; loaded without running code.")


@dataclass
class RunConfig(LoadedConfig):
    """The backbone of an earlier run."""

    source: str = "run"
    path: str = required("That run's folder; in an experiment file `stage:NAME`, the job of that name.")


OPTIONS = {
    "pretrained": PretrainedConfig,
    "scratch": ScratchConfig,
    "file": FileConfig,
    "run": RunConfig,
}
