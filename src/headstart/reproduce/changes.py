"""What differs between what a result was made of and what is there now, the likeliest cause first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config.identity import DATA_PLACE
from headstart.config.plain import from_plain, to_plain
from headstart.errors import ConfigError, RecordError
from headstart.records.example_changes import data_changes, split_changes
from headstart.records.examples import EXAMPLES, ExampleTable, read_examples
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG
from headstart.reproduce.machine import code_changes, device_changes, machine_changes, package_changes

CAUSES = ("record", "config", "data", "weights", "packages", "code", "machine")
"""Kinds of ingredients, in the order in which they are suspected."""
FOLLOWS = ("split", "transform", "order", "first images", "initial weights")
"""What is made of them; where one of these differs alone, it is a cause itself."""


@dataclass(frozen=True)
class Change:
    """One ingredient that is not what it was."""

    kind: str
    """One of `CAUSES` or `FOLLOWS`."""
    text: str
    matters: bool = True
    """Whether it can change a result."""

    @property
    def rank(self) -> tuple[bool, int]:
        """By which changes are sorted: what cannot matter comes last."""
        return (not self.matters, (*CAUSES, *FOLLOWS).index(self.kind))


def changes(
    before: RunRecord,
    now: RunRecord,
    *,
    folder: Path | None,
    config: Mapping[str, Any],
    examples: ExampleTable | None,
    altered: Iterable[str] = (),
) -> list[Change]:
    """All differences, sorted; `folder` has the files of the run `before`, `config` is what its config.yaml says.

    `now` and `examples` say what a run would be made of at this moment; `altered` names files of the folder that
    are not what the record says of them.
    """
    altered = set(altered)
    # what was changed in the config is named key by key
    found = [Change("record", f"{name} was changed after the run") for name in sorted(altered - {CONFIG})]
    found += _config(before.config, config)
    known = _examples(folder) if EXAMPLES not in altered else None
    if before.data.get("fingerprint") != now.data.get("fingerprint"):
        found += [Change("data", text) for text in data_changes(known, examples)]
    if before.data.get("split_fingerprint") != now.data.get("split_fingerprint"):
        found += [Change("split", text) for text in split_changes(known, examples)]
    found += _weights(before.weights, now.weights)
    found += [Change("packages", *said) for said in package_changes(before.environment, now.environment)]
    found += [Change("code", *said) for said in code_changes(before.environment, now.environment)]
    for earlier in before.environment.get("earlier", ()):
        # what it was resumed under is compared with `now` above
        found += [
            Change(kind, f"the run began under another, and was resumed: {text}", matters)
            for kind, lines in (
                ("packages", package_changes(earlier, before.environment)),
                ("code", code_changes(earlier, before.environment)),
                ("machine", device_changes(earlier, before.environment)),
            )
            for text, matters in lines
        ]
    found += [Change("machine", *said) for said in machine_changes(before, now)]
    found += _made_of_them(before, now)
    return sorted(found, key=lambda change: change.rank)


def _examples(folder: Path | None) -> ExampleTable | None:
    if folder is None:
        return None
    try:
        return read_examples(folder / EXAMPLES)
    except RecordError:
        return None


_PLACE = {
    ("output_dir",), ("logger",), ("launcher",), *(("data", key) for key in DATA_PLACE),
    ("weights", "path"), ("trainer", "progress"), ("trainer", "pictures"),
}  # fmt: skip
"""Keys that say where things lie and how they look."""


def _config(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    lines = []
    # options that came later have their defaults in an older config
    with suppress(ConfigError):
        before = to_plain(from_plain(dict(before)))
    for path, old, new in _differences(before, now, ()):
        if path[:1] not in _PLACE and path[:2] not in _PLACE:
            lines.append(Change("config", f"{'.'.join(path)}: {_shown(old)} -> {_shown(new)}"))
    return lines


_ABSENT = "(not there)"


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            if key in old and key in new:
                yield from _differences(old[key], new[key], (*path, str(key)))
            else:
                yield (*path, str(key)), old.get(key, _ABSENT), new.get(key, _ABSENT)
    elif old != new:
        yield path, old, new


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _weights(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    old, new = before.get("file_sha256"), now.get("file_sha256")
    if old == new:
        return []
    revisions = [weights.get("revision") for weights in (before, now)]
    said = f", revision {revisions[0]} -> {revisions[1]}" if revisions[0] != revisions[1] else ""
    name = now.get("name") or before.get("name")
    initial = before.get("initial_sha256")
    same = initial is not None and initial == now.get("initial_sha256")
    text = f"{name}: the file is another{said} (SHA-256 {_short(old)} -> {_short(new)})"
    return [Change("weights", f"{text}, with the same tensors" if same else text, matters=not same)]


def _made_of_them(before: RunRecord, now: RunRecord) -> list[Change]:
    found = []
    old, new = before.data.get("transform", {}), now.data.get("transform", {})
    for which, name in (("train", "of training"), ("eval", "of evaluation")):
        if old.get(which) != new.get(which):
            text = f"{name}: {_around(str(old.get(which)), str(new.get(which)))}"
            found.append(Change("transform", text))
    for kind, key, where in (
        ("order", "order_fingerprint", "data"),
        ("first images", "first_images_sha256", "data"),
        ("initial weights", "initial_sha256", "weights"),
    ):
        was, is_now = getattr(before, where).get(key), getattr(now, where).get(key)
        if was is not None and was != is_now:
            found.append(Change(kind, f"{_short(was)} -> {_short(is_now)}"))
    return found


def _around(old: str, new: str, *, width: int = 60) -> str:
    """The parts of two texts in which they differ."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    start = max(0, start - 20)
    return f"...{old[start : start + width]}... -> ...{new[start : start + width]}..."


def _short(digest: Any) -> str:
    return str(digest)[:10] if digest else "none"
