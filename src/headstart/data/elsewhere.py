"""Further data under the classes of a run: which of it is scored, and what its classes are called there."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.config.schema.data import DataConfig
from headstart.data.datamodule import ImageDataModule
from headstart.data.fingerprint import scan
from headstart.data.load import data_module
from headstart.data.opening import chosen_source
from headstart.data.source import Examples, Picture, Source, file_of, root_of
from headstart.data.subset import Split
from headstart.errors import ConfigError, DataError, did_you_mean
from headstart.facts import InputSpec, Task

SPLITS = ("train", "val", "test", "all")
_NAMED = 6


@dataclass(frozen=True)
class Elsewhere:
    """Further data, ready to be scored as a split `test` with the targets of a run."""

    data: ImageDataModule
    split: str
    """Which of its examples these are: one of `SPLITS`."""
    absent: tuple[str, ...]
    """Classes of the run that it has no images of."""
    ignored: Mapping[str, int]
    """Images of classes that the run does not know, left out; of several labels per image: the labels."""


def load_elsewhere(
    data: DataConfig,
    spec: InputSpec,
    *,
    class_names: Sequence[str],
    task: Task,
    split: str | None,
    names: Mapping[str, str],
    ignore_unknown: bool,
    seed: int,
    threads: int,
    num_workers: int,
) -> Elsewhere:
    """Read `data` as the run with these classes would; `spec` is that run's preprocessing.

    Without `split` it is the data's own test split, or all of it where it has none. Classes are the same where
    their names are; `names` maps further ones to the run's. Raises DataError where images cannot be read, there is
    no such split, or there are classes that the run does not know, unless `ignore_unknown` leaves their images out.
    """
    source = chosen_source(data)
    if _kind(source.task) != _kind(task):
        raise DataError(f"data: its images have {_kind(source.task)}, and the run's {_kind(task)}.")
    chosen, parts = _parts(source, split)
    places = _places(source.class_names, class_names, names)
    numbers = task == "regression"
    if numbers:
        _require_apart(source.class_names, class_names, places)
    if numbers and (lacking := sorted(set(range(len(class_names))) - set(places))):
        raise DataError(f"data: has no {class_names[lacking[0]]!r}; the run predicts {', '.join(class_names)}.")
    unknown = _unknown(source, parts, places) if not numbers else {}
    if unknown and not ignore_unknown:
        raise DataError(_unknown_words(unknown, class_names))
    several = task in ("multilabel", "regression")
    targets = [_targets(part.targets, places, len(class_names), several=several) for part in parts]
    kept = [
        np.arange(len(part.ids)) if several else np.flatnonzero(own >= 0)
        for part, own in zip(parts, targets, strict=True)
    ]
    if not sum(map(len, kept)) or (task == "multilabel" and not any(own.any() for own in targets)):
        raise DataError("data: has no images of any class of the run.")
    examples = _Chosen(parts, kept, np.concatenate([own[rows] for own, rows in zip(targets, kept, strict=True)]))
    renamed = Source(tuple(class_names), task, {"test": examples})
    found = scan(renamed, threads=threads, on_bad_image=data.on_bad_image)
    usable = np.asarray(found.usable["test"], dtype=np.int64)
    if not len(usable):
        raise DataError("data: none of the images can be decoded.")
    module = data_module(
        {"test": Split(examples, usable)},
        source=renamed,
        found=found,
        data=data,
        spec=spec,
        seed=seed,
        num_workers=num_workers,
    )
    counts = module.facts.class_counts["test"]
    absent = () if numbers else tuple(name for name, n in zip(class_names, counts, strict=True) if not n)
    return Elsewhere(module, chosen, absent, unknown)


def read_names(path: Path) -> dict[str, str]:
    """Class names of other data -> the run's, from a CSV of two columns; a first row `theirs,ours` is a header.

    Raises ConfigError where the file cannot be read, a row has not two cells, or a name is there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError as error:
        raise ConfigError(f"--map {path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--map {path}: cannot be read as CSV ({type(error).__name__}).") from error
    if rows and rows[0] == ["theirs", "ours"]:
        rows = rows[1:]
    found: dict[str, str] = {}
    for row in rows:
        if len(row) != 2 or not all(row):
            raise ConfigError(f"--map {path}: {','.join(row)}: a row is a class of the data and one of the run.")
        if row[0] in found:
            raise ConfigError(f"--map {path}: names {row[0]!r} twice.")
        found[row[0]] = row[1]
    if not found:
        raise ConfigError(f"--map {path}: has no rows.")
    return found


