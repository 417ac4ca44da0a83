"""Strategies, regularisers and sources of other installed packages: entry points of the group `headstart.plugins`.

An entry point names a `Plugin`:

    [project.entry-points."headstart.plugins"]
    mine = "my_package.headstart:PLUGIN"

Only what is installed is ever imported; a config names entries and never code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from headstart.errors import ConfigError

GROUP = "headstart.plugins"
Own = TypeVar("Own")


@dataclass(frozen=True)
class OwnStrategy:
    """A strategy: a dataclass of options, derived from `StrategyConfig`, and what it says of each phase.

    `stages(config, layers, timing)` returns a list of `headstart.strategies.Stage`.
    """

    config: type
    stages: Callable[[Any, Any, Any], list[Any]]


@dataclass(frozen=True)
class OwnRegularizer:
    """A regulariser: a dataclass of options, derived from `RegularizerConfig`, and what makes the penalty.

    `build(config, parts)` returns a `headstart.strategies.penalties.Penalty`; `parts` are its `Parts`.
    """

    config: type
    build: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class OwnSource:
    """A source of images: a dataclass of options, derived from `DataConfig`, and what lists the examples.

    `open(config)` returns a `headstart.data.source.Source`; it raises DataError where there are none.
    """

    config: type
    open: Callable[[Any], Any]


@dataclass(frozen=True)
class Plugin:
    """What a package adds, by the names that configs use."""

    strategies: Mapping[str, OwnStrategy] = field(default_factory=dict)
    regularizers: Mapping[str, OwnRegularizer] = field(default_factory=dict)
    sources: Mapping[str, OwnSource] = field(default_factory=dict)


@lru_cache
def plugins() -> tuple[Plugin, ...]:
    """The plugins of all installed packages.

    Raises ConfigError for an entry point that does not load, or is no Plugin: a config may depend on it.
    """
    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            plugin = entry.load()
        except Exception as error:
            raise ConfigError(f"plugin {entry.name} ({entry.value}): does not load ({error}).") from error
        if not isinstance(plugin, Plugin):
            raise ConfigError(f"plugin {entry.name} ({entry.value}): is no headstart.plugins.Plugin.")
        found.append(plugin)
    return tuple(found)


def plugin_strategies() -> dict[str, OwnStrategy]:
    """Strategies of plugins by name; raises ConfigError for a name that two have."""
    return _distinct([plugin.strategies for plugin in plugins()], "strategy")


def plugin_regularizers() -> dict[str, OwnRegularizer]:
    """Regularisers of plugins by name; raises ConfigError for a name that two have."""
    return _distinct([plugin.regularizers for plugin in plugins()], "regularizer")


def plugin_sources() -> dict[str, OwnSource]:
    """Sources of images of plugins by name; raises ConfigError for a name that two have."""
    return _distinct([plugin.sources for plugin in plugins()], "source of data")


def without_clash(own: Mapping[str, Any], plugged: Mapping[str, Any], what: str) -> None:
    """Raise ConfigError where a plugin's name is Headstart's own: a config would mean two things."""
    for name in plugged:
        if name in own:
            raise ConfigError(f"a plugin has a {what} called {name}, which is one of Headstart's own; rename it.")


def _distinct(offered: Sequence[Mapping[str, Own]], what: str) -> dict[str, Own]:
    found: dict[str, Own] = {}
    for several in offered:
        for name, own in several.items():
            if name in found:
                raise ConfigError(f"two plugins have a {what} called {name}; remove or rename one.")
            found[name] = own
    return found
