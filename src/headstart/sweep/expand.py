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
from headstart.sweep.stages import NAME, Asked, check_stage, each_group, stage_of

_SHOWN_ERRORS = 8


@dataclass(frozen=True)
class Job:
    """One run to be: what it was asked for with, and the checked config."""

    overrides: tuple[str, ...]
    varied: tuple[str, ...]
    """What tells it from the other jobs: its name, or the overrides in which they differ."""
    config: Config
    name: str = ""
    needs: int | None = None
    """The job whose weights it starts from, by its place in the sweep."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of a sweep, in the order in which they run."""

    name: str
    jobs: tuple[Job, ...]
    duplicates: int
    curve: tuple[str, ...] = ()
    """Keys of the axis of the sweep's curve, if it has one."""


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
        asked: list[Asked] = []
        curve: tuple[str, ...] = ()
        for experiment in chosen:
            start = {} if experiment[1] == "null" else dict([experiment])
            from_file, axis = _file_jobs(experiment)
            curve = curve or axis
            for combination in itertools.product(*rest):
                given = dict(combination)
                for job in from_file:
                    ground = {**start, **job.ground, **given}
                    asked.append(Asked({**start, **job.values, **given}, job.name, ground))
        asked = [one for job in asked for one in each_group(job)]
        total = len(asked)
        asked = list({json.dumps([job.name, job.values]): job for job in asked}.values())
        fixed = {item for item in asked[0].values.items() if all(item in job.values.items() for job in asked)}
        jobs: list[Job] = []
        errors, seen, duplicates = [], set(), total - len(asked)
        places: dict[int, int] = {}
        for i, wanted in enumerate(asked):
            texts = tuple(f"{key}={value}" for key, value in wanted.values.items())
            varied = wanted.words(fixed)
            try:
                needs = stage_of(wanted, asked[:i])
                config = checked(compose_node(texts))
                if needs in places:
                    check_stage(config, jobs[places[needs]].config)
            except ConfigError as error:
                errors.append(f"{' '.join(varied) or 'the job'}: {error}")
                continue
            config.sweep = SweepConfig()
            identity = json.dumps([to_plain(config), needs], sort_keys=True)
            if identity in seen and not wanted.name:
                duplicates += 1
                continue
            seen.add(identity)
            places[i] = len(jobs)
            jobs.append(Job(texts, varied, config, wanted.name, None if needs is None else places.get(needs)))
    if errors:
        raise ConfigError(listed(errors, of=len(asked)))
    if not jobs:
        raise ConfigError("the sweep has no jobs: an axis is empty.")
    names = "-".join(value for _, value in chosen if value != "null")
    return Jobs(name=names or "sweep", jobs=tuple(jobs), duplicates=duplicates, curve=curve)


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


def _file_jobs(experiment: tuple[str, str]) -> tuple[list[Asked], tuple[str, ...]]:
    """The jobs that an experiment file lists, one empty job where it lists none; and the keys of its curve."""
    if experiment[1] == "null":
        return [Asked({})], ()
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
        own = {str(key): _text(value) for key, value in entry.items() if key != NAME}
        for combination in itertools.product(*axes):
            jobs.append(Asked({**own, **dict(combination)}, str(entry.get(NAME, "")), dict(combination)))
    return jobs, tuple(str(key) for key in _plain(node, "sweep.curve", list, where))


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
