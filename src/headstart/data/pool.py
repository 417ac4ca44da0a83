"""Examples in the order in which splits take them, single or in groups that stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.source import Examples
from headstart.data.split import Indices, hashes_of, in_proportion, strata
from headstart.data.subset import Split
from headstart.errors import DataError


@dataclass(frozen=True)
class Pool:
    """Some examples of one part of a source, ordered: every beginning is stratified, and groups lie together."""

    examples: Examples
    indices: Indices
    """(n,) in order."""
    units: Indices
    """(n,) which of them stay together: numbers that rise with the order, one for each group or single example."""
    strata: Indices
    """(n,) the class of each one's group, by which groups are spread: the commonest in it."""
    groups: Sequence[str] | None
    """The group of each of the `examples`, where they have groups."""
    split_seed: int

    def __len__(self) -> int:
        return len(self.indices)

    def of(self, indices: Indices) -> Pool:
        """Some of these, ordered anew: the beginning of what is left has every class again."""
        return pooled(self.examples, indices, groups=self.groups, split_seed=self.split_seed)

    def split(self, indices: Indices) -> Split:
        """Some of these as a split, in the source's own order."""
        return Split(self.examples, np.sort(indices))

    def whole(self, count: int) -> int:
        """How many examples the whole groups have that come nearest to `count`; at least one group."""
        ends = np.flatnonzero(np.append(np.diff(self.units) > 0, True)) + 1
        return int(ends[np.abs(ends - count).argmin()])

    def share(self, share: float) -> npt.NDArray[np.bool_]:
        """(n,) about a share of each class's groups, the first one of each: the same ones in every beginning."""
        firsts = np.flatnonzero(np.append(True, np.diff(self.units) > 0))
        classes = self.strata[firsts]
        rank = np.zeros(len(firsts), dtype=np.int64)
        for one in np.unique(classes):
            rank[classes == one] = np.arange((classes == one).sum())
        taken = np.ceil((rank + 1) * share) > np.ceil(rank * share)
        return taken[self.units]

    def folds(self, count: int) -> Indices:
        """(n,) the fold of each: every class and all together are spread as evenly as whole groups allow.

        Raises DataError where there are fewer groups or examples than folds.
        """
        firsts = np.flatnonzero(np.append(True, np.diff(self.units) > 0))
        if len(firsts) < count:
            what = "groups" if self.groups is not None else "examples"
            raise DataError(f"data.num_folds={count}: there are only {len(firsts)} {what} to make folds of.")
        sizes = np.bincount(self.units)
        classes = self.strata[firsts]
        totals = np.zeros(count, dtype=np.int64)
        fold = np.zeros(len(firsts), dtype=np.int64)
        for one in np.unique(classes):
            of_class = np.zeros(count, dtype=np.int64)
            for unit in np.flatnonzero(classes == one).tolist():
                place = int(np.lexsort((totals, of_class))[0])
                fold[unit] = place
                of_class[place] += sizes[unit]
                totals[place] += sizes[unit]
        return fold[self.units]


def pooled(examples: Examples, indices: Indices, *, groups: Sequence[str] | None, split_seed: int) -> Pool:
    """Order some examples by their classes, and by hashes of their ids or of the names of their groups.

    Raises DataError where there are none.
    """
    if not len(indices):
        raise DataError("data: a split has no examples left; make data.test_size and data.val_size smaller.")
    ids = [examples.ids[i] for i in indices.tolist()]
    classes = strata(examples.targets[indices])
    hashes = hashes_of(ids, split_seed=split_seed)
    if groups is None:
        order = in_proportion(hashes, classes, np.ones(len(ids), dtype=np.int64))
        return Pool(examples, indices[order], np.arange(len(ids)), classes[order], None, split_seed)
    names, member = np.unique([groups[i] for i in indices.tolist()], return_inverse=True)
    commonest = _commonest(member, classes)
    sizes = np.bincount(member)
    of_groups = in_proportion(hashes_of(names.tolist(), split_seed=split_seed), commonest, sizes)
    place = np.empty(len(names), dtype=np.int64)
    place[of_groups] = np.arange(len(names))
    order = np.lexsort((hashes, place[member]))
    return Pool(examples, indices[order], place[member][order], commonest[member][order], groups, split_seed)


def _commonest(member: Indices, classes: Indices) -> Indices:
    """The class that most examples of each group have, of several the first."""
    pairs, votes = np.unique(np.stack([member, classes], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -votes, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    return pairs[order[first], 1]
