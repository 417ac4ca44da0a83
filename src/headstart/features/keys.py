"""What names a cache of features: everything that changes a row, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn

from headstart.data.augmentation import Augmentation
from headstart.data.decoded import ShortDigests
from headstart.data.draws import Keys, keys_of, mixed
from headstart.data.forms import Form, form_key
from headstart.data.transforms import Normalize

_VERSION = 1
"""Raised when the same image comes out with other numbers, or when rows are kept in another way."""


def state_digest(module: nn.Module) -> str:
    """SHA-256 hex digest over the names, shapes, types and bits of all parameters and buffers, saved or not.

    How tensors lie in memory counts too: convolutions of other orders have other last bits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted((*module.named_parameters(), *module.named_buffers())):
        lies = "" if tensor.is_contiguous() else str(tuple(tensor.stride()))
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{lies}\0".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def device_facts(device: torch.device) -> dict[str, str]:
    """What of the machine decides the last bits."""
    if device.type == "cuda":
        return {
            "device": torch.cuda.get_device_name(device),
            "matmul": torch.get_float32_matmul_precision(),
            "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        }
    return {
        "device": f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
    }


def backbone_facts(
    backbone: nn.Module,
    *,
    name: str,
    library: str,
    pool: str,
    precision: str,
    device: torch.device,
    batch_size: int,
    dtype: str,
    cut: str | None,
) -> dict[str, str]:
    """All that the rows of any image depend on, by name; `cut` names the place that is kept, None the features."""
    return {
        "version": str(_VERSION),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "backbone": f"{library}:{name}",
        "pool": pool,
        "state": state_digest(backbone),
        "cut": cut or "",
        "precision": precision,
        "batch_size": str(batch_size),
        "dtype": dtype,
        **device_facts(device),
    }


def image_facts(
    form: Form,
    normalize: Normalize,
    *,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    view: int = 0,
) -> dict[str, str]:
    """What is done to images before the backbone sees them; `seed` and `view` count with an augmentation alone."""
    facts = {"form": form_key(form), "normalize": repr(normalize)}
    if augmentation is not None:
        facts |= {"augmentation": repr(augmentation), "seed": str(seed), "view": str(view)}
    return facts


def key_of(facts: Mapping[str, str]) -> str:
    """SHA-256 hex digest over facts, whatever their order."""
    return hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()


def row_keys(digests: ShortDigests, slots: npt.NDArray[np.int64], *, ids: Sequence[str] | None = None) -> Keys:
    """(n,) the key of each image's row: its content, its slot in a batch and, where it is augmented, its id."""
    keys = mixed(digests ^ mixed(slots.astype(np.uint64) + np.uint64(1)))
    return keys if ids is None else mixed(keys ^ keys_of(ids))
