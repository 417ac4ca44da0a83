"""Copies among images: the same file twice, and the same picture in another file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.audit.candidates import MOST_LOOKED, like_pairs
from headstart.audit.likeness import MIRROR, ZOOM, correlation, hashes, likeness
from headstart.audit.look import Looks

ALIKE = 0.93
"""Likeness of a near duplicate. On 15,000 photographs of CIFAR-10 with copies of them: 99 % and more of those that
were re-encoded, resized, cropped by 3 %, made lighter by 30 % or mirrored are above; of 112 million pairs of
photographs 107 are, and all but 2 of them do show the same picture, as one sees (docs/audit.md)."""
LEAST_CONTRAST = 5.0
"""Standard deviation of a sketch's grey levels, of 255; flatter pictures all look alike."""
LEAST_SIDE = 16
"""Pixels; smaller pictures say too little to tell a copy from a likeness."""
_ROUGHLY = 0.75
"""Correlation below which no copy was ever found: most candidates end here, at little cost."""
LINKED, CROWD, CROWDED = 0.88, 20, 0.4
"""Copies of one picture are all alike. Where more than 20 images hang together by pairs of this likeness, and less
than this share of all their pairs are so alike, they are pictures of one kind, as digits or X-rays are."""
SURE = 0.99
"""Likeness of a copy among such pictures."""
MOST_PAIRS = 100_000
_ROWS = 20_000


@dataclass(frozen=True)
class Near:
    """Two images that show the same picture; `first` < `second`, places in `Looks`."""

    first: int
    second: int
    likeness: float
    mirrored: bool


@dataclass(frozen=True)
class Copies:
    """What was found; each group and pair once."""

    exact: tuple[tuple[int, ...], ...]
    """Groups of places with the same content, each in order."""
    near: tuple[Near, ...]
    """Likest first; of images with the same content the first one stands for all."""
    alike: int
    """Pairs left out of `near`, as they are of a crowd of pictures that look alike by nature."""
    flat: int
    """Images too flat to be compared."""
    small: int
    """Images too small to be compared."""
    complete: bool
    """False where so many images look alike that not all pairs were compared."""


def find_copies(looks: Looks, *, most_looked: int = MOST_LOOKED) -> Copies:
    """Search all readable images for copies."""
    readable = np.array([n for n in range(len(looks)) if n not in looks.problems], dtype=np.int64)
    exact, distinct = _same_content(looks.digests, readable)
    sides = looks.sizes[distinct].min(axis=1) if len(distinct) else np.empty(0)
    contrast = _contrast(looks.sketches, distinct)
    small, flat = sides < LEAST_SIDE, (sides >= LEAST_SIDE) & (contrast < LEAST_CONTRAST)
    compared = distinct[~small & ~flat]
    linked = _linked(looks.sketches[compared], most_looked=most_looked)
    copies = np.flatnonzero(linked.likeness >= _least_likeness(linked, len(compared)))
    near = tuple(
        Near(
            int(compared[linked.first[i]]),
            int(compared[linked.second[i]]),
            round(float(linked.likeness[i]), 4),
            bool(linked.mirrored[i]),
        )
        for i in copies[:MOST_PAIRS]
    )
    return Copies(
        exact=exact,
        near=near,
        alike=int((linked.likeness >= ALIKE).sum()) - len(copies),
        flat=int(flat.sum()),
        small=int(small.sum()),
        complete=linked.complete and len(copies) <= MOST_PAIRS,
    )


def _same_content(
    digests: npt.NDArray[np.uint64], places: npt.NDArray[np.int64]
) -> tuple[tuple[tuple[int, ...], ...], npt.NDArray[np.int64]]:
    """Groups of equal digests, and the first place of every digest."""
    if not len(places):
        return (), places
    _, first, group = np.unique(digests[places], axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    members: dict[int, list[int]] = {}
    for at in np.flatnonzero(np.bincount(group)[group] > 1):
        members.setdefault(int(group[at]), []).append(int(places[at]))
    groups = sorted(tuple(sorted(found)) for found in members.values())
    return tuple(groups), np.sort(places[first])


def _contrast(sketches: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    found = np.empty(len(places))
    for start in range(0, len(places), _ROWS):
        found[start : start + _ROWS] = sketches[places[start : start + _ROWS]].std(axis=(1, 2))
    return found


@dataclass(frozen=True)
class _Linked:
    """Pairs of places (m,) that are alike, likest first."""

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    likeness: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]
    complete: bool


def _linked(sketches: npt.NDArray[np.uint8], *, most_looked: int) -> _Linked:
    """All pairs of sketches whose likeness is at least `LINKED`, each once."""
    whole, middle = hashes(sketches), hashes(sketches, zoom=ZOOM)
    complete = True
    columns: list[tuple[npt.NDArray[Any], ...]] = []
    for mirrored in (False, True):
        turn = MIRROR if mirrored else np.uint64(0)
        candidates = like_pairs(whole, [whole ^ turn, middle ^ turn], most_looked=most_looked)
        complete &= candidates.complete
        for start in range(0, len(candidates.first), _ROWS):
            i, j = (side[start : start + _ROWS] for side in (candidates.first, candidates.second))
            other = sketches[j][:, :, ::-1] if mirrored else sketches[j]
            rough = correlation(sketches[i], other) >= _ROUGHLY
            i, j, other = i[rough], j[rough], other[rough]
            alike = likeness(sketches[i], other)
            sure = alike >= LINKED
            columns.append((i[sure], j[sure], alike[sure], np.full(int(sure.sum()), mirrored)))
    first, second, alike, turned = (
        (np.concatenate(part) for part in zip(*columns, strict=True))
        if columns
        else (
            np.empty(0, dtype=np.int64),
            np.empty(0, dtype=np.int64),
            np.empty(0),
            np.empty(0, dtype=bool),
        )
    )
    order = np.lexsort((second, first, -alike))
    # a symmetrical picture is found both ways round
    _, once = np.unique(first[order] * len(sketches) + second[order], return_index=True)
    order = order[np.sort(once)]
    return _Linked(first[order], second[order], alike[order], turned[order], complete)


def _least_likeness(pairs: _Linked, count: int) -> npt.NDArray[np.float64]:
    """(m,) what each pair of `count` images must reach: more among those that look alike by nature."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs.first), dtype=bool), (pairs.first, pairs.second)), shape=(count, count))
    groups, group = connected_components(links, directed=False)
    members = np.bincount(group, minlength=groups)
    of_group = np.bincount(group[pairs.first], minlength=groups)
    share = of_group / np.maximum(members * (members - 1) / 2, 1)
    crowd = (members > CROWD) & (share < CROWDED)
    return np.where(crowd[group[pairs.first]], SURE, ALIKE)
