"""How the labels lie: examples per class and split, how uneven that is, what always answering the same scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Targets = npt.NDArray[Any]


@dataclass(frozen=True)
class Balance:
    """How uneven the classes of one split are."""

    largest: str
    largest_count: int
    smallest: str
    smallest_count: int

    @property
    def ratio(self) -> float | None:
        """Largest to smallest; None where a class has no example."""
        return self.largest_count / self.smallest_count if self.smallest_count else None


@dataclass(frozen=True)
class Spread:
    """One number that is to be predicted, over one split, in the data's own units."""

    name: str
    least: float
    mean: float
    most: float
    deviation: float


@dataclass(frozen=True)
class Labels:
    """What the labels of all splits are; for regression `spread` stands in the place of counts."""

    counts: dict[str, tuple[int, ...]]
    """Split -> examples of each class."""
    balance: Balance | None
    """Of the training split."""
    majority: dict[str, float]
    """Split -> accuracy of always answering the largest class of training; empty where that is no answer."""
    unlabelled: dict[str, int]
    """Split -> examples with none of several possible labels."""
    spread: dict[str, tuple[Spread, ...]]


def describe_labels(task: str, names: Sequence[str], targets: Mapping[str, Targets]) -> Labels:
    """`targets` of each split as `Examples.targets` has them."""
    if task == "regression":
        return Labels({}, None, {}, {}, {split: _spread(names, values) for split, values in targets.items()})
    several = task == "multilabel"
    counts = {
        split: values.sum(axis=0) if several else np.bincount(values, minlength=len(names))
        for split, values in targets.items()
    }
    train = counts.get("train", np.zeros(len(names), dtype=np.int64))
    most, least = int(train.argmax()), int(train.argmin())
    return Labels(
        counts={split: tuple(int(count) for count in found) for split, found in counts.items()},
        balance=Balance(names[most], int(train[most]), names[least], int(train[least])),
        majority={}
        if several
        else {split: float((values == most).mean()) for split, values in targets.items() if len(values)},
        unlabelled={split: int((values.sum(axis=1) == 0).sum()) for split, values in targets.items()}
        if several
        else {},
        spread={},
    )


def _spread(names: Sequence[str], values: Targets) -> tuple[Spread, ...]:
    columns = values.reshape(len(values), len(names)).astype(np.float64).T
    return tuple(
        Spread(name, float(column.min()), float(column.mean()), float(column.max()), float(column.std()))
        for name, column in zip(names, columns, strict=True)
        if len(column)
    )


def label_text(task: str, names: Sequence[str], target: Any) -> str:
    """An example's label as a person reads it."""
    if task == "regression":
        return ", ".join(f"{value:g}" for value in np.atleast_1d(target))
    if task == "multilabel":
        return ", ".join(name for name, has in zip(names, target, strict=True) if has) or "(none)"
    return names[int(target)]
