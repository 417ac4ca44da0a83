"""How much each channel of a feature map matters: the rise of the loss without it (DELTA's attention)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from headstart.strategies.penalties.base import Batches

_TEMPERATURE = 5.0
_IMAGES = 32


@torch.no_grad()
def channel_weights(
    backbone: nn.Module,
    batches: Batches,
    *,
    taps: Sequence[str],
    axes: Sequence[int],
    classes: int,
    epochs: int,
    count: int,
    seed: int,
) -> list[torch.Tensor]:
    """softmax(z / 5) per tapped module, z being the standardised rise of the loss without each channel.

    `backbone` is frozen and stays as it is. A linear head is trained on its features of the training split, in
    `epochs` passes; the rise is the mean over `count` batches of 32 images, drawn from the whole split.
    """
    backbone.eval()
    features: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for batch, target in batches():
        features.append(backbone(batch).float())
        targets.append(target)
    labels = torch.cat(targets)
    head = train_head(torch.cat(features), labels, classes=classes, epochs=epochs, seed=seed)
    chosen = draw_images(len(labels), count * _IMAGES, seed=seed).to(labels.device)
    looked_at = pick(batches, chosen).split(_IMAGES)
    wanted = labels[chosen].split(_IMAGES)

    def loss() -> torch.Tensor:
        losses = [F.cross_entropy(head(backbone(x).float()), y) for x, y in zip(looked_at, wanted, strict=True)]
        return torch.stack(losses).double().mean()

    whole = loss()
    modules = dict(backbone.named_modules())
    weights = []
    for tap, axis in zip(taps, axes, strict=True):
        rises = []
        for channel in itertools.count():
            with _without(modules[tap], channel, axis) as channels:
                rises.append(loss() - whole)
            if channel + 1 >= channels[0]:
                break
        weights.append(standardised_softmax(torch.stack(rises)).float())
    return weights


def draw_images(total: int, wanted: int, *, seed: int) -> torch.Tensor:
    """Which of `total` images to look at, in rising order: files often lie class by class."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:wanted].sort().values


def pick(batches: Batches, chosen: torch.Tensor) -> torch.Tensor:
    """The images at these places of the split, from one more pass over it: all of it may not fit in memory."""
    found, first = [], 0
    for batch, _ in batches():
        places = chosen[(chosen >= first) & (chosen < first + len(batch))] - first
        found.append(batch[places])
        first += len(batch)
    return torch.cat(found)


def standardised_softmax(rises: torch.Tensor) -> torch.Tensor:
    """softmax(((r - mean) / std) / 5); all alike where the rises do not differ."""
    spread = rises.std()
    z = (rises - rises.mean()) / spread if float(spread) > 0 else torch.zeros_like(rises)
    return (z / _TEMPERATURE).softmax(dim=0)


def train_head(features: torch.Tensor, targets: torch.Tensor, *, classes: int, epochs: int, seed: int) -> nn.Linear:
    """A linear head on fixed features: SGD with momentum, batches of 32, rate 0.01, drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(features.shape[1], classes).to(features.device)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9, nesterov=True)
        for _ in range(epochs):
            for index in torch.randperm(len(features)).split(_IMAGES):
                with torch.enable_grad():
                    value = F.cross_entropy(head(features[index]), targets[index])
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return head


@contextmanager
def _without(module: nn.Module, channel: int, axis: int) -> Iterator[list[int]]:
    """Zero one channel of a module's output; yields a list that will hold the number of channels."""
    channels: list[int] = []

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        channels.append(output.shape[axis])
        output = output.clone()
        output.select(axis, channel).zero_()
        return output

    handle = module.register_forward_hook(hook, prepend=True)
    try:
        yield channels
    finally:
        handle.remove()
