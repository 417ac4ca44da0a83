"""From overrides, experiment files and sweep files to the jobs of a sweep, each composed and checked."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.config.compose import compose_node, configs, explain, parse
from headstart.config.plain import to_plain
from headstart.config.schema.launcher import LauncherConfig, LocalConfig
from headstart.config.schema.root import DISCRIMINATORS, LAUNCH, Config
from headstart.config.schema.search import NoSearchConfig, SearchConfig
from headstart.config.schema.sweep import SweepConfig
from headstart.errors import ConfigError
from headstart.sweep.composer import Composer
from headstart.sweep.definition import Definition, read_definition, text_of
from headstart.sweep.space import Space, applied, checked_space, first, is_interval, range_of, read_space
from headstart.sweep.stages import Asked, check_stage, each_group, stage_of

_SHOWN_ERRORS = 8
_FILES = ("experiment", "sweep")
"""Keys that choose a file which may say more of the jobs."""


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
    space: Space = ()
    """What a search finds values for; the config holds the first ones."""


@dataclass(frozen=True)
class Jobs:
    """The jobs of a sweep, in the order in which they run."""

    name: str
    jobs: tuple[Job, ...]
    duplicates: int
    curve: tuple[str, ...] = ()
    """Keys of the axis of the sweep's curve, if it has one."""
    asked_name: str | None = None
    """The sweep's own name, where it was given one."""
    axes: tuple[str, ...] = ()
    """Keys in which jobs may differ."""
    definition: dict[str, Any] = field(default_factory=dict)
    """What the files say of the jobs, as plain data."""
    launcher: LauncherConfig = field(default_factory=LocalConfig)
    search: SearchConfig = field(default_factory=NoSearchConfig)

    @property
    def tuned(self) -> tuple[str, ...]:
        """Keys that the search finds values for."""
        return tuple(sorted({tuned.key for job in self.jobs for tuned in job.space}))


def expand(overrides: Sequence[str], *, config_dirs: tuple[str, ...] = ()) -> Jobs:
    """Expand `a=1,2`, choice(), range() and glob(), and the jobs of experiment and sweep files.

    What a file says (`sweep.list`, `zip`, `grid`, conditions and exclusions) is combined with the command line; a
    key that the command line names replaces the file's. Hydra's own `hydra.sweeper.params` are read too, and
    `key=interval(a,b)` and `tag(log,interval(a,b))` say what a search tunes. Raises ConfigError that lists every
    job that cannot be.
    """
    with configs(config_dirs):
        parsed = parse(overrides)
        drawn = read_space(dict(map(range_of, filter(is_interval, parsed))), where="the command line")
        axes = [_values(override) for override in parsed if not is_interval(override)]
        rest = [axis for axis in axes if axis[0][0] not in _FILES]
        _one_launch(rest)
        composer = Composer()
        asked: list[Asked] = []
        definitions = []
        for files in _files(axes):
            definition = _definition(files)
            definitions.append(definition)
            asked += _asked(definition, files, rest, composer, drawn)
        if not asked:
            raise ConfigError("the sweep has no jobs: all are excluded.")
        keys = {key for definition in definitions for key in definition.keys}
        keys |= {axis[0][0] for axis in axes if len(axis) > 1}
        jobs, duplicates = _composed(asked, composer)
    chosen = [dict(files) for files in _files(axes)]
    names = [files[key].rpartition("/")[2] for files in chosen for key in _FILES if key in files]
    example = jobs[0].config
    given = next((definition.name for definition in definitions if definition.name), None)
    return Jobs(
        name="-".join(dict.fromkeys(names)) or "sweep",
        jobs=tuple(jobs),
        duplicates=duplicates,
        curve=next((definition.curve for definition in definitions if definition.curve), ()),
        asked_name=dict(axis[0] for axis in rest).get("sweep.name", given),
        axes=tuple(sorted(keys)),
        definition={"files": chosen, "sweeps": [definition.plain for definition in definitions]},
        launcher=example.launcher,
        search=example.search,
    )


def _files(axes: Sequence[list[tuple[str, str]]]) -> Iterator[list[tuple[str, str]]]:
    """Each combination of the experiment and sweep files that are asked for."""
    wanted = [axis for axis in axes if axis[0][0] in _FILES]
    for combination in itertools.product(*wanted):
        yield [one for one in combination if one[1] != "null"]


