"""One option of the config: its default, its meaning and the values it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import MISSING


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    auto: str | None = None,
    hint: str | None = None,
) -> Any:
    """Declare a config field; `help` is what `headstart train --help` prints of it.

    `above` and `below` are open bounds, `least` and `most` closed ones; they hold for every number in a
    list as well. `auto` says what stands in for a default of null, `hint` what to do instead of a value out of
    bounds.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "above": above,
        "least": least,
        "most": most,
        "below": below,
        "auto": auto,
        "hint": hint,
    }
    if isinstance(default, list | dict):
        factory: Callable[[], Any] = default.copy
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, **bounds: Any) -> Any:
    """Declare a config field that a person must set."""
    return option(MISSING, help, **bounds)
