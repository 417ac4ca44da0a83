"""A head without weights: the training images that are most like an image say what it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

FLOOR = 1e-12
"""The share that a class without a vote keeps: its score is finite, and nobody sees it."""
_NUMBERS_AT_ONCE = 2**24
"""Numbers that a block of images may need: 64 MiB."""


class NeighborHead(nn.Module):
    """Features (n, width) -> scores (n, outputs), by a vote of the nearest in a bank of training features.

    A neighbour counts exp(cosine similarity / temperature) (Wu et al. 2018, section 3.4; so does DINO, Caron et al.
    2021); the scores are such that their softmax, or sigmoid, is the share of the votes. Numbers are the weighted
    mean of the neighbours' own. The bank and what belongs to it are buffers, and take the shape of what is loaded.
    """

    bank: torch.Tensor
    """(examples, width), of length 1 each."""
    targets: torch.Tensor
    """(examples,) of class indices, (examples, labels) of 0 and 1, or (examples, numbers)."""
    ranks: torch.Tensor
    """(neighbours,): as many as there are."""
    temperature: torch.Tensor

    def __init__(self, width: int, outputs: int, *, numbers: bool) -> None:
        super().__init__()
        self.outputs, self.numbers = outputs, numbers
        self.register_buffer("bank", torch.zeros(1, width))
        self.register_buffer("targets", torch.zeros(1, outputs) if numbers else torch.zeros(1, dtype=torch.long))
        self.register_buffer("ranks", torch.arange(1))
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores before softmax or sigmoid; numbers in the data's own units. Images come in blocks that fit."""
        if torch.compiler.is_compiling():  # an exported model takes what it is given at once
            return self._votes(features)
        each = max(len(self.bank), len(self.ranks) * self.outputs)
        return torch.cat([self._votes(part) for part in features.split(max(1, _NUMBERS_AT_ONCE // each))])

    def _votes(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):  # similarities of bfloat16 tie
            likeness = F.normalize(features.float(), dim=1) @ self.bank.T
        nearest, places = likeness.topk(len(self.ranks), dim=1)
        share = (nearest / self.temperature).softmax(dim=1)
        chosen = self.targets[places]
        if self.targets.ndim == 1:
            chosen = F.one_hot(chosen, max(2, self.outputs)).to(share.dtype)
        voted = (share[:, :, None] * chosen).sum(dim=1)
        if self.numbers:
            return voted
        if self.targets.ndim == 1 and self.outputs > 1:
            return voted.clamp(min=FLOOR).log()
        there = voted if self.targets.ndim == 2 else voted[:, 1:]
        return there.clamp(min=FLOOR).log() - (1 - there).clamp(min=FLOOR).log()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers():
            if isinstance(saved := state_dict.get(prefix + name), torch.Tensor):
                setattr(self, name, torch.empty_like(saved, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