def _one_launch(axes: Sequence[list[tuple[str, str]]]) -> None:
    for axis in axes:
        if axis[0][0].partition(".")[0] in LAUNCH and len(axis) > 1:
            raise ConfigError(f"{axis[0][0]}: a sweep has one; it is no axis.")


def _asked(
    definition: Definition,
    files: list[tuple[str, str]],
    rest: Sequence[list[tuple[str, str]]],
    composer: Composer,
    drawn: Space,
) -> list[Asked]:
    """The jobs of one choice of files, with every combination of the command line's values.

    `drawn` are the command line's ranges.
    """
    found = []
    for combination in itertools.product(*rest):
        given = dict(combination)
        for job in definition.jobs():
            ground = {**dict(files), **job.ground, **given}
            said = {*given, *(tuned.key for tuned in drawn)}
            kept = tuple(tuned for tuned in job.tune if tuned.key not in said)
            space = checked_space((*kept, *drawn), where=definition.where)
            found.append(Asked({**dict(files), **job.values, **given}, job.name, ground, tune=space))

    def value_of(job: Asked, key: str) -> str:
        if key in job.values:
            return job.values[key]
        return _composed_value(composer.config({k: v for k, v in job.values.items() if v != "each_group()"}), key)

    jobs = definition.conditioned(found, value_of)
    return [one for job in jobs for one in each_group(job)]


def _composed_value(config: Config, key: str) -> str:
    """The value of a key that a job leaves as it is; of a group, its kind."""
    node: Any = to_plain(config)
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            raise ConfigError(f"sweep: a condition or exclusion names {key}, which its jobs do not have.")
        node = node[name]
    if isinstance(node, dict):
        node = node[DISCRIMINATORS.get(key, "name")]
    return text_of(node)


def _composed(asked: list[Asked], composer: Composer) -> tuple[list[Job], int]:
    """The jobs, composed and checked, and how many were left out as duplicates."""
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
            stand_in = {key: text_of(value) for key, value in applied(wanted.tune, first(wanted.tune)).items()}
            config = composer.config({**wanted.values, **stand_in})
            if needs in places:
                check_stage(config, jobs[places[needs]].config)
        except ConfigError as error:
            errors.append(f"{' '.join(varied) or 'the job'}: {error}")
            continue
        config.sweep = SweepConfig()
        identity = json.dumps([to_plain(config), needs, repr(wanted.tune)], sort_keys=True)
        if identity in seen and not wanted.name:
            duplicates += 1
            continue
        seen.add(identity)
        places[i] = len(jobs)
        stage = None if needs is None else places.get(needs)
        jobs.append(Job(texts, varied, config, wanted.name, stage, wanted.tune))
    if errors:
        raise ConfigError(listed(errors, of=len(asked)))
    return jobs, duplicates


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
    try:
        values = [(key, text) for text in override.sweep_iterator(transformer=Transformer.encode)]
    except HydraException as error:
        raise ConfigError(f"{override.input_line}: {error}") from error
    if not values:
        raise ConfigError(f"{override.input_line}: gives no values.")
    return values


def _definition(files: Sequence[tuple[str, str]]) -> Definition:
    """What the chosen files say of the jobs; one plain job where they say nothing, or there are none."""
    if not files:
        return Definition("the command line")
    where = " ".join(f"{key}={value}" for key, value in files)
    node = compose_node([f"{key}={value}" for key, value in files])
    try:
        sweep = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepConfig), node.sweep or {}))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {explain(error)}") from error
    assert isinstance(sweep, SweepConfig)
    params = node.hydra.sweeper.get("params") if "sweeper" in node.hydra else None
    further: dict[str, list[str]] = {}
    for key, value in (params or {}).items():
        for override in parse([f"{key}={value}"]):
            if is_interval(override):
                sweep.tune = {**(sweep.tune or {}), **dict([range_of(override)])}
            else:
                further[key] = [text for _, text in _values(override)]
    definition = read_definition(sweep, further, where=where)
    return dataclasses.replace(definition, plain=dataclasses.asdict(sweep))


def describe_varied(jobs: Iterable[Job]) -> list[str]:
    """What each job differs in, for people."""
    return [" ".join(job.varied) or "one run" for job in jobs]
