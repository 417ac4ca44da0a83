"""In what candidates of one backbone and the same weights differ: their own overrides, and their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.transferability.ranking import Ranked

_GROUPS = ("backbone", "weights", "head")
_KNOWN_ELSEWISE = ("backbone.name", "backbone.library", "weights.source", "weights.path")
"""What a ranking keeps resolved; of weights their digest."""


def own_options(candidate: Ranked) -> dict[str, Any]:
    """Its overrides that a run of it must share, such as `head.pool`: key -> value."""
    found = {}
    for text in candidate.overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key.partition(".")[0] in _GROUPS and "." in key and key not in _KNOWN_ELSEWISE:
            found[key] = _value(f"{key}={value}")
    return {key: value for key, value in found.items() if value != "auto"}  # a record may say what it came to


def fits(candidate: Ranked, config: Mapping[str, Any]) -> bool:
    """Whether the config of a run says what the candidate's own overrides say."""
    return all(_of(config, key) == value for key, value in own_options(candidate).items())


def own_seed(candidate: Ranked, among: Sequence[Ranked]) -> int | None:
    """The seed that runs of it must have: that of its random numbers where another candidate differs from it in the
    seed alone. Else None: runs with several seeds are repeats of the one candidate."""
    seed: int | None = candidate.weights.get("seed")
    twins = [one.weights.get("seed") for one in among if one.name != candidate.name and _is_twin(one, candidate)]
    return seed if seed is not None and any(other != seed for other in twins) else None


def _is_twin(one: Ranked, other: Ranked) -> bool:
    return _but_for_seed(one) == _but_for_seed(other)


def _but_for_seed(one: Ranked) -> tuple[Any, ...]:
    weights = one.weights
    return (
        one.backbone.partition(".")[0],
        one.library,
        weights.get("source"),
        weights.get("sha256"),
        own_options(one),
    )


def _of(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _value(override: str) -> Any:
    """What an override sets, as Hydra reads it; its text where Hydra cannot."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override).value()
    except HydraException:
        return override.partition("=")[2]
