"""From overrides and an experiment's own lists to the jobs of a sweep, each composed and checked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from headstart.config.compose import checked, compose_node, configs, parse
from headstart.config.plain import to_plain
from headstart.config.schema.root import Config, SweepConfig
from headstart.errors import ConfigError

_SHOWN_ERRORS = 8


@dataclass(frozen=True)
class Job:
    """One run to be: what it was asked for with, and the checked config."""

    overrides: tuple[str, ...]
    varied: tuple[str, ...]
    """The overrides in which the jobs of the sweep differ."""
    config: Config


@dataclass(frozen=True)
class Jobs:
    """The jobs of a sweep, in the order in which they run."""

    name: str
    jobs: tuple[Job, ...]
    duplicates: int


def expand(overrides: Sequence[str], *, config_dirs: tuple[str, ...] = ()) -> Jobs:
    """Expand `a=1,2`, choice(), range() and glob(), and the lists of an experiment file.

    An experiment's `sweep.list` and `sweep.grid` are combined with each other and with the command line; a
    key that the command line names replaces the file's. Hydra's own `hydra.sweeper.params` are read too.
    Raises ConfigError that lists every job that cannot be.
    """
    with configs(config_dirs):
        axes = [_values(override) for override in parse(overrides)]
        chosen = next((axis for axis in axes if axis[0][0] == "experiment"), [("experiment", "null")])
        rest = [axis for axis in axes if axis[0][0] != "experiment"]
        asked: list[dict[str, str]] = []
        for experiment in chosen:
            from_file = _file_jobs(experiment)
            for combination in itertools.product(*rest):
                asked += [{**dict([experiment]), **job, **dict(combination)} for job in from_file]
        asked = [{k: v for k, v in job.items() if (k, v) != ("experiment", "null")} for job in asked]
        total = len(asked)
        asked = [dict(items) for items in dict.fromkeys(tuple(job.items()) for job in asked)]
        fixed = {item for item in (asked[0].items() if asked else ()) if all(item in job.items() for job in asked)}
        jobs, errors, seen, duplicates = [], [], set(), total - len(asked)
        for wanted in asked:
            texts = tuple(f"{key}={value}" for key, value in wanted.items())
            varied = tuple(f"{key}={value}" for key, value in wanted.items() if (key, value) not in fixed)
            try:
                config = checked(compose_node(texts))
            except ConfigError as error:
                errors.append(f"{' '.join(varied) or 'the job'}: {error}")
                continue
            config.sweep = SweepConfig()
            identity = json.dumps(to_plain(config), sort_keys=True)
            if identity in seen:
                duplicates += 1
                continue
            seen.add(identity)
            jobs.append(Job(texts, varied, config))
    if errors:
        raise ConfigError(listed(errors, of=len(asked)))
    if not jobs:
        raise ConfigError("the sweep has no jobs: an axis is empty.")
    names = "-".join(value for _, value in chosen if value != "null")
    return Jobs(name=names or "sweep", jobs=tuple(jobs), duplicates=duplicates)


def listed(errors: Sequence[str], *, of: int) -> str:
    """Every wrong job, or the first few of many."""
    if len(errors) == 1 and of == 1:
        return errors[0].removeprefix("the job: ")
    reasons = dict.fromkeys(error.partition(": ")[2] for error in errors)
    if len(reasons) == 1 and len(errors) == of:
        return next(iter(reasons))
    more = f"\n... and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return f"{len(errors)} of {of} jobs cannot run:\n" + "\n".join(errors[:_SHOWN_ERRORS]) + more


def _values(override: Override) -> list[tuple[str, str]]:
    """Each value that an override gives its key, as text."""
    key = override.get_key_element().lstrip("+")
    if not override.is_sweep_override():
        return [(key, override.get_value_element_as_str())]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: an interval has no end of values; use range() or choice().")
    try:
        values = [(key, text) for text in override.sweep_iterator(transformer=Transformer.encode)]
    except HydraException as error:
        raise ConfigError(f"{override.input_line}: {error}") from error
    if not values:
        raise ConfigError(f"{override.input_line}: gives no values.")
    return values


def _file_jobs(experiment: tuple[str, str]) -> list[dict[str, str]]:
    """The jobs that an experiment file lists, as key -> value text; one empty job where it lists none."""
    if experiment[1] == "null":
        return [{}]
    node = compose_node([f"{experiment[0]}={experiment[1]}"])
    where = f"experiment={experiment[1]}"
    entries = _plain(node, "sweep.list", list, where) or [{}]
    grid = _plain(node, "sweep.grid", dict, where)
    axes: list[list[tuple[str, str]]] = []
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{where}: sweep.grid.{key} must be a list of values.")
        axes.append([(str(key), _text(value)) for value in values])
    params = node.hydra.sweeper.get("params") if "sweeper" in node.hydra else None
    for key, value in (params or {}).items():
        axes += [_values(override) for override in parse([f"{key}={value}"])]
    jobs = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise ConfigError(f"{where}: an entry of sweep.list must be keys with values, not {entry!r}.")
        own = {str(key): _text(value) for key, value in entry.items()}
        jobs += [{**own, **dict(combination)} for combination in itertools.product(*axes)]
    return jobs


def _plain(node: DictConfig, key: str, kind: type, where: str) -> Any:
    value = OmegaConf.select(node, key)
    value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{where}: {key} must be a {kind.__name__}, not {value!r}.")
    return value or kind()


def _text(value: Any) -> str:
    """A value as Hydra's override grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_text(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not _plain_word(value):
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)


def _plain_word(value: str) -> bool:
    return value.isascii() and bool(value) and all(c.isalnum() or c in "_-./" for c in value)


def describe_varied(jobs: Iterable[Job]) -> list[str]:
    """What each job differs in, for people."""
    return [" ".join(job.varied) or "one run" for job in jobs]