def _parts(source: Source, split: str | None) -> tuple[str, list[Examples]]:
    chosen = split or ("test" if "test" in source.splits else "all")
    if chosen != "all" and chosen not in source.splits:
        raise DataError(
            f"--split {chosen}: the data has no such split; it has {', '.join(source.splits)}; `all` is all of it."
        )
    return chosen, list(source.splits.values()) if chosen == "all" else [source.splits[chosen]]


def _places(theirs: Sequence[str], ours: Sequence[str], names: Mapping[str, str]) -> list[int]:
    """The run's index of each of the data's classes; -1 for those that it does not know."""
    for name, own in names.items():
        if name not in theirs:
            raise ConfigError(f"--map: the data has no class {name!r}.{did_you_mean(name, theirs)}")
        if own not in ours:
            raise ConfigError(f"--map: the run has no class {own!r}.{did_you_mean(own, ours)}")
    place = {name: i for i, name in enumerate(ours)}
    return [place.get(names.get(name, name), -1) for name in theirs]


def _require_apart(theirs: Sequence[str], ours: Sequence[str], places: Sequence[int]) -> None:
    """Raise ConfigError where two of the data's numbers would be one of the run's."""
    for place, name in enumerate(ours):
        both = [theirs[i] for i, own in enumerate(places) if own == place]
        if len(both) > 1:
            raise ConfigError(f"--map: {both[0]!r} and {both[1]!r} would both be {name!r}.")


def _unknown(source: Source, parts: Sequence[Examples], places: Sequence[int]) -> dict[str, int]:
    """Images of each class that the run does not know, where there are any."""
    counts = np.zeros(len(places), dtype=np.int64)
    for part in parts:
        own = part.targets
        counts += own.sum(axis=0) if own.ndim == 2 else np.bincount(own, minlength=len(places))
    return {
        name: int(count)
        for name, place, count in zip(source.class_names, places, counts, strict=True)
        if place < 0 and count
    }


def _unknown_words(unknown: Mapping[str, int], class_names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, list(unknown)[:_NAMED])) + (
        f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    )
    hint = next((said for name in unknown if (said := did_you_mean(name, class_names))), "")
    return (
        f"data: has classes that the run does not know: {listed}.{hint} --map FILE says which of the run's they "
        "are, --ignore-unknown leaves their images out."
    )


def _kind(task: Task) -> str:
    return {"multilabel": "several labels each", "regression": "numbers"}.get(task, "one class each")


def _targets(own: npt.NDArray[Any], places: Sequence[int], classes: int, *, several: bool) -> npt.NDArray[Any]:
    """The run's targets; -1 where an image's class is none of its."""
    if not several:
        return np.asarray(places, dtype=np.int64)[own]
    found = np.zeros((len(own), classes), dtype=own.dtype)
    for column, place in enumerate(places):
        if place >= 0:  # several of the data's labels may be one of the run's
            found[:, place] = own[:, column] if own.dtype.kind == "f" else found[:, place] | (own[:, column] > 0)
    return found


class _Chosen:
    """Some examples of one source or several splits of it, with targets of their own."""

    def __init__(
        self,
        parts: Sequence[Examples],
        kept: Sequence[npt.NDArray[np.int64]],
        targets: npt.NDArray[Any],
    ) -> None:
        self._places = [(part, int(i)) for part, rows in zip(parts, kept, strict=True) for i in rows]
        self.ids = [part.ids[i] for part, i in self._places]
        self.targets = targets
        self.encoded = parts[0].encoded
        self.root = root_of(parts[0])

    def file(self, index: int) -> str | None:
        """Path of this image, where it is a file."""
        return file_of(*self._places[index])

    def content(self, index: int) -> bytes:
        """The bytes that make this image what it is."""
        part, place = self._places[index]
        return part.content(place)

    def image(self, index: int) -> Picture:
        """Decode it."""
        part, place = self._places[index]
        return part.image(place)

    def where(self, index: int) -> str:
        """Where a person finds this image."""
        part, place = self._places[index]
        return part.where(place)
