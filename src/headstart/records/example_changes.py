"""Which images, labels and places in a split are not what they were."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.records.examples import ExampleTable

_NAMED = 3
Key = tuple[str, str]


def data_changes(before: ExampleTable | None, now: ExampleTable | None) -> list[str]:
    """A line for each kind of difference: contents, labels, examples added and gone."""
    if before is None or now is None:
        return ["the data is not the same; which images differ cannot be told without examples.parquet"]
    old = {key: i for i, key in enumerate(_keys(before))}
    new = {key: i for i, key in enumerate(_keys(now))}
    both = [key for key in old if key in new]
    content = [key for key in both if before.digests[old[key]] != now.digests[new[key]]]
    labels = [key for key in both if before.labels[old[key]] != now.labels[new[key]]]
    lines = []
    if content:
        lines.append(f"{_images(content)} changed: {_names(content)}")
    if labels:
        first = labels[0]
        lines.append(
            f"{len(labels)} label{'s' * (len(labels) != 1)} changed: {_names(labels)} "
            f"({before.labels[old[first]]} -> {now.labels[new[first]]})"
        )
    added, gone = [key for key in new if key not in old], [key for key in old if key not in new]
    moved = _moved(before, now, old, new, added, gone)
    if moved:
        lines.append(f"{_images(moved)} renamed or put into another class: {_names(moved)}")
    added = [key for key in added if key not in moved]
    gone = [] if moved and len(gone) == len(moved) else gone
    if added:
        lines.append(f"{_images(added)} added: {_names(added)}")
    if gone:
        lines.append(f"{_images(gone)} gone: {_names(gone)}")
    return lines or ["the names of the classes are not the same"]


def _moved(
    before: ExampleTable,
    now: ExampleTable,
    old: dict[Key, int],
    new: dict[Key, int],
    added: list[Key],
    gone: list[Key],
) -> list[Key]:
    """New names of images whose content was there under another; empty unless all that is gone is found so."""
    contents = {int(before.digests[old[key]]) for key in gone}
    found = [key for key in added if int(now.digests[new[key]]) in contents]
    return found if found and len(found) == len(gone) else []


def split_changes(before: ExampleTable | None, now: ExampleTable | None) -> list[str]:
    """A line on the examples that are in another split than they were."""
    if before is None or now is None:
        return ["the split is not the same"]
    old = dict(zip(_keys(before), before.splits, strict=True))
    other = [
        (key, old[key], split)
        for key, split in zip(_keys(now), now.splits, strict=True)
        if key in old and old[key] != split
    ]
    if not other:
        return ["the split has other examples"]
    key, was, is_now = other[0]
    return [
        f"{_images(other)} in another split: {_names([one[0] for one in other])} "
        f"({key[1]}: {was or 'unused'} -> {is_now or 'unused'})"
    ]


def _keys(table: ExampleTable) -> list[Key]:
    return list(zip(table.origins, table.ids, strict=True))


def _images(found: Sequence[object]) -> str:
    return f"{len(found)} image{'s' * (len(found) != 1)}"


def _names(keys: Sequence[Key]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(name for _, name in keys[:_NAMED]) + more
