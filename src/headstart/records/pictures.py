"""Pictures on disk: which kinds there are, and writing one whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import ConfigError
from headstart.records.atomic import write_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Raise ConfigError for a kind of file that cannot be drawn, or a folder that is not there."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: a picture must end in {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}.")


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure in the kind that the name says."""
    kind = path.suffix.lower().lstrip(".")
    write_with(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150))
