"""Which example goes where: stratified, nested, and a function of ids and split seed alone.

Examples of a class are ordered by a hash of (split seed, id), and the classes are then interleaved in
proportion. Every subset is a beginning of that order, so that the 100-image subset lies inside the
300-image one; adding an image moves no other between two that were there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError

Indices = npt.NDArray[np.int64]
Size = int | float | None


def strata(targets: npt.NDArray[np.int64]) -> Indices:
    """The class of each example; where it may have several labels, the rarest of those it has.

    An example without any label gets the number of classes.
    """
    if targets.dtype.kind == "f":
        order = targets.reshape(len(targets), -1)[:, 0].argsort(kind="stable").argsort()
        return order * min(10, len(targets)) // max(1, len(targets))
    if targets.ndim == 1:
        return targets
    counts = targets.sum(axis=0)
    rarity = np.where(targets > 0, counts, np.iinfo(np.int64).max)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), targets.shape[1])


def interleaved(ids: Sequence[str], targets: npt.NDArray[np.int64], *, split_seed: int) -> Indices:
    """All examples, ordered so that every beginning holds the classes in about their proportions.

    The first example of each class comes before the second of any, so that a beginning as long as the number
    of classes has them all.
    """
    hashes = np.array([hashlib.sha256(f"{split_seed}\0{name}".encode()).digest() for name in ids], dtype="S32")
    groups = strata(targets)
    order = np.lexsort((hashes, groups))
    counts = np.bincount(groups)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - starts[groups[order]]
    return np.lexsort((hashes, rank / counts[groups]))


def count_of(size: Size, *, of: int, classes: int, key: str) -> int:
    """A size as a count: a share is rounded, and is at least one example per class.

    Raises DataError where there are not that many.
    """
    if size is None:
        return of
    count = max(round(size * of), classes) if isinstance(size, float) else size
    if count > of:
        raise DataError(f"data.{key}={size}: there are only {of} examples to take them from.")
    return count


def first_shots(order: Indices, targets: npt.NDArray[np.int64], shots: int, class_names: Sequence[str]) -> Indices:
    """The first `shots` examples of each class in `order`.

    Raises DataError where a class has fewer, or an example may have several labels.
    """
    if targets.ndim == 2:
        raise DataError("data.shots counts examples per class; with several labels per image use data.train_size.")
    groups = targets[order]
    for target, name in enumerate(class_names):
        have = int((groups == target).sum())
        if have < shots:
            raise DataError(f"data.shots={shots}: the class {name!r} has only {have} examples left for training.")
    taken = np.concatenate([np.flatnonzero(groups == target)[:shots] for target in range(len(class_names))])
    return order[np.sort(taken)]


def check_classes(targets: npt.NDArray[np.int64], split: str, class_names: Sequence[str]) -> None:
    """Raise DataError where a split leaves a class out."""
    counts = class_counts(targets, len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"data.{split}_size: the {split} split ({len(targets)} examples) leaves out the class "
            f"{absent[0]!r}{more}; make it larger."
        )


def class_counts(targets: npt.NDArray[np.int64], classes: int) -> tuple[int, ...]:
    """How many examples each class has."""
    counts = targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes)
    return tuple(int(count) for count in counts)
