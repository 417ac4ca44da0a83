"""Jobs of an experiment file that stand on one another: names, weights of another job, one job per layer group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from headstart.config.compose import checked, compose_node
from headstart.config.head_checks import solver_of
from headstart.config.schema.root import Config
from headstart.config.schema.strategy import STANDING
from headstart.config.schema.weights import STAGE
from headstart.errors import ConfigError, did_you_mean
from headstart.sweep.space import Space

NAME = "name"
"""The key of a list entry that names its jobs; all its other keys are overrides."""

EACH_GROUP = "each_group()"
"""A value in a list entry that stands for 1 ... N, N being how many layer groups the backbone has."""

_PATH = "weights.path"


@dataclass(frozen=True)
class Asked:
    """One job before it is composed: overrides as key -> value text."""

    values: dict[str, str]
    name: str = ""
    ground: dict[str, str] = field(default_factory=dict)
    """Those that do not come from its own list entry: what it shares with the jobs of other entries."""
    counted: tuple[str, ...] = ()
    """Keys that count layer groups."""
    tune: Space = ()
    """What a search finds values for."""

    def words(self, fixed: set[tuple[str, str]]) -> tuple[str, ...]:
        """What tells it from other jobs, `fixed` being what all share."""
        varied = {key: value for key, value in self.values.items() if (key, value) not in fixed}
        if self.name:
            varied = {key: value for key, value in varied.items() if key in self.ground}
            if self.counted:
                varied = {self.counted[0]: self.values[self.counted[0]]} | varied
        return (*([self.name] if self.name else []), *(f"{key}={value}" for key, value in varied.items()))


def each_group(job: Asked) -> list[Asked]:
    """One job per layer group where a value asks for that; several such values of a job count together."""
    counted = tuple(key for key, value in job.values.items() if str(value).strip("'") == EACH_GROUP)
    if not counted:
        return [job]
    from headstart.models.layer_groups import depth  # imports torch and timm, which most sweeps need not wait for

    given = [f"{key}={value}" for key, value in job.values.items() if key not in counted]
    backbone = checked(compose_node([*given, *(f"{key}=1" for key in counted)])).backbone
    return [
        replace(job, values=job.values | dict.fromkeys(counted, str(i)), counted=counted)
        for i in range(1, depth(backbone.name, library=backbone.library) + 1)
    ]


def stage_of(job: Asked, before: Sequence[Asked]) -> int | None:
    """Which of the jobs `before` it makes the weights that this one starts from; None where none does.

    It is the job of that name that shares with it all that does not come from their own list entries. Raises
    ConfigError where there is none, or several.
    """
    path = str(job.values.get(_PATH, "")).strip("'")
    if not path.startswith(STAGE):
        return None
    wanted = path.removeprefix(STAGE)
    found = [i for i, other in enumerate(before) if other.name == wanted and other.ground == job.ground]
    if len(found) == 1:
        return found[0]
    names = [other.name for other in before if other.name]
    if wanted in names:
        raise ConfigError(f"{_PATH}={path}: several jobs have that name and the same grid values; it must be one.")
    hint = did_you_mean(wanted, names) or (f" There are: {', '.join(dict.fromkeys(names))}." if names else "")
    raise ConfigError(f"{_PATH}={path}: no job before this one has that name.{hint}")


def check_stage(config: Config, stage: Config) -> None:
    """Raise ConfigError where a job could not start from the weights that `stage` will have made."""
    path = getattr(config.weights, "path", "")
    own, other = config.backbone, stage.backbone
    if (own.name, own.library) != (other.name, other.library):
        raise ConfigError(f"{_PATH}={path}: that job's backbone is {other.name}, this one's {own.name}.")
    if stage.strategy.name in STANDING:
        raise ConfigError(
            f"{_PATH}={path}: that job trains additions beside its backbone (strategy={stage.strategy.name}); its "
            "weights will be no plain backbone."
        )
    if stage.weights.source == "scratch" and stage.strategy.name == "linear_probe":
        raise ConfigError(
            f"{_PATH}={path}: that job's backbone is random and frozen; there is nothing to take over."
        )
    if "co_tuning" in config.regularizer:
        linear = stage.head.name == "linear" and solver_of(stage) != "knn"
        if not linear or stage.head.pool != config.head.pool:
            raise ConfigError(
                f"{_PATH}={path}: co_tuning needs that job's head to be linear, with head.pool={config.head.pool}."
            )
