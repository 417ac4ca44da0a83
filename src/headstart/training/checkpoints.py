"""The weights that a run keeps: the best by validation, as safetensors, written when they are found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from headstart.config.checks import lower_is_better
from headstart.errors import RecordError
from headstart.models.classifier import Classifier
from headstart.records.atomic import write_with
from headstart.strategies.additions import folded_state
from headstart.training.history import epoch_of
from headstart.training.module import TransferModule

FOLDER = "checkpoints"
BEST = "best.safetensors"
LAST = "last.safetensors"
RESUME = "last.ckpt"


class BestWeights(pl.Callback):
    """Keeps the weights of the first epoch with the best value of a validation metric."""

    def __init__(self, folder: Path, *, monitor: str, steps_per_epoch: int) -> None:
        self.path = folder / FOLDER / BEST
        self.monitor = monitor
        self.steps_per_epoch = steps_per_epoch
        self.best: dict[str, Any] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare this validation with the best so far."""
        if not trainer.sanity_checking:
            self.consider(trainer, pl_module)

    def consider(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the present weights if they are better than all before."""
        assert isinstance(module, TransferModule)
        value = module.values[self.monitor]
        if self.best:
            before = self.best["value"]
            if not (value < before if lower_is_better(self.monitor) else value > before):
                return
        save_weights(self.path, module.model)
        self.best = {
            "epoch": epoch_of(trainer.global_step, self.steps_per_epoch),
            "step": trainer.global_step,
            "monitor": self.monitor,
            "value": value,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.best = dict(state_dict)


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, whole or not at all: its own way copies over the old one across file systems."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write to a file beside `path`, then rename."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_with(target, lambda temporary: torch.save(checkpoint, temporary))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a resume needs, as plain tensors; raises RecordError where the file is damaged."""
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found
    except Exception as error:  # a damaged file fails in every way that Python has
        raise RecordError(f"{path}: is damaged; remove it to begin the run again from its start.") from error


def save_weights(path: Path, model: Classifier) -> None:
    """Write a model's tensors as safetensors, whole or not at all; what can be folded is."""
    path.parent.mkdir(exist_ok=True)
    # clones: safetensors refuses tensors that share memory
    state = {name: value.detach().cpu().contiguous().clone() for name, value in folded_state(model).items()}
    write_with(path, lambda temporary: save_file(state, temporary))


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 hex digest over names, types, shapes and exact values of tensors, whatever their order or device."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(folder: Path) -> dict[str, str]:
    """`state_sha256` of the weights that a run has kept, by `best` and `last`.

    Raises RecordError where a file is no safetensors.
    """
    found = {}
    for name in (BEST, LAST):
        path = folder / FOLDER / name
        if path.is_file():
            try:
                found[path.stem] = state_sha256(load_file(path))
            except (OSError, SafetensorError) as error:
                raise RecordError(f"{path}: is damaged ({type(error).__name__}).") from error
    return found


def load_weights(path: Path, model: torch.nn.Module) -> None:
    """Read what `save_weights` wrote back into the same model, every tensor of it.

    Raises RecordError where the file is damaged, or of another model.
    """
    try:
        model.load_state_dict(load_file(path), strict=True)
    except SafetensorError as error:
        raise RecordError(f"{path}: is damaged ({' '.join(str(error).split())[:100]}).") from error
    except RuntimeError as error:
        raise RecordError(f"{path}: holds the weights of another model than the config's.") from error
