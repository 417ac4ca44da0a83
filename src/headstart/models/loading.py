"""Reading weight files without running code, and proof of what was loaded."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from headstart.errors import WeightsError

State = Mapping[str, torch.Tensor]

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
"""Keys under which training scripts keep the weights; averaged ones first, as timm prefers them."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "encoder.")


_MOST_GROWTH = 4


@dataclass(frozen=True)
class LoadReport:
    """How many of the backbone's tensors a file held, and the names of those on one side only."""

    matched: int
    total: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a .safetensors or PyTorch file; nothing in it is run.

    Raises WeightsError where it is missing, damaged, or holds anything but plain tensors.
    """
    if not path.is_file():
        raise WeightsError(f"weights: {path}: there is no such file.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols of files that are no weights
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights: {path}: is not a file of plain tensors (pickled objects are refused; save the state_dict)."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in every way that Python has
        raise WeightsError(f"weights: {path}: cannot be read ({_first_line(error)}).") from error
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping):
        raise WeightsError(f"weights: {path}: holds no state_dict.")
    state = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError(f"weights: {path}: holds no tensors.")
    return state


def _refuse_bomb(path: Path) -> None:
    """PyTorch packs nothing: a file that would grow was made to fill somebody's memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > _MOST_GROWTH * path.stat().st_size + 2**20:
            raise WeightsError(f"weights: {path}: would grow to {size:,} bytes; refused.")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]


def without_prefix(state: State, names: set[str]) -> dict[str, torch.Tensor]:
    """Take off the prefix under which most of `names` are found (`module.`, `backbone.`, ...), if any."""
    best, stripped = sum(name in names for name in state), dict(state)
    todo, seen = [""], {""}
    while todo:
        prefix = todo.pop()
        for more in _PREFIXES:
            longer = prefix + more
            if longer in seen or not any(key.startswith(longer) for key in state):
                continue
            seen.add(longer)
            todo.append(longer)
            candidate = {key[len(longer) :]: value for key, value in state.items() if key.startswith(longer)}
            found = sum(name in names for name in candidate)
            if found > best:
                best, stripped = found, candidate
    return stripped


def sha256_of(path: Path) -> str:
    """SHA-256 hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_complete(report: LoadReport, *, what: str, backbone: str) -> None:
    """Raise WeightsError where tensors of the backbone were not in the file: nothing falls back to random."""
    if report.missing:
        raise WeightsError(
            f"{what}: is not of {backbone}: {report.matched} of its {report.total} tensors matched "
            f"(the first one missing: {report.missing[0]})."
        )
