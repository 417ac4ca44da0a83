"""Picking runs out and putting them in order: `backbone=resnet50`, `test/accuracy_micro>0.9`, `-seconds.total`."""

from __future__ import annotations

import fnmatch
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.listing import Runs, flat_record
from headstart.config.schema.root import DISCRIMINATORS
from headstart.errors import RecordError, did_you_mean
from headstart.records.schema import RunRecord

_PATTERN = re.compile(r"\s*([A-Za-z_][\w./@-]*?)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", re.S)
_ORDERED: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Filter:
    """A condition on a run."""

    key: str
    sign: str
    value: str

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a run with these values meets it; one that lacks the key does not, but for `!=`."""
        found = values.get(self.key)
        if self.sign in _ORDERED:
            if isinstance(found, bool) or not isinstance(found, int | float):
                return False
            return _ORDERED[self.sign](float(found), float(self.value))
        return _equal(self.key, found, self.value) == (self.sign == "=")


def parse_filter(text: str) -> Filter:
    """Read `KEY=VALUE`, with =, !=, >, >=, < or <=; raises RecordError for anything else."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise RecordError(
            f"--filter {text}: does not parse; write a key, one of = != > >= < <=, and a value, such as "
            "'test/accuracy_micro>0.9' or backbone=resnet50."
        )
    key, sign, value = match.groups()
    if sign in _ORDERED:
        try:
            float(value)
        except ValueError as error:
            raise RecordError(
                f"--filter {text}: {sign} compares numbers, and {value or 'nothing'} is none."
            ) from error
    return Filter(key, sign, value)


def select(runs: Runs, filters: Sequence[str], sort: str | None) -> Runs:
    """The runs that meet every filter, in the order asked for: `KEY` rising, `-KEY` falling, without it last.

    Keys are those of a record and of its config (`optimizer.lr`, `data.batch_size`), names of metrics (of an
    evaluation `test@stl10/accuracy_micro`), and groups for what was chosen of them (`strategy=full`). `=` takes `*`
    and `?`, and a backbone without its tag. Raises RecordError for a filter that does not parse, or a key that no
    run has.
    """
    parsed = [parse_filter(text) for text in filters]
    values = {folder: values_of(record) for folder, record in runs}
    known = dict.fromkeys(key for found in values.values() for key in found)
    for one in parsed:
        _check(one.key, known, f"--filter {one.key}")
    chosen = [(folder, record) for folder, record in runs if all(one.holds(values[folder]) for one in parsed)]
    if sort is None:
        return chosen
    falling, key = sort.startswith("-"), sort.removeprefix("-")
    _check(key, known, f"--sort {key}")
    have = [run for run in chosen if values[run[0]].get(key) is not None]
    numbers = [run for run in have if _is_number(values[run[0]][key])]
    words = [run for run in have if not _is_number(values[run[0]][key])]
    numbers.sort(key=lambda run: float(values[run[0]][key]), reverse=falling)
    words.sort(key=lambda run: str(values[run[0]][key]), reverse=falling)
    return [*numbers, *words, *(run for run in chosen if values[run[0]].get(key) is None)]


def values_of(record: RunRecord) -> dict[str, Any]:
    """What can be asked of a run, by key."""
    flat = flat_record(record)
    values = {key.removeprefix("config.").removeprefix("metrics."): value for key, value in flat.items()}
    for group, kind in DISCRIMINATORS.items():
        node = record.config.get(group)
        if isinstance(node, dict):
            values[group] = node.get(kind)
    values["backbone"] = record.config["backbone"].get("name")
    values["sweep"] = record.launched_by
    values["regularizer"] = ",".join(record.config.get("regularizer") or {}) or None
    return values


def _check(key: str, known: Mapping[str, None], what: str) -> None:
    if known and key not in known:
        hint = did_you_mean(key, known) or " `headstart runs --format json` and run.json show what there is."
        raise RecordError(f"{what}: no run has it.{hint}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(key: str, found: Any, wanted: str) -> bool:
    if found is None:
        return wanted in ("null", "none", "")
    if _is_number(found):
        try:
            return float(found) == float(wanted)
        except ValueError:
            return False
    text = found if isinstance(found, str) else json.dumps(found)
    if fnmatch.fnmatchcase(text, wanted):
        return True
    return key in ("backbone", "backbone.name") and fnmatch.fnmatchcase(text.partition(".")[0], wanted)
