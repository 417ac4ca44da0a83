"""What a group can be: the names of its config files, and what plugins add."""

from __future__ import annotations

from headstart.config.paths import search_path
from headstart.config.schema.root import GROUPS, kinds_of


def group_choices(group: str, config_dirs: tuple[str, ...] = ()) -> list[str]:
    """Names that `group=` takes: the config files of that group."""
    folders = [folder / group for folder in search_path(config_dirs)]
    plugged: set[str] = set(kinds_of(group)) - set(GROUPS[group]) if group in GROUPS else set()
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")} | plugged)
