"""Show what lies in the cache folder, or clear it. Everything there is made anew when it is needed.

headstart cache
headstart cache --clear images --unused 30
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from headstart.caches import KINDS, Cache, caches_of, remove
from headstart.errors import ConfigError

DAY = 86400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to clear, and whether to ask."""
    parser.add_argument(
        "--clear", nargs="+", choices=(*KINDS, "all"), metavar="KIND", help=f"one of {', '.join(KINDS)}, or all"
    )
    parser.add_argument("--unused", type=float, default=0, metavar="DAYS", help="only what was unused for so long")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each cache, or clear those that are named."""
    from headstart.config.paths import cache_dir

    root = cache_dir()
    if arguments.unused < 0:
        raise ConfigError(f"--unused {arguments.unused:g}: must be at least 0.")
    if not arguments.clear:
        if arguments.unused:
            raise ConfigError("--unused: says what to clear; add --clear all.")
        return _show(root)
    kinds = KINDS if "all" in arguments.clear else arguments.clear
    oldest = time.time() - arguments.unused * DAY
    chosen = [cache for kind in kinds for cache in caches_of(root / kind) if cache.used <= oldest]
    return _clear(chosen, ask=not arguments.yes)


def _show(root: Path) -> int:
    print(f"{root}")
    total = 0
    for kind, meaning in KINDS.items():
        caches = caches_of(root / kind)
        size = sum(cache.size for cache in caches)
        total += size
        if not caches:
            continue
        print(f"\n{kind}: {meaning}, {_bytes(size)}")
        for cache in sorted(caches, key=lambda cache: -cache.used):
            about = f"  {cache.about}" if cache.about else ""
            print(f"  {_bytes(cache.size):>9}  used {_ago(cache.used):<12}  {cache.path.name}{about}")
    print("\nNothing is cached." if not total else f"\n{_bytes(total)} in all.")
    return 0


def _clear(chosen: Sequence[Cache], *, ask: bool) -> int:
    if not chosen:
        print("Nothing to clear.")
        return 0
    size = sum(cache.size for cache in chosen)
    print(f"{len(chosen)} caches, {_bytes(size)}")
    if ask:
        if not sys.stdin.isatty():
            raise ConfigError("cache: nothing was cleared; add --yes.")
        if input("Clear them? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was cleared.")
            return 0
    kept = [cache for cache in chosen if not remove(cache)]
    print(f"Cleared {_bytes(size - sum(cache.size for cache in kept))}.")
    for cache in kept:
        print(f"{cache.path}: is being built by another process, and was left.", file=sys.stderr)
    return 3 if kept else 0


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for unit, scale in (("d", DAY), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit} ago"
    return "just now"
