"""Bytes that a computation holds, operation by operation, as PyTorch makes and drops them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside a `with`, notes after each operation how many bytes there are beyond what was there before.

    Counts each storage once, from the operation that made it until nothing refers to it. What an operation uses
    inside itself (a convolution's workspace) is not seen.
    """

    def __init__(self, before: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.timeline: list[int] = []
        self._known = {_key(tensor) for tensor in before}
        self._live = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and look at what it gave."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        self.timeline.append(self._live)
        return out

    def _see(self, tensor: torch.Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self._live += size
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _key(tensor: torch.Tensor) -> int:
    """What tells a storage from another while it lives."""
    return int(tensor.untyped_storage()._cdata)


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of all storages behind some tensors, each counted once."""
    storages = {_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
