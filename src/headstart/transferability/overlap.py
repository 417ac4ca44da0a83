"""Which of the target's classes the source has, where their names match."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_BREAKS = re.compile(r"[\s_\-]+")


@dataclass(frozen=True)
class Overlap:
    """Classes of the target whose names the source has too."""

    shared: tuple[str, ...]
    """As the target spells them, in its order."""
    share: float | None
    """Of the target's classes that have a name; None where none has, or none of the source's, as of numbers."""


def label_overlap(source_names: Iterable[str], target_names: Iterable[str]) -> Overlap:
    """Classes that both have by name.

    A name may hold several, with commas between, as WordNet's synonyms do in ImageNet: "tabby, tabby cat". They
    match where one of the source's is one of the target's, whatever their case, with spaces, underscores and
    hyphens alike and the plural's s left away. Nothing else does: no parts of names ("cat" is not "tabby cat"), no
    kinds of things (no breed of dogs is "dog"), no other spellings. A name that is a number names nothing.
    """
    known = {one for name in source_names for one in names_of(name)}
    named = [(name, found) for name in target_names if (found := names_of(name))]
    shared = tuple(name for name, found in named if found & known)
    return Overlap(shared, len(shared) / len(named) if named and known else None)


def names_of(text: str) -> frozenset[str]:
    """The names in a class's name, as they are compared."""
    found = (_plain(part) for part in str(text).split(","))
    return frozenset(one for one in found if one and not one.replace(".", "").replace(" ", "").isdecimal())


def _plain(name: str) -> str:
    words = _BREAKS.sub(" ", name).strip().casefold()
    return words[:-1] if len(words) > 3 and words.endswith("s") and words[-2] not in "sui" else words


def overlap_note(overlap: Overlap, *, source: str, classes: int) -> str | None:
    """One line where all or none of the target's named classes are the source's; `source` is what it is called."""
    if overlap.share == 1:
        return (
            f"all {classes} classes bear names of classes of {source}: it may have seen these very images, and "
            "what is measured then is no transfer."
        )
    if overlap.share == 0:
        return f"no class bears a name of a class of {source}; kinds and parts of them are not compared."
    return None
