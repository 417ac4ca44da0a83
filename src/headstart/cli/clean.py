"""Free what finished runs and caches hold. Says what first, and asks.

Of a completed run the tested weights stay, so that it can still be loaded and transferred from; --weights
frees them too. Records, metrics and predictions always stay. Runs that did not complete keep everything.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.caches import KINDS, size_of
from headstart.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, how much, and whether to ask."""
    parser.add_argument("path", nargs="?", type=Path, help="outputs, a sweep or a run (default: the outputs)")
    parser.add_argument("--weights", action="store_true", help="free the tested weights of completed runs too")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Say what would go, ask, free it."""
    from headstart.config.paths import cache_dir, default_output_dir

    freed = runs_hold(arguments.path or default_output_dir(), weights=arguments.weights)
    if arguments.path is None and cache_dir().is_dir():
        freed["caches"] = [cache_dir() / name for name in KINDS if (cache_dir() / name).exists()]
    sizes = {name: freed_by(paths) for name, paths in freed.items()}
    if not any(freed.values()):
        print("Nothing to free.")
        return 0
    for name, paths in freed.items():
        if paths:
            print(f"{name}: {len(paths)} files or folders, {sizes[name] / 1e6:.1f} MB")
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigError("clean: nothing was freed; add --yes.")
        if input("Free them? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was freed.")
            return 0
    for path in (path for paths in freed.values() for path in paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"Freed {sum(sizes.values()) / 1e6:.1f} MB.")
    return 0


def freed_by(paths: Sequence[Path]) -> int:
    """Bytes that go with `paths`: of a file with several names only where all of them go."""
    freed = 0
    shared: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        said = path.lstat()
        if path.is_dir() and not path.is_symlink():
            freed += size_of(path)
        elif said.st_nlink == 1:
            freed += said.st_size
        else:
            shared.setdefault((said.st_dev, said.st_ino), []).append(said.st_nlink)
            freed += said.st_size if len(shared[said.st_dev, said.st_ino]) == said.st_nlink else 0
    return freed


def runs_hold(path: Path, *, weights: bool) -> dict[str, list[Path]]:
    """What completed runs below `path` hold and can do without, by kind; nothing where there are no runs."""
    from headstart.errors import RecordError
    from headstart.records.atomic import leftovers
    from headstart.records.store import find_runs

    held: dict[str, list[Path]] = {"checkpoints of completed runs": [], "left-over temporary files": []}
    try:
        runs, _ = find_runs([path])
    except RecordError:
        return held
    for folder, record in runs:
        if record.status != "completed":
            continue
        tested = str(record.config.get("trainer", {}).get("checkpoint", "best"))
        kept = () if weights else (f"{tested}.safetensors", "frozen.safetensors")
        held["checkpoints of completed runs"] += [
            file for file in sorted((folder / "checkpoints").glob("*")) if file.name not in kept
        ]
        held["left-over temporary files"] += leftovers(folder)
    return held
