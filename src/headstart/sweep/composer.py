"""Composing the jobs of a sweep: once per combination of group choices, values applied to copies."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from headstart.config.compose import CHOOSERS, checked, checked_plain, compose_node
from headstart.config.schema.root import Config
from headstart.errors import ConfigError


class Composer:
    """Configs of overrides, as Hydra composes them; lives inside `configs()`.

    Hydra takes a tenth of a second per composition. Most jobs of a sweep differ in values alone, which it
    would apply to the composed config at its very end; that is done here, on plain copies. Whatever is not a
    plain value of a key that is there goes through Hydra itself, errors included.
    """

    def __init__(self) -> None:
        self._composed: dict[tuple[str, ...], dict[str, Any] | None] = {}

    def config(self, values: Mapping[str, str]) -> Config:
        """The checked config of overrides, given as key -> text; raises ConfigError as composing does."""
        texts = tuple(f"{key}={text}" for key, text in values.items())
        chosen = tuple(f"{key}={text}" for key, text in values.items() if key in CHOOSERS)
        if chosen not in self._composed:
            try:
                self._composed[chosen] = _plain(chosen)
            except ConfigError:
                self._composed[chosen] = None
        base = self._composed[chosen]
        if base is not None:
            plain = copy.deepcopy(base)
            if all(_put(plain, key, text) for key, text in values.items() if key not in CHOOSERS):
                try:
                    return checked_plain(plain)
                except ConfigError:
                    pass  # said as Hydra would say it
        return checked(compose_node(texts))


def _plain(chosen: tuple[str, ...]) -> dict[str, Any] | None:
    """The composed config as plain data, or None where a value refers to another."""
    node = compose_node(chosen)
    own = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
    plain = OmegaConf.to_container(own, resolve=False)
    if "${" in repr(plain):
        return None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _put(plain: dict[str, Any], key: str, text: str) -> bool:
    """Set a key that is there to a value that is no mapping; False where that is not so."""
    value = _value(key, text)
    *parents, last = key.split(".")
    node: Any = plain
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict) or isinstance(value, dict):
        return False
    if "${" in str(text):
        return False
    node[last] = copy.deepcopy(value)
    return True


@functools.lru_cache(maxsize=10_000)
def _value(key: str, text: str) -> Any:
    return OverridesParser.create().parse_override(f"{key}={text}").value()
