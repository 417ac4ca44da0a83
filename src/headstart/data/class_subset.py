"""Some classes of a source, as a source of its own: the rest is as if it were not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.source import Examples, Picture, Source, file_of, root_of
from headstart.errors import ConfigError, did_you_mean


def of_classes(source: Source, wanted: Sequence[Any]) -> Source:
    """The source with the classes in `wanted` alone, in that order; names, or numbers from 0.

    Where the classes' names are all whole numbers, a number is a name: classes 1 to 5 have no class 0.
    Raises ConfigError for a class that is not there or named twice, and where images have several labels.
    """
    if source.task != "multiclass":
        have = "numbers for labels" if source.task == "regression" else "several labels each"
        raise ConfigError(f"data.classes: is for one class per image; these images have {have}.")
    chosen = [_index(name, source.class_names) for name in wanted]
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"data.classes={list(wanted)}: names a class twice.")
    splits = {name: OfClasses(examples, chosen) for name, examples in source.splits.items()}
    groups = {name: splits[name].kept_of(groups) for name, groups in source.groups.items()}
    return replace(source, class_names=tuple(source.class_names[i] for i in chosen), splits=splits, groups=groups)


def _index(name: Any, class_names: Sequence[str]) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        numbers = (
            list(map(str, class_names))
            if all(own.isdecimal() for own in class_names)
            else list(map(str, range(len(class_names))))
        )
        if str(name) not in numbers:
            span = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
            raise ConfigError(f"data.classes: there is no class {name}; there are {span}.")
        return numbers.index(str(name))
    if str(name) not in class_names:
        some = ", ".join(class_names[:6]) + (" ..." if len(class_names) > 6 else "")
        raise ConfigError(
            f"data.classes: there is no class {name!r}.{did_you_mean(str(name), class_names)} There are: {some}."
        )
    return class_names.index(str(name))


class OfClasses:
    """The examples of some classes, with targets that count from 0 in the order of those classes."""

    def __init__(self, examples: Examples, classes: Sequence[int]) -> None:
        self._examples = examples
        place = {old: new for new, old in enumerate(classes)}
        self._kept = [i for i, target in enumerate(examples.targets.tolist()) if target in place]
        self.ids = [examples.ids[i] for i in self._kept]
        self.targets: npt.NDArray[np.int64] = np.array(
            [place[int(examples.targets[i])] for i in self._kept], dtype=np.int64
        )

    def kept_of(self, values: Sequence[str]) -> list[str]:
        """Of a value for each of the source's examples, those of the examples that are kept."""
        return [values[i] for i in self._kept]

    @property
    def root(self) -> str | None:
        """The folder that ids of files are relative to."""
        return root_of(self._examples)

    def file(self, index: int) -> str | None:
        """Path of this image, where it is a file."""
        return file_of(self._examples, self._kept[index])

    @property
    def encoded(self) -> bool:
        """Whether `content` is an image file's bytes."""
        return self._examples.encoded

    def content(self, index: int) -> bytes:
        """The bytes that make this image what it is."""
        return self._examples.content(self._kept[index])

    def image(self, index: int) -> Picture:
        """Decode it."""
        return self._examples.image(self._kept[index])

    def where(self, index: int) -> str:
        """Where a person finds this image."""
        return self._examples.where(self._kept[index])
