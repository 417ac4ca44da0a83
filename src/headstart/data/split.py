"""Which example goes where: stratified, nested, and a function of ids and split seed alone.

Examples of a class are ordered by a hash of (split seed, id), and the classes are then interleaved in
proportion. Every subset is a beginning of that order, so that the 100-image subset lies inside the
300-image one; adding an image moves no other between two that were there. Numbers are stratified by the tenth
that they lie in; groups, which stay whole, by the class that most of their examples have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError

Indices = npt.NDArray[np.int64]
Targets = npt.NDArray[Any]
Size = int | float | None

BINS = 10
"""Parts of equal size that numbers are stratified by."""


def strata(targets: Targets) -> Indices:
    """The class of each example; where it may have several labels, the rarest of those it has.

    An example without any label gets the number of classes. Of numbers it is the tenth that the first one lies in,
    by the deciles of all.
    """
    if targets.dtype.kind == "f":
        first = targets[:, 0]
        edges = np.unique(np.quantile(first, np.arange(1, BINS) / BINS)) if len(first) else first
        return np.searchsorted(edges, first, side="right")
    if targets.ndim == 1:
        return targets
    counts = targets.sum(axis=0)
    rarity = np.where(targets > 0, counts, np.iinfo(np.int64).max)
    return np.where(targets.any(axis=1), rarity.argmin(axis=1), targets.shape[1])


def hashes_of(names: Sequence[str], *, split_seed: int) -> npt.NDArray[np.bytes_]:
    """(n,) of 32 bytes: the order that the split seed puts names in."""
    return np.array([hashlib.sha256(f"{split_seed}\0{name}".encode()).digest() for name in names], dtype="S32")


def interleaved(ids: Sequence[str], targets: Targets, *, split_seed: int) -> Indices:
    """All examples, ordered so that every beginning holds the classes in about their proportions.

    The first example of each class comes before the second of any, so that a beginning as long as the number
    of classes has them all.
    """
    return in_proportion(hashes_of(ids, split_seed=split_seed), strata(targets), np.ones(len(ids), dtype=np.int64))


def in_proportion(hashes: npt.NDArray[np.bytes_], classes: Indices, weights: Indices) -> Indices:
    """Things of some weight, ordered by the share of their class that comes before them, then by their hash."""
    order = np.lexsort((hashes, classes))
    sorted_weights = weights[order]
    before = np.cumsum(sorted_weights) - sorted_weights
    totals = np.bincount(classes, weights=weights)
    starts = np.concatenate(([0], np.cumsum(totals)[:-1]))
    share = np.empty(len(classes), dtype=np.float64)
    share[order] = (before - starts[classes[order]]) / totals[classes[order]]
    return np.lexsort((hashes, share))


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


def first_shots(order: Indices, targets: Targets, shots: int, class_names: Sequence[str]) -> Indices:
    """The first `shots` examples of each class in `order`.

    Raises DataError where a class has fewer, or an example may have several labels.
    """
    if targets.dtype.kind == "f":
        raise DataError("data.shots counts examples per class; numbers have none, so use data.train_size.")
    if targets.ndim == 2:
        raise DataError("data.shots counts examples per class; with several labels per image use data.train_size.")
    groups = targets[order]
    for target, name in enumerate(class_names):
        have = int((groups == target).sum())
        if have < shots:
            raise DataError(f"data.shots={shots}: the class {name!r} has only {have} examples left for training.")
    taken = np.concatenate([np.flatnonzero(groups == target)[:shots] for target in range(len(class_names))])
    return order[np.sort(taken)]


def check_classes(targets: Targets, split: str, class_names: Sequence[str], *, have: Sequence[int]) -> None:
    """Raise DataError where a split leaves a class out; numbers have none. `have`: images of each in all splits."""
    if targets.dtype.kind == "f":
        return
    counts = class_counts(targets, len(class_names))
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        count_of = dict(zip(class_names, have, strict=True))
        rarest = min(absent, key=lambda name: count_of[name])
        images = count_of[rarest]
        advice = "make it larger"
        if images < 3:  # no size would help
            few = f"{images or 'no'} image{'s' * (images != 1)}"
            advice = f"{few} of it can be used, and train, val and test need one each"
        raise DataError(
            f"data.{split}_size: the {split} split ({len(targets)} examples) leaves out the class "
            f"{rarest!r}{more}; {advice}."
        )


def class_counts(targets: Targets, classes: int) -> tuple[int, ...]:
    """How many examples each class has; of numbers nothing is counted."""
    if targets.dtype.kind == "f":
        return ()
    counts = targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes)
    return tuple(int(count) for count in counts)
