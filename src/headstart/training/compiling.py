"""torch.compile of a backbone: when it is used, when it begins anew, and whether this machine can."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import cast

import torch
from torch import nn

from headstart.errors import ConfigError

Forward = Callable[[torch.Tensor], torch.Tensor]


class Compiled:
    """A backbone's forward pass, compiled for batches of certain sizes; others run as they are.

    Each graph is of one size and one phase, so that which kernels a batch meets does not depend on the batches
    before it. Names, hooks and the module itself stay as they were.
    """

    def __init__(self, backbone: nn.Module, *, mode: str, sizes: Collection[int]) -> None:
        self._plain = cast(Forward, backbone)
        self._sizes = frozenset(sizes)
        self._said = False
        self._graphs = mode != "default"
        self.begin_anew()  # PyTorch keeps 8 graphs per class in a process and runs what comes after uncompiled
        self._forward = cast(Forward, torch.compile(backbone, mode=mode, dynamic=False))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (n, channels, height, width) -> features (n, width)."""
        if len(images) not in self._sizes:
            return self._plain(images)
        if not self._said:
            self._said = True
            print(
                "  compiling the backbone (trainer.compile): this takes a minute or so", file=sys.stderr, flush=True
            )
        if self._graphs:  # a CUDA graph's outputs lie where its next run puts its own: those before are done with
            torch.compiler.cudagraph_mark_step_begin()
        return self._forward(images)

    def begin_anew(self) -> None:
        """Forget what was compiled: another phase has other hooks and other parts that train."""
        torch.compiler.reset()


@lru_cache
def check_compiler(*, gpu: bool) -> None:
    """Raise ConfigError where a compiled function does not run on this machine; takes some seconds, once."""
    device = "cuda" if gpu else "cpu"
    try:
        double = torch.compile(lambda x: 2 * x + 1, dynamic=False)
        found = double(torch.ones(8, device=device)).sum().item()
        torch.compiler.reset()
    except Exception as error:  # whatever is missing says so in its own way
        said = [line.strip() for line in str(error).splitlines()]
        lines = [line for line in said if line and not line.endswith("raised:")] or [type(error).__name__]
        needs = "Triton and a C compiler" if gpu else "a C++ compiler such as g++, and Python's headers"
        raise ConfigError(f"trainer.compile: needs {needs} on this machine ({lines[0][:160]}).") from error
    if found != 24:
        raise ConfigError(f"trainer.compile: what is compiled on this machine computes wrong numbers ({found}).")
