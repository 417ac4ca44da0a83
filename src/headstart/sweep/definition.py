"""What an experiment file or a sweep file says of its jobs, read strictly and multiplied out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headstart.config.schema.sweep import SweepConfig
from headstart.errors import ConfigError
from headstart.sweep.space import Space, read_space
from headstart.sweep.stages import NAME, Asked

TUNE = "tune"
"""The key of a list entry that says what is tuned for it, beside and before what is tuned for all."""

_CONDITIONAL = ("when", "grid")

Lookup = Callable[[Asked, str], str]
"""The value that a key has in a job, as text: given or composed."""


@dataclass(frozen=True)
class Entry:
    """One entry of `list`."""

    name: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    tune: Space = ()


@dataclass(frozen=True)
class Definition:
    """The sweep's own part of a file, checked; values are texts of Hydra's override grammar."""

    where: str
    entries: tuple[Entry, ...] = (Entry(),)
    zipped: tuple[dict[str, str], ...] = ({},)
    """The rows of `zip`."""
    grid: Mapping[str, Sequence[str]] = field(default_factory=dict)
    conditional: tuple[tuple[dict[str, tuple[str, ...]], Mapping[str, Sequence[str]]], ...] = ()
    exclude: tuple[dict[str, tuple[str, ...]], ...] = ()
    curve: tuple[str, ...] = ()
    name: str | None = None
    plain: dict[str, Any] = field(default_factory=dict)
    """All of this as it was read."""

    @property
    def keys(self) -> set[str]:
        """All keys that it sets."""
        keys = {key for entry in self.entries for key in entry.values} | set(self.grid)
        keys |= {key for row in self.zipped for key in row}
        return keys | {key for _, grid in self.conditional for key in grid}

    def jobs(self) -> list[Asked]:
        """Every entry with every row and combination; conditions and exclusions come later."""
        jobs = []
        for entry in self.entries:
            for row in self.zipped:
                for values in _product(self.grid):
                    ground = {**row, **values}
                    jobs.append(Asked({**entry.values, **ground}, entry.name, ground, tune=entry.tune))
        return jobs

    def conditioned(self, jobs: Sequence[Asked], value_of: Lookup) -> list[Asked]:
        """The jobs with the grids of the conditions that they meet, without those that are excluded."""
        for when, grid in self.conditional:
            jobs = [
                replace(job, values={**more, **job.values}, ground={**more, **job.ground})
                for job in jobs
                for more in (_product(grid) if _matches(job, when, value_of) else [{}])
            ]
        return [job for job in jobs if not any(_matches(job, rule, value_of) for rule in self.exclude)]


def read_definition(sweep: SweepConfig, params: Mapping[str, Sequence[str]], *, where: str) -> Definition:
    """Read the sweep's part of a composed config; `params` are further axes, Hydra's own.

    Raises ConfigError that names the key and what it must be.
    """
    tune = _must(sweep.tune, dict, "tune", where)
    entries = [_entry(entry, tune, where) for entry in _must(sweep.list, list, "list", where) or [{}]]
    definition = Definition(
        where=where,
        entries=tuple(entries),
        zipped=_zipped(_must(sweep.zip, dict, "zip", where), where),
        grid={**_grid(_must(sweep.grid, dict, "grid", where), "grid", where), **params},
        conditional=tuple(_conditional(one, where) for one in _must(sweep.conditional, list, "conditional", where)),
        exclude=tuple(_rule(one, "exclude", where) for one in _must(sweep.exclude, list, "exclude", where)),
        curve=tuple(str(key) for key in _must(sweep.curve, list, "curve", where)),
        name=sweep.name,
    )
    for key in definition.keys & {tuned.key for entry in entries for tuned in entry.tune}:
        raise ConfigError(f"{where}: sweep.tune.{key}: is given values elsewhere too; say it once.")
    return definition


def _entry(node: Any, tune: dict[str, Any], where: str) -> Entry:
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: an entry of sweep.list must be keys with values, not {node!r}.")
    own = {str(key): text_of(value) for key, value in node.items() if key not in (NAME, TUNE)}
    space = read_space({**tune, **_must(node.get(TUNE), dict, "list.tune", where)}, where=where)
    return Entry(str(node.get(NAME, "")), own, space)


def _must(value: Any, kind: type, key: str, where: str) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{where}: sweep.{key} must be a {kind.__name__}, not {value!r}.")
    return value or kind()


def _grid(node: dict[str, Any], key: str, where: str) -> dict[str, list[str]]:
    for name, values in node.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: sweep.{key}.{name} must be a list of values.")
    return {str(name): [text_of(value) for value in values] for name, values in node.items()}


def _zipped(node: dict[str, Any], where: str) -> tuple[dict[str, str], ...]:
    columns = _grid(node, "zip", where)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise ConfigError(f"{where}: the lists of sweep.zip must be of one length; {said}.")
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)) or ({},)


def _conditional(node: Any, where: str) -> tuple[dict[str, tuple[str, ...]], dict[str, list[str]]]:
    if not isinstance(node, dict) or set(node) != set(_CONDITIONAL):
        raise ConfigError(f"{where}: an entry of sweep.conditional must be {{when: ..., grid: ...}}, not {node!r}.")
    return _rule(node["when"], "conditional.when", where), _grid(
        _must(node["grid"], dict, "conditional.grid", where), "conditional.grid", where
    )


def _rule(node: Any, key: str, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(node, dict) or not node:
        raise ConfigError(f"{where}: sweep.{key} must be keys with values, not {node!r}.")
    return {
        str(name): tuple(text_of(one) for one in (value if isinstance(value, list) else [value]))
        for name, value in node.items()
    }


def _matches(job: Asked, rule: Mapping[str, tuple[str, ...]], value_of: Lookup) -> bool:
    return all(value_of(job, key) in wanted for key, wanted in rule.items())


def _product(grid: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def text_of(value: Any) -> str:
    """A value as Hydra's override grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(text_of(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not _plain_word(value):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)


def _plain_word(value: str) -> bool:
    return value.isascii() and bool(value) and all(c.isalnum() or c in "_-./" for c in value)
