"""Visual prompts: trainable tokens among those of a frozen vision transformer (VPT, Jia et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from headstart.config.schema.strategy import VisualPromptsConfig
from headstart.errors import ConfigError

NAME = "headstart_prompts"


def attach(backbone: nn.Module, config: VisualPromptsConfig) -> None:
    """Tokens behind the class token, before the first block (shallow) or anew before each (deep).

    They leave behind the last block, so that pooling and normalisation see the backbone's own tokens only.
    Raises ConfigError for anything but timm's plain vision transformers.
    """
    if not isinstance(backbone, VisionTransformer) or not len(backbone.blocks):
        raise ConfigError(
            f"strategy=visual_prompts: is for vision transformers (vit_*, deit_*), not {type(backbone).__name__}."
        )
    before = backbone.num_prefix_tokens
    blocks = list(backbone.blocks)
    size = backbone.patch_embed.patch_size
    bound = math.sqrt(6 / (3 * size[0] * size[1] + backbone.embed_dim))
    for i, block in enumerate(blocks if config.deep else blocks[:1]):
        prompts = nn.Parameter(torch.empty(config.tokens, backbone.embed_dim).uniform_(-bound, bound))
        block.register_parameter(NAME, prompts)
        block.register_forward_pre_hook(_put_in(before, 0 if i == 0 else config.tokens))
    blocks[-1].register_forward_hook(_take_out(before, config.tokens))


def _put_in(before: int, replaced: int) -> Callable[[nn.Module, Any], Any]:
    """Put a block's prompts behind the first `before` tokens, in the place of `replaced` that are there."""

    def hook(block: nn.Module, inputs: Any) -> Any:
        tokens, *rest = inputs
        prompts = getattr(block, NAME).to(tokens.dtype).expand(len(tokens), -1, -1)
        return (torch.cat([tokens[:, :before], prompts, tokens[:, before + replaced :]], dim=1), *rest)

    return hook


def _take_out(before: int, count: int) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """Take the prompts away again."""

    def hook(block: nn.Module, inputs: Any, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([tokens[:, :before], tokens[:, before + count :]], dim=1)

    return hook
