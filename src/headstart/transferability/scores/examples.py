"""What a score is computed on, and what it says. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError

Array = NDArray[np.float64]
Places = NDArray[np.int64]
CLASSES = frozenset({"multiclass", "binary"})
"""Tasks with one class per example."""
LARGEST = 1e100
"""Features beyond this, or all below its inverse, have squares that float64 does not hold."""
TASKS = frozenset({*CLASSES, "multilabel", "regression"})


@dataclass(frozen=True)
class Examples:
    """Frozen features of labelled images."""

    features: NDArray[Any]
    """(n, d) floats of any precision; all work is in float64."""
    targets: NDArray[Any]
    """(n,) classes from 0 for multiclass and binary; (n, outputs) of 0 and 1 for multilabel; (n, outputs) numbers
    for regression."""
    task: str
    outputs: int
    """Classes, labels or numbers to predict."""
    source: Array | None = None
    """(n, classes of the source) what the source's own classifier says, as probabilities; None without one."""
    keys: NDArray[np.uint64] | None = None
    """(n,) a digest of each image, which all candidates share; None where there is none."""

    def __len__(self) -> int:
        return len(self.features)

    def take(self, places: NDArray[Any]) -> Examples:
        """The examples at those places, with repeats where a place is repeated."""
        source, keys = (None if one is None else one[places] for one in (self.source, self.keys))
        return replace(self, features=self.features[places], targets=self.targets[places], source=source, keys=keys)


@dataclass(frozen=True)
class Scored:
    """What a score says of one candidate."""

    value: float | None
    """Higher is better; None where it cannot be had, and `note` says why."""
    note: str = ""
    """What is to be said of the value: which guard was used, or that it says nothing."""
    per_example: Array | None = None
    """(n,) where the value is its mean, or varies from sample to sample as its mean: a bootstrap needs no refit."""
    forced: bool = False
    """Whether the value follows from the shape of the features alone, whatever is in them."""
    spread: bool = True
    """Whether it can be known how the value varies from sample to sample; without that it has no interval."""


@dataclass(frozen=True)
class Score:
    """One way to rank candidates; higher is better."""

    name: str
    title: str
    citation: str
    """Authors, year, title and equation."""
    tasks: frozenset[str]
    needs_source: bool
    compute: Callable[[Examples], Scored]
    """Raises DataError where features are not finite or targets are not what the task says."""
    most: int | None = None
    """Images that a ranking shows it at most, where its cost grows too fast."""


def checked(examples: Examples) -> Examples:
    """The examples, once they are known to be right; raises DataError in a line where they are not."""
    features, targets = examples.features, examples.targets
    if features.ndim != 2 or not len(features):
        raise DataError(f"features of shape {features.shape}: a score needs (examples, width), and an example.")
    if len(targets) != len(features):
        raise DataError(f"{len(features)} rows of features, but {len(targets)} of targets.")
    if examples.keys is not None and examples.keys.shape != (len(features),):
        raise DataError(f"keys of shape {examples.keys.shape} for {len(features)} images: each needs one digest.")
    if not np.isfinite(largest := scale(features)):
        raise DataError("features are not all finite numbers; there is nothing to score.")
    if largest and not 1 / LARGEST <= largest <= LARGEST:
        raise DataError(f"features reach {largest:.1e}: scores are for a scale of 1e-100 to 1e+100.")
    shape = (len(features),) if examples.task in CLASSES else (len(features), examples.outputs)
    if targets.shape != shape:
        raise DataError(f"targets of shape {targets.shape} for task {examples.task}: expected {shape}.")
    if examples.task == "regression":
        if not np.isfinite(targets).all():
            raise DataError("targets are not all finite numbers.")
        return examples
    if examples.task in CLASSES and not np.issubdtype(targets.dtype, np.integer):
        raise DataError(f"targets are {targets.dtype}, not whole numbers: task {examples.task} needs classes.")
    most = examples.outputs - 1 if examples.task in CLASSES else 1
    low, high = targets.min(), targets.max()
    if low < 0 or high > most or (examples.task not in CLASSES and not np.isin(targets, (0, 1)).all()):
        raise DataError(f"targets run from {low} to {high}: they must lie from 0 to {most}.")
    return examples


def scale(features: NDArray[Any]) -> float:
    """The largest absolute value; not finite where one is not."""
    parts = blocks(len(features), width=features.shape[1])
    largest = [np.abs(features[rows]).max(initial=0.0) for rows in parts]
    return float(np.max(np.asarray(largest, dtype=np.float64)))


def present(targets: NDArray[Any]) -> tuple[int, Places]:
    """How many classes there are examples of, and each example's place (n,) among those."""
    classes, places = np.unique(targets, return_inverse=True)
    return len(classes), places.reshape(-1).astype(np.int64)


def indicators(places: Places, count: int) -> Array:
    """(n, count) of 0 and 1: which class each example has."""
    found = np.zeros((len(places), count))
    found[np.arange(len(places)), places] = 1.0
    return found


def blocks(count: int, *, width: int, numbers: int = 1 << 23) -> list[slice]:
    """Slices of so many rows, each of at most about `numbers` numbers (64 MB in float64)."""
    step = max(1, numbers // max(1, width))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
