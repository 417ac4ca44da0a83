"""Any classification set of torchvision.datasets."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.source import Examples, Source
from headstart.errors import DataError, did_you_mean

_SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}
_TARGETS = ("targets", "_labels", "labels", "y")
_NOT_A_SET = {"VisionDataset", "ImageFolder", "DatasetFolder", "FakeData", "LSUN", "LSUNClass"}
"""Bases and fakes; LSUN unpickles what it finds beside the images."""


class SetExamples:
    """One split of a torchvision set; ids are `<split>/<index>`."""

    encoded = False

    def __init__(self, dataset: Any, split: str, name: str) -> None:
        self.dataset = dataset
        self.split = split
        self.name = name
        self.ids = [f"{split}/{i:06d}" for i in range(len(dataset))]
        self.targets = _targets(dataset, name)

    def content(self, index: int) -> bytes:
        """Mode, size and pixels."""
        image = self.image(index)
        return f"{image.mode}{image.size}".encode() + image.tobytes()

    def image(self, index: int) -> Image.Image:
        """The image as the set gives it."""
        image: Image.Image = self.dataset[index][0]
        return image

    def where(self, index: int) -> str:
        """Split and index."""
        return f"{self.name}, {self.split}, {index}"


def available() -> list[str]:
    """Names of the sets that torchvision has, whatever they are for."""
    from torchvision import datasets

    return sorted(
        name for name in datasets.__all__ if isinstance(getattr(datasets, name), type) and name not in _NOT_A_SET
    )


def torchvision_set(name: str, *, path: str, download: bool, options: Mapping[str, Any]) -> Source:
    """Open a set.

    Raises DataError where torchvision has none of that name, its files are not there, or it is not for
    classification.
    """
    from torchvision import datasets

    if name not in available():
        hint = did_you_mean(name, available()) or " `headstart list data` shows them."
        raise DataError(f"data.name={name}: torchvision has no such set.{hint}")
    cls = getattr(datasets, name)
    parameters = inspect.signature(cls.__init__).parameters
    splits: dict[str, Examples] = {}
    names: tuple[str, ...] = ()
    for split, arguments in _arguments(cls, parameters).items():
        dataset = _open(
            cls, arguments, name=name, path=path, download=download, parameters=parameters, options=options
        )
        if dataset is not None:
            splits[split] = SetExamples(dataset, split, name)
            names = names or _class_names(dataset)
    if "train" not in splits:
        raise DataError(f"data.name={name}: has no training split that torchvision names.")
    count = 1 + max(int(examples.targets.max()) for examples in splits.values())
    return Source(names if len(names) >= count else tuple(map(str, range(count))), "multiclass", splits)


def _arguments(cls: type, options: Any) -> dict[str, list[dict[str, Any]]]:
    """Our split -> ways to ask for it, the first that the set knows."""
    from torchvision import datasets

    if "train" in options or issubclass(cls, datasets.MNIST):
        return {"train": [{"train": True}], "test": [{"train": False}]}
    if "split" in options:
        return {ours: [{"split": theirs} for theirs in names] for ours, names in _SPLITS.items()}
    return {"train": [{}]}


def _open(
    cls: type,
    ways: list[dict[str, Any]],
    *,
    name: str,
    path: str,
    download: bool,
    parameters: Any,
    options: Mapping[str, Any],
) -> Any:
    takes = "download" in parameters or "kwargs" in parameters
    extra: dict[str, Any] = {**options, **({"download": download} if takes else {})}
    for way in ways:
        try:
            return cls(Path(path).expanduser(), **way, **extra)
        except ValueError as error:
            if "Unknown value" in str(error):  # torchvision's way to say that it has no such split
                continue
            raise DataError(f"data.name={name}: cannot be opened ({str(error).splitlines()[0][:200]}).") from error
        except (RuntimeError, OSError) as error:
            how = "" if download else "; data.download=true fetches it, where torchvision can"
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"data.name={name}: is not in data.path={path}{how} ({reason}).") from error
        except (TypeError, ModuleNotFoundError) as error:
            raise DataError(
                f"data.name={name}: cannot be opened as a set of one class per image ({error})."
            ) from error
    return None


def _targets(dataset: Any, name: str) -> npt.NDArray[np.int64]:
    for attribute in _TARGETS:
        values = getattr(dataset, attribute, None)
        if values is not None and len(values) == len(dataset):
            break
    else:
        values = [dataset[i][1] for i in range(len(dataset))]
    targets = np.asarray(values)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(f"data.name={name}: is not a set of one class per image.")
    return targets.astype(np.int64)


def _class_names(dataset: Any) -> tuple[str, ...]:
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    return tuple(c if isinstance(c, str) else "/".join(map(str, c)) for c in classes)
