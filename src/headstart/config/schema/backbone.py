"""Which backbone."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.config.schema.option import option, required


@dataclass
class BackboneConfig:
    """The network below the head."""

    name: str = required(
        "Model name, with or without a weights tag (resnet50, resnet50.tv_in1k); `headstart list backbones`."
    )
    library: str = option("timm", "Where the architecture comes from.", choices=("timm", "torchvision"))


OPTIONS = {"schema": BackboneConfig}
