"""Which part of the model trains, where that stays the same over the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from headstart.config.schema.strategy import (
    FirstKConfig,
    FreezeFirstKConfig,
    GroupsConfig,
    LastKConfig,
    StrategyConfig,
)
from headstart.errors import ConfigError, did_you_mean
from headstart.facts import LayerMap, ParameterKind
from headstart.strategies.plan import HEAD, Timing
from headstart.strategies.stage import Stage


def full(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """Every layer group trains."""
    return [Stage(0, layers.names)]


def linear_probe(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The head alone trains."""
    return [Stage(0, (HEAD,))]


def last_k(config: LastKConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The head and the k layer groups below it train."""
    return [Stage(0, (*ordered(config, layers, k=config.k)[-config.k :], HEAD))]


def first_k(config: FirstKConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The first k layer groups and the head train."""
    return [Stage(0, (*ordered(config, layers, k=config.k)[: config.k], HEAD))]


def freeze_first_k(config: FreezeFirstKConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The first k layer groups are frozen, all above them train."""
    return [Stage(0, (*ordered(config, layers, k=config.k)[config.k :], HEAD))]


def groups(config: GroupsConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The layer groups that are named, by name or glob, and the head train."""
    chosen = matching(config.groups, layers, key="strategy.groups")
    return [Stage(0, tuple(dict.fromkeys((*chosen, HEAD))))]


def norm_only(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """The scales and shifts of all normalisations, and the head, train."""
    return [
        _of_kinds(layers, {"norm_weight", "norm_bias"}, strategy="norm_only", what="normalisation with parameters")
    ]


def bitfit(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """All biases, those of normalisations among them, and the head train (Ben Zaken et al. 2022)."""
    return [_of_kinds(layers, {"bias", "norm_bias"}, strategy="bitfit", what="biases")]


def added(config: StrategyConfig, layers: LayerMap, timing: Timing) -> list[Stage]:
    """What the strategy put into the backbone, and the head, train."""
    return [_of_kinds(layers, {"added"}, strategy=config.name, what="place for it")]


def _of_kinds(layers: LayerMap, kinds: set[ParameterKind], *, strategy: str, what: str) -> Stage:
    having = [g.name for g in layers.backbone if any(p.kind in kinds for p in g.parameters)]
    if not having:
        raise ConfigError(f"strategy={strategy}: this backbone has no {what}.")
    return Stage(0, (*having, HEAD), frozenset(kinds))


def ordered(config: StrategyConfig, layers: LayerMap, *, k: int = 1) -> list[str]:
    """The backbone's layer groups from the input up.

    Raises ConfigError where they have no order, or there are not k of them.
    """
    if layers.prefix_problem:
        raise ConfigError(f"strategy={config.name}: {layers.prefix_problem}; use full, linear_probe or groups.")
    names = [group.name for group in layers.backbone]
    if k > len(names):
        raise ConfigError(
            f"strategy.k={k}: the backbone has {len(names)} layer groups ({names[0]} ... {names[-1]})."
        )
    return names


def matching(patterns: Iterable[str], layers: LayerMap, *, key: str) -> list[str]:
    """Layer groups that the names and globs stand for, from the input up.

    Raises ConfigError for a pattern that matches none, with the groups there are.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = [name for name in layers.names if fnmatchcase(name, pattern)]
        if not matched:
            raise ConfigError(
                f"{key}: {pattern!r} matches no layer group.{did_you_mean(pattern, layers.names)} "
                f"There are: {shortened(layers.names)}."
            )
        found.update(matched)
    return [name for name in layers.names if name in found]


def shortened(names: Sequence[str]) -> str:
    """`stem, block.0 ... block.15, head`: a run of blocks is not spelt out."""
    blocks = [name for name in names if name.startswith("block.")]
    if len(blocks) < 4:
        return ", ".join(names)
    first, last = names.index(blocks[0]), names.index(blocks[-1])
    return ", ".join([*names[:first], f"{blocks[0]} ... {blocks[-1]}", *names[last + 1 :]])
