"""Where configs, results and caches lie."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import platformdirs

from headstart.config.schema.root import Config
from headstart.errors import ConfigError


def package_conf() -> Path:
    """The configs that ship with Headstart: in a wheel inside the package, else in the repository."""
    packaged = Path(str(resources.files("headstart"))) / "conf"
    if packaged.is_dir():
        return packaged
    repository = Path(__file__).resolve().parents[3] / "conf"
    if repository.is_dir():
        return repository
    raise ConfigError(f"The configs of Headstart are missing ({packaged}). Install it again.")


def search_path(config_dirs: tuple[str, ...] = ()) -> list[Path]:
    """Folders in which configs are looked up, the first one first: --config-dir, ./conf, the package's.

    Raises ConfigError where a folder that was named is not there.
    """
    folders = []
    for name in config_dirs:
        folder = Path(name).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {name}: there is no such folder.")
        folders.append(folder)
    shipped = package_conf().resolve()
    local = Path("conf").resolve()
    if local.is_dir():
        folders.append(local)
    return [*dict.fromkeys(folder for folder in folders if folder != shipped), shipped]


def cache_dir() -> Path:
    """Folder of caches, which may be deleted at any time; $HEADSTART_CACHE, else the user's own."""
    named = os.environ.get("HEADSTART_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("headstart"))


def default_output_dir() -> Path:
    """Where runs and sweeps lie unless a config says otherwise; $HEADSTART_OUTPUTS, else ./outputs."""
    return Path(os.environ.get("HEADSTART_OUTPUTS") or "./outputs").expanduser()


def output_dir_of(config: Config) -> Path:
    """Where a config's runs and sweeps lie."""
    return Path(config.output_dir).expanduser() if config.output_dir else default_output_dir()


def expanded(path: str) -> Path:
    """A path with `~` as the home folder; the `~name` of somebody who is not known here is a name like others."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - a Path's own raises
