"""Copies that lie in two splits, and copies that have two labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from headstart.audit.duplicates import Copies

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Pair:
    """Two images that are copies; places in `Looks`."""

    first: int
    second: int
    kind: str
    """`exact`: the same content; `near`: the same picture."""
    likeness: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class Leak:
    """What two splits share."""

    splits: tuple[str, str]
    exact: int
    """Images of the second split whose content is in the first as well."""
    near: int
    """Further ones whose picture is."""
    of: int
    """Images of the second split."""


def pairs_of(copies: Copies, splits: Sequence[str]) -> list[Pair]:
    """Every copy with one that it is a copy of: pairs across splits first, exact before near, likest first.

    `splits` holds the split of each image, empty for one that is in none. Of a group with the same content each is
    paired with its first image, and across splits with the first in each earlier split.
    """
    groups = {group[0]: group for group in copies.exact}
    pairs: list[Pair] = []
    for group in copies.exact:
        leading = _leading(group, splits)
        for place in group:
            split = splits[place]
            earlier = [lead for other, lead in leading.items() if _before(other, split)]
            # one in no split is a copy of the first in any
            own = leading[split] if split else next((leading[s] for s in SPLITS if s in leading), group[0])
            pairs += [Pair(lead, place, "exact") for lead in earlier or [own] if lead != place]
    for near in copies.near:
        ones, others = groups.get(near.first, (near.first,)), groups.get(near.second, (near.second,))
        found = [
            (one, other)
            for one in _leading(ones, splits).values()
            for other in _leading(others, splits).values()
            if splits[one] and splits[other] and splits[one] != splits[other]
        ]
        for one, other in found or [(near.first, near.second)]:
            one, other = (other, one) if _before(splits[other], splits[one]) else (one, other)
            pairs.append(Pair(one, other, "near", near.likeness, near.mirrored))
    unique = {(pair.first, pair.second, pair.kind): pair for pair in pairs}.values()
    return sorted(unique, key=lambda pair: (not crosses(pair, splits), pair.kind, -pair.likeness))


def crosses(pair: Pair, splits: Sequence[str]) -> bool:
    """Whether the two are in different splits."""
    one, other = splits[pair.first], splits[pair.second]
    return bool(one and other and one != other)


def leaks_of(copies: Copies, splits: Sequence[str], sizes: Mapping[str, int]) -> list[Leak]:
    """How many images of each split are in an earlier one as well; splits that share nothing are left out."""
    groups = {group[0]: group for group in copies.exact}
    order = [split for split in SPLITS if split in sizes]
    exact: dict[tuple[str, str], set[int]] = {both: set() for both in combinations(order, 2)}
    near: dict[tuple[str, str], set[int]] = {both: set() for both in combinations(order, 2)}
    for group in copies.exact:
        _meet(group, group, splits, exact)
    for pair in copies.near:
        ones, others = groups.get(pair.first, (pair.first,)), groups.get(pair.second, (pair.second,))
        _meet(ones, others, splits, near)
        _meet(others, ones, splits, near)
    return [
        Leak(both, len(exact[both]), len(near[both] - exact[both]), sizes[both[1]])
        for both in exact
        if exact[both] or near[both]
    ]


def _meet(
    ones: Sequence[int],
    others: Sequence[int],
    splits: Sequence[str],
    found: dict[tuple[str, str], set[int]],
) -> None:
    """Note which of `others` have one of `ones` in an earlier split."""
    there = {splits[one] for one in ones}
    for other in others:
        for split in there:
            if (both := (split, splits[other])) in found:
                found[both].add(other)


def contradictions(copies: Copies, labels: Sequence[str]) -> list[Pair]:
    """Copies whose labels differ, exact ones first: of a group, one pair for each further label."""
    found: list[Pair] = []
    for group in copies.exact:
        seen: dict[str, int] = {}
        for place in group:
            seen.setdefault(labels[place], place)
        first, *others = seen.values()
        found += [Pair(first, other, "exact") for other in others]
    found += [
        Pair(near.first, near.second, "near", near.likeness, near.mirrored)
        for near in copies.near
        if labels[near.first] != labels[near.second]
    ]
    return found


def _leading(group: Sequence[int], splits: Sequence[str]) -> dict[str, int]:
    """The first image of each split."""
    leading: dict[str, int] = {}
    for place in group:
        leading.setdefault(splits[place], place)
    return leading


def _before(split: str, other: str) -> bool:
    return split in SPLITS and other in SPLITS and SPLITS.index(split) < SPLITS.index(other)
