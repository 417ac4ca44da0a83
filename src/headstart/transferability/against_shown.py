"""Names that others wrote, in what `headstart rank --against` found, made safe for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from headstart.printable import one_line
from headstart.transferability.against import Against


def in_lines(against: Against) -> Against:
    """The same with every control character of its texts as an escape, line feeds and tabs too."""
    found: Against = _shown(against)
    return found


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {field.name: _shown(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **own)
    if isinstance(value, Mapping):
        return {_shown(key) if isinstance(key, str) else key: _shown(one) for key, one in value.items()}
    return tuple(_shown(one) for one in value) if isinstance(value, tuple) else value
