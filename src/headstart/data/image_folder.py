"""A folder of images with a folder per class, inside train/, val/ and test/ or without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.pictures import open_picture
from headstart.data.source import Source
from headstart.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class FileExamples:
    """Image files below one folder; ids are their paths relative to the data's own folder."""

    encoded = True

    def __init__(self, root: Path, paths: list[Path], targets: list[int]) -> None:
        self.root = root
        self.paths = paths
        self.ids = [path.relative_to(root).as_posix() for path in paths]
        self.targets = np.asarray(targets, dtype=np.int64)

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return self.paths[index].read_bytes()

    def image(self, index: int) -> Image.Image:
        """The decoded file."""
        return open_picture(self.paths[index].read_bytes())

    def where(self, index: int) -> str:
        """Its path."""
        return str(self.paths[index])


def image_folder(path: str) -> Source:
    """List the images below `path`.

    Raises DataError where the folder is missing or empty, a class folder has no images, or the splits'
    folders do not have the same classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"data.path={path}: there is no such folder.")
    folders = {
        split: root / name for split, names in SPLIT_FOLDERS.items() for name in names if (root / name).is_dir()
    }
    if "train" not in folders:
        if folders:
            found = ", ".join(sorted(folder.name for folder in folders.values()))
            raise DataError(f"data.path={path}: has {found}/ but no train/ folder.")
        folders = {"train": root}
    classes: dict[str, list[str]] = {split: _subfolders(folder) for split, folder in folders.items()}
    names = classes["train"]
    if not names:
        raise DataError(f"data.path={path}: {folders['train']} has no class folders, one per class, with images.")
    for split, found_names in classes.items():
        if odd := sorted(set(found_names) ^ set(names)):
            where = "has" if odd[0] in found_names else "lacks"
            raise DataError(
                f"data.path={path}: {folders[split]} {where} the class folder {odd[0]!r}, "
                f"unlike {folders['train']}."
            )
    splits = {split: _examples(root, folder, names) for split, folder in folders.items()}
    return Source(tuple(names), "multiclass", dict(splits))


def _subfolders(folder: Path) -> list[str]:
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    if odd := next((name for name in names if not _is_text(name)), None):
        raise DataError(f"data.path: the class folder {odd!r} in {folder} has a name that is no text; rename it.")
    return names


def _examples(root: Path, folder: Path, names: list[str]) -> FileExamples:
    paths, targets = [], []
    for target, name in enumerate(names):
        found = sorted(_images(folder / name))
        if not found:
            raise DataError(f"data.path: the class folder {folder / name} has no images ({' '.join(SUFFIXES)}).")
        paths.extend(found)
        targets.extend([target] * len(found))
    return FileExamples(root, paths, targets)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _images(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(real)
        for name in files:
            full = os.path.join(here, name)  # noqa: PTH118
            if not _is_text(full):
                shown = full.encode("utf-8", "replace").decode()
                raise DataError(f"{shown}: its name is not UTF-8; rename it.")
        yield from (
            Path(here, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        )
