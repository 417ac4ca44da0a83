"""A `Config` as plain data and back: what `config.yaml` of a run holds."""

from __future__ import annotations

import copy
import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.config.schema.launcher import LocalConfig
from headstart.config.schema.root import (
    DISCRIMINATORS,
    GROUPS,
    LAUNCH,
    Config,
    kinds_of,
    metadata_of,
    regularizer_kinds,
    schema_of,
)
from headstart.config.schema.search import NoSearchConfig
from headstart.errors import ConfigError, did_you_mean


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence for a key that does not exist, with the nearest that does."""
    *parents, last = key.split(".")
    prefix = ".".join(parents)
    hint = did_you_mean(last, known)
    owners = [
        kind for kind, cls in (kinds_of(prefix) if prefix in GROUPS else {}).items() if last in metadata_of(cls)
    ]
    if owners and not hint:
        hint = f" It belongs to {' and '.join(f'{prefix}={kind}' for kind in owners)}."
    elif prefix and known and not hint:
        hint = f" {prefix} has: {', '.join(known)}."
    elif not hint:
        hint = " `headstart train --help` lists every key."
    return f"{key}: there is no such key.{hint}"


def to_plain(config: Config) -> dict[str, Any]:
    """Plain dictionaries, lists and scalars; `yaml.safe_load` reads what `yaml.safe_dump` makes of it."""
    plain = dataclasses.asdict(config)
    for key in LAUNCH:
        plain.pop(key)
    return plain


def from_plain(plain: dict[str, Any]) -> Config:
    """Build a `Config` from plain data, strictly.

    Raises ConfigError for an unknown key or kind, a wrong type, or a required value left unset.
    """
    fields = metadata_of(Config)
    for key in plain:
        if key not in fields:
            raise ConfigError(unknown_key(str(key), list(fields)))
    for key in GROUPS:
        if key not in plain and key not in LAUNCH:
            raise ConfigError(f"{key} is missing.")
    parts: dict[str, Any] = {}
    for key, value in plain.items():
        if key in GROUPS:
            if not isinstance(value, dict):
                raise ConfigError(f"{key}: expected a group of options, found {value!r}.")
            parts[key] = _part(_kind(key, value), value, key)
        elif key == "regularizer":
            parts[key] = {
                name: _part(_regularizer(name), options or {}, f"{key}.{name}")
                for name, options in _named(value).items()
            }
        elif dataclasses.is_dataclass(fields[key].default_factory):
            parts[key] = _part(fields[key].default_factory, value, key)  # type: ignore[arg-type]
    rest = {key: value for key, value in plain.items() if key not in parts}
    parts.setdefault("launcher", LocalConfig())  # a saved config has none of these
    parts.setdefault("search", NoSearchConfig())
    scalars = _part(_scalars(), rest, "")
    return Config(**parts, **{f.name: getattr(scalars, f.name) for f in dataclasses.fields(scalars)})


def dumped(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML; by libyaml where it is there, which takes a quarter of the time."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(dict(plain), Dumper=dumper, sort_keys=False, allow_unicode=True)
    return text


MOST_VALUES = 1_000_000
"""Of a saved config; a list of classes is the longest that there is."""


def read_config(path: Path) -> Config:
    """Read a saved `config.yaml`; raises ConfigError where it is missing or not a config."""
    try:
        plain = _loaded(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__}).") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: is not plain YAML ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: holds no config.")
    for count, value in enumerate(_nodes(plain)):
        if count > MOST_VALUES:  # aliases of aliases make billions out of a few lines
            raise ConfigError(f"{path}: holds more than {MOST_VALUES:,} values.")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{path}: a saved config holds values, not ${{...}} references.")
    try:
        return from_plain(plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _loaded(text: str) -> Any:
    """What YAML says; raises as `yaml.safe_load` does.

    LibYAML takes a tenth of the time. It recurses in C, where nothing stops it: it gets only what cannot be deep.
    """
    brackets = text.count("[") + text.count("{")
    if brackets <= _DEEPEST and max(map(len, text.splitlines()), default=0) <= _DEEPEST:
        with suppress(AttributeError, yaml.YAMLError):
            return yaml.load(text, Loader=yaml.CSafeLoader)
    return yaml.safe_load(text)


_DEEPEST = 400


@functools.cache
def _scalars() -> type:
    """The fields of `Config` that are in no group, as a dataclass of their own."""
    hints = typing.get_type_hints(Config)
    return dataclasses.make_dataclass(
        "Scalars",
        [(f.name, hints[f.name], _default_of(f)) for f in dataclasses.fields(Config) if f.metadata],
    )


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field(default=field.default)


def _part(cls: type, value: Any, where: str) -> Any:
    """`value` as an object of `cls`; `where` is its place. Raises ConfigError where it does not fit."""
    key = (cls, repr(value))
    if key not in _PARTS:
        if len(_PARTS) > _PARTS_KEPT:
            _PARTS.clear()
        _PARTS[key] = _build(cls, value, f"{where}." if where else "")
    return copy.deepcopy(_PARTS[key])


_PARTS: dict[tuple[type, str], Any] = {}
"""Parts that have been built and checked: the jobs of a sweep share most of them, and each takes milliseconds."""
_PARTS_KEPT = 10_000


def _build(cls: type, value: Any, prefix: str) -> Any:
    known = metadata_of(cls)
    if not isinstance(value, dict):
        raise ConfigError(f"{prefix.removesuffix('.')}: expected a group of options, found {value!r}.")
    for name in value:
        if name not in known:
            raise ConfigError(unknown_key(f"{prefix}{name}", list(known)))
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), value)
        for key in sorted(OmegaConf.missing_keys(merged)):
            raise ConfigError(f"{prefix}{key} is required: {known[key].metadata['help'] if key in known else ''}")
        return OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, OverflowError) as error:
        where = getattr(error, "full_key", None)
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{prefix}{where}: {reason}." if where else reason) from error


def _kind(group: str, node: dict[str, Any]) -> type:
    try:
        return schema_of(group, node)
    except (KeyError, TypeError):
        key = DISCRIMINATORS[group]
        kinds = list(kinds_of(group))
        kind = node.get(key)
        if kind in (None, "???"):
            raise ConfigError(f"{group}.{key} is required: one of {', '.join(kinds)}.") from None
        hint = did_you_mean(str(kind), kinds) or f" One of {', '.join(kinds)}."
        raise ConfigError(f"{group}.{key}={kind}: there is no such {group}.{hint}") from None


def _named(value: Any) -> dict[str, Any]:
    """Options of the regularisers of a plain config by name; raises ConfigError where it is no mapping."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(options, dict | None) for options in value.values()):
        raise ConfigError(f"regularizer: expected names with options, such as {{l2_sp: {{}}}}, found {value!r}.")
    return {str(name): options for name, options in value.items()}


def _regularizer(name: str) -> type:
    kinds = regularizer_kinds()
    if name not in kinds:
        hint = did_you_mean(name, kinds) or f" There are: {', '.join(kinds)}."
        raise ConfigError(f"regularizer.{name}: there is no such regularizer.{hint}")
    return kinds[name]


def _nodes(node: Any) -> Iterator[Any]:
    """Nested plain data, part by part, walked without recursion: a hostile file may be deep."""
    todo = [node]
    while todo:
        item = todo.pop()
        yield item
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
