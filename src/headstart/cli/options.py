"""Every option of an experiment, its meaning and its default, from the schema's own texts."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from omegaconf import MISSING

from headstart.config.choices import group_choices
from headstart.config.schema.root import GROUPS, Config, kinds_of, metadata_of, regularizer_kinds


def describe_options(config_dirs: tuple[str, ...] = ()) -> str:
    """The help of `headstart train`, wrapped to the terminal."""
    width = min(110, max(60, shutil.get_terminal_size().columns))
    lines: list[str] = []
    for group in GROUPS:
        kinds = kinds_of(group)
        choices = group_choices(group, config_dirs)
        lines += ["", *textwrap.wrap(f"{group}={' | '.join(choices)}", width, subsequent_indent="    ")]
        common = _common(list(kinds.values()))
        for name in common:
            lines += _option(f"{group}.{name}", metadata_of(next(iter(kinds.values())))[name], width)
        for kind, cls in kinds.items():
            own = [
                name for name, field in metadata_of(cls).items() if name not in common and "help" in field.metadata
            ]
            own = [name for name in own if not _is_kind(metadata_of(cls)[name])]
            if len(kinds) > 1:
                lines += textwrap.wrap(
                    f"{group}={kind}: {(cls.__doc__ or '').strip()}",
                    width,
                    initial_indent="  ",
                    subsequent_indent="      ",
                )
            for name in own:
                lines += _option(f"{group}.{name}", metadata_of(cls)[name], width)
    lines += ["", f"regularizer=[...], any of {' | '.join(regularizer_kinds())}"]
    for name, cls in regularizer_kinds().items():
        said = f"regularizer=[{name}]: {(cls.__doc__ or '').strip()}"
        lines += textwrap.wrap(said, width, initial_indent="  ", subsequent_indent="      ")
        for key, field in metadata_of(cls).items():
            lines += _option(f"regularizer.{name}.{key}", field, width)
    lines += ["", f"experiment={' | '.join(group_choices('experiment', config_dirs))}"]
    lines += ["    Whole experiments; each file says what it does and what came out.", ""]
    for key, field in _rest():
        lines += _option(key, field, width)
    return "\n".join(lines).lstrip("\n")


def all_keys() -> dict[str, dataclasses.Field[Any]]:
    """Every key that an override can set, with its field; of a key that several kinds have, the first."""
    keys: dict[str, dataclasses.Field[Any]] = {}
    for group in GROUPS:
        for cls in kinds_of(group).values():
            for name, field in metadata_of(cls).items():
                if field.metadata and not _is_kind(field):
                    keys.setdefault(f"{group}.{name}", field)
    for name, cls in regularizer_kinds().items():
        keys |= {f"regularizer.{name}.{key}": field for key, field in metadata_of(cls).items()}
    return keys | dict(_rest())


def _rest() -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    for name, field in metadata_of(Config).items():
        if field.metadata:
            yield name, field
        elif name not in (*GROUPS, "regularizer"):
            for inner, inner_field in metadata_of(field.default_factory).items():  # type: ignore[arg-type]
                yield f"{name}.{inner}", inner_field


def _common(classes: list[type]) -> list[str]:
    """Options that every kind of a group has, with the same default and meaning."""
    first = metadata_of(classes[0])
    return [
        name
        for name, field in first.items()
        if field.metadata
        and not _is_kind(field)
        and all(
            name in metadata_of(cls)
            and default_of(metadata_of(cls)[name]) == default_of(field)
            and metadata_of(cls)[name].metadata == field.metadata
            for cls in classes
        )
    ]


def _is_kind(field: dataclasses.Field[Any]) -> bool:
    """Whether a field only repeats which kind was chosen."""
    return not field.metadata or "choose it with" in field.metadata["help"]


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _option(key: str, field: dataclasses.Field[Any], width: int) -> list[str]:
    default, rule = default_of(field), field.metadata
    if default == MISSING:
        shown = "required"
    elif default is None:
        shown = f"default: {rule['auto'] or 'none'}"
    else:
        shown = f"default: {str(default).lower() if isinstance(default, bool) else default}"
    choices = f" One of {', '.join(rule['choices'])}." if rule["choices"] else ""
    text = f"{rule['help']}{choices} ({shown})"
    return [
        f"    {key}",
        *textwrap.wrap(text, width, initial_indent="        ", subsequent_indent="        "),
    ]
