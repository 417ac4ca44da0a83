"""Any classification set of torchvision.datasets.

Sets that hold pickles (CIFAR) unpickle them only after all their files have the MD5 that torchvision knows.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.config.paths import expanded
from headstart.data.pictures import open_picture
from headstart.data.source import Examples, Source
from headstart.errors import DataError, did_you_mean

_SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid"), "test": ("test",)}
_TARGETS = ("targets", "_labels", "labels", "y")
_FILES = ("_image_files", "_images", "samples")
_NOT_A_SET = {"VisionDataset", "ImageFolder", "DatasetFolder", "FakeData", "LSUN", "LSUNClass"}
"""Bases and fakes; LSUN unpickles what it finds beside the images."""


class FilesOfASet:
    """One split of a torchvision set of image files; ids are `<split>/<path below the set's folder>`.

    Not their numbers: SUN397 lists its files in whatever order the file system has.
    """

    encoded = True

    def __init__(self, dataset: Any, files: Sequence[str], split: str, name: str, root: str) -> None:
        self.root = root
        self.files = files
        self.ids = [f"{split}/{Path(os.path.relpath(file, root)).as_posix()}" for file in files]
        self.targets = _targets(dataset, name)

    def file(self, index: int) -> str:
        """Path of this image."""
        return self.files[index]

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return Path(self.files[index]).read_bytes()

    def image(self, index: int) -> Image.Image:
        """The decoded file."""
        return open_picture(self.content(index))

    def where(self, index: int) -> str:
        """Its path."""
        return self.files[index]


class SetExamples:
    """One split of a torchvision set of arrays; ids are `<split>/<index>`."""

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
        image.load()  # some sets only open a file
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
    if not download and not expanded(path).is_dir():
        raise DataError(
            f"data.name={name}: is not in data.path={path}, which is no folder; data.download=true fetches it, "
            "where torchvision can."
        )
    cls = getattr(datasets, name)
    parameters = inspect.signature(cls.__init__).parameters
    splits: dict[str, Examples] = {}
    names: tuple[str, ...] = ()
    for split, arguments in _arguments(cls, parameters).items():
        dataset = _open(
            cls, arguments, name=name, path=path, download=download, parameters=parameters, options=options
        )
        if dataset is not None:
            files = _files(dataset)
            root = str(expanded(path))
            splits[split] = (
                FilesOfASet(dataset, files, split, name, root) if files else SetExamples(dataset, split, name)
            )
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
    root = expanded(path)
    before = set(root.iterdir()) if root.is_dir() else set()
    for way in ways:
        try:
            return cls(root, **way, **extra)
        except ValueError as error:
            if "Unknown value" in str(error):  # torchvision's way to say that it has no such split
                continue
            raise DataError(f"data.name={name}: cannot be opened ({str(error).splitlines()[0][:200]}).") from error
        except (RuntimeError, OSError) as error:
            if not download:
                _remove_empty(set(root.iterdir()) - before)
            how = "" if download else "; data.download=true fetches it, where torchvision can"
            reason = str(error).strip().splitlines()[0]
            if "pip install" in reason:
                raise DataError(f"data.name={name}: cannot be opened ({reason}).") from error
            raise DataError(f"data.name={name}: is not in data.path={path}{how} ({reason}).") from error
        except (TypeError, ModuleNotFoundError) as error:
            raise DataError(
                f"data.name={name}: cannot be opened as a set of one class per image ({error})."
            ) from error
    return None


def _remove_empty(folders: set[Path]) -> None:
    """Remove folders that a set makes for itself (Caltech101) although there is nothing to put into them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _files(dataset: Any) -> list[str]:
    """Paths of a set's images; none where it is not known to be one of files."""
    from torchvision import datasets

    if isinstance(dataset, datasets.Caltech101):  # it has classes and numbers, and makes paths of them
        folder = Path(dataset.root).absolute() / "101_ObjectCategories"
        pairs = zip(dataset.y, dataset.index, strict=True)
        return [str(folder / dataset.categories[target] / f"image_{i:04d}.jpg") for target, i in pairs]
    for attribute in _FILES:
        found = getattr(dataset, attribute, None)
        if isinstance(found, list) and found and len(found) == len(dataset):
            paths = [one[0] if isinstance(one, tuple) else one for one in found]
            if all(isinstance(one, str | Path) for one in paths):
                return [os.path.abspath(one) for one in paths]  # noqa: PTH100 - a Path for each costs seconds
    return []


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
