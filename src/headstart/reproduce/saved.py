"""What a person names to have it reproduced: a run's folder, a config alone, a bundle, or a run in W&B."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.config.plain import from_plain, read_config
from headstart.config.schema.root import Config
from headstart.config.schema.weights import FileConfig, RunConfig
from headstart.errors import ConfigError, RecordError
from headstart.records.examples import EXAMPLES
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, RECORD, read_record
from headstart.reproduce.bundle import START, is_bundle, start_name, unpack
from headstart.reproduce.wandb_source import PREFIX, fetch

_RESUMABLE = ("interrupted", "failed", "running")


@dataclass(frozen=True)
class Saved:
    """A config, and where there is one the run that it comes from."""

    said: str
    """How a person named it."""
    config: Config
    record: RunRecord | None = None
    folder: Path | None = None
    """Where its files lie."""
    is_copy: bool = False
    """Whether they were brought there: out of a bundle, or from W&B."""


def open_saved(said: str, *, unpack_to: Path) -> Saved:
    """Find what was named. A bundle is unpacked below `unpack_to`, and so is what W&B keeps of a run.

    Raises RecordError where there is no such thing, ConfigError where its config cannot be read.
    """
    if said.startswith(PREFIX):
        return replace(_of_folder(fetch(said, into=unpack_to), said), is_copy=True)
    path = Path(said)
    with suppress(RuntimeError):  # ~nobody
        path = path.expanduser()
    if not exists(path):
        raise RecordError(f"{said[:100]}: there is no such run, config or bundle.")
    if path.is_dir():
        return _of_folder(path, said)
    if path.suffix in (".yaml", ".yml"):
        return Saved(said, read_config(path))
    if path.is_file() and is_bundle(path):
        return replace(_of_folder(unpack(path, into=unpack_to), said), is_copy=True)
    raise RecordError(f"{said}: is neither a config (.yaml) nor a bundle (.zip).")


def exists(path: str | Path) -> bool:
    """Whether something is there; a name that cannot be one is of nothing."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _of_folder(folder: Path, said: str) -> Saved:
    if not (folder / RECORD).is_file() and (folder / CONFIG).is_file():
        return Saved(said, read_config(folder / CONFIG))
    record = read_record(folder)
    path = folder / CONFIG
    config = read_config(path) if path.is_file() else from_plain(record.config)
    return Saved(said, _with_own_split(_with_packed_weights(config, folder), folder), record, folder)


def require_completed(saved: Saved) -> None:
    """Raise RecordError where the run has no result that could be compared, and say what it lacks."""
    record = saved.record
    if record is None or record.status == "completed":
        return
    reached = f"after epoch {record.epochs}" if record.epochs else "before its end"
    lacks = "no final weights" + (", no predictions" if record.predictions_sha256 is None else "")
    where = saved.folder if saved.is_copy else saved.said
    more = f"`headstart resume {where}` finishes it; " if record.status in _RESUMABLE and not saved.is_copy else ""
    raise RecordError(
        f"{saved.said}: this run ({record.status} {reached}) has {lacks} to compare with. {more}"
        f"`headstart reproduce {where}/{CONFIG}` runs it anew."
    )


def require_places(config: Config, *, said: str) -> None:
    """Raise ConfigError where the data or the weights are not where the config says; it names the key to set."""
    path = getattr(config.data, "path", None)
    # a dataset of the hub has a name there, not a path
    if isinstance(path, str) and os.path.isabs(path) and not exists(path):  # noqa: PTH117
        raise ConfigError(
            f"data.path={path}: the data is not there any more; say where it is now: "
            f"headstart reproduce {said} data.path=..."
        )
    for key in ("root", "split_file"):
        place = getattr(config.data, key, None)
        if isinstance(place, str) and not exists(place):
            raise ConfigError(
                f"data.{key}={place}: is not there any more; say where it is now: "
                f"headstart reproduce {said} data.{key}=..."
            )
    if isinstance(config.weights, FileConfig | RunConfig) and not exists(config.weights.path):
        what = "file of weights" if isinstance(config.weights, FileConfig) else "run that the weights come from"
        raise ConfigError(
            f"weights.path={config.weights.path}: the {what} is not there any more; say where it is now: "
            f"headstart reproduce {said} weights.path=..."
        )


def _with_own_split(config: Config, folder: Path) -> Config:
    """The file that it was split by, or where that is gone the run's own table of examples, which says the same."""
    file = config.data.split_file
    own = folder / EXAMPLES
    if file is None or exists(file) or not own.is_file():
        return config
    return replace(config, data=replace(config.data, split_file=str(own.absolute())))


def _with_packed_weights(config: Config, folder: Path) -> Config:
    """The weights that it started from, not in their old place but in its bundle, or a run beside it."""
    weights = config.weights
    if not isinstance(weights, FileConfig | RunConfig) or exists(weights.path):
        return config
    found = folder / start_name(Path(weights.path))
    if isinstance(weights, RunConfig):
        beside = folder.absolute().parent / Path(weights.path).name
        found = folder / START if (folder / START / RECORD).is_file() else beside
    if found.exists():
        return replace(config, weights=replace(weights, path=str(found.absolute())))
    return config
