"""A folder of images with a folder per class, inside train/, val/ and test/ or without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from headstart.config.paths import expanded
from headstart.data.files import FileExamples
from headstart.data.source import Source, is_line, is_text
from headstart.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def image_folder(path: str) -> Source:
    """List the images below `path`.

    Raises DataError where the folder is missing or empty, a class folder has no images, the splits' folders do
    not have the same classes, or something below it cannot be listed or is no image file for all its name.
    """
    root = expanded(path)
    if not os.path.isdir(root):  # noqa: PTH112 - a Path's own raises for a name that is too long
        raise DataError(f"data.path={path}: there is no such folder.")
    folders = _split_folders(str(root), path)
    if "train" not in folders:
        if folders:
            found = ", ".join(sorted(map(os.path.basename, folders.values())))
            raise DataError(f"data.path={path}: has {found}/ but no train/ folder.")
        folders = {"train": str(root)}
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
    splits = {split: _examples(str(root), folder, names) for split, folder in folders.items()}
    return Source(tuple(names), "multiclass", dict(splits))


def _split_folders(root: str, path: str) -> dict[str, str]:
    """The folders of splits, whatever the case of their names."""
    found: dict[str, str] = {}
    split_of = {word: split for split, words in SPLIT_FOLDERS.items() for word in words}
    for entry in _entries(root):
        split = split_of.get(entry.name.lower())
        if split is None or not _is_folder(entry):
            continue
        if split in found:
            both = " and ".join(sorted((Path(found[split]).name, entry.name)))
            raise DataError(f"data.path={path}: {both} may both be the {split} split; rename one.")
        found[split] = entry.path
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; raises DataError where that may not be known."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{_shown(folder)}: cannot be listed ({error.strerror}).") from error


def _subfolders(folder: str) -> list[str]:
    names = [entry.name for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith(".")]
    for name in names:
        if not is_line(name):
            raise DataError(
                f"data.path: the class folder {name!r} in {folder} has a name that is no line of text; rename it."
            )
    return names


def _examples(root: str, folder: str, names: list[str]) -> FileExamples:
    ids: list[str] = []
    targets: list[int] = []
    skip = len(root.rstrip(os.sep)) + 1
    for target, name in enumerate(names):
        place = f"{folder.rstrip(os.sep)}/{name}"
        # as paths are sorted: part by part
        found = sorted((file[skip:] for file in _images(place)), key=lambda file: file.split("/"))
        if not found:
            raise DataError(f"data.path: the class folder {place} has no images ({' '.join(SUFFIXES)}).")
        ids += found
        targets += [target] * len(found)
    return FileExamples(root, ids, np.asarray(targets, dtype=np.int64))


def _images(folder: str) -> Iterator[str]:
    """Paths of the images in a folder and those in it; links are followed, and those that lead back are left.

    What is hidden is left too: editors keep copies in such folders.
    """
    todo, links, seen = [folder], list[str](), set[str]()
    while todo or links:
        here = todo.pop() if todo else links.pop()  # what a folder is called itself comes first
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(here):
            name, full = entry.name, f"{here}/{entry.name}"
            if not is_text(name):
                raise DataError(f"{_shown(full)}: its name is not UTF-8; rename it.")
            if name.startswith("."):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else todo).append(full)
            elif name.lower().endswith(SUFFIXES):
                if not _is_file(entry):
                    what = "a pipe, socket or device, no file" if os.path.exists(full) else "a link to nothing"  # noqa: PTH110
                    raise DataError(f"{full!r}: is {what}; remove it.")
                yield full


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_file()
    return False


def _shown(path: str) -> str:
    return path.encode("utf-8", "replace").decode()
