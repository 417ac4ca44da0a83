"""Show how a sweep is getting on, from any terminal.

headstart status                    every sweep, a line each
headstart status quickstart-1a2b3c  one sweep: what runs now, what failed
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sweep, and whether to stay."""
    parser.add_argument("sweep", nargs="?", type=Path, help="name or folder of a sweep (default: all of them)")
    parser.add_argument("--watch", action="store_true", help="draw it anew every two seconds, until Ctrl-C")


def run(arguments: argparse.Namespace) -> int:
    """Print where it stands; exit status 0."""
    from rich.console import Console

    from headstart.config.paths import default_output_dir
    from headstart.errors import RecordError
    from headstart.records.sweeps import SWEEP, read_sweep
    from headstart.sweep.live import failures, render, summary, take_snapshot
    from headstart.sweep.plan import find_sweep

    if arguments.sweep is None:
        folders = sorted(path.parent for path in (default_output_dir() / "sweeps").glob(f"*/{SWEEP}"))
        if not folders:
            raise RecordError(f"{default_output_dir() / 'sweeps'}: has no sweeps.")
        for folder in folders:
            sweep = read_sweep(folder)
            shot = take_snapshot(folder, folder.parent.parent, sweep.current, to_come=sweep.to_come)
            print(f"{folder.name}: {summary(shot)}")
        return 0
    folder = find_sweep(arguments.sweep)
    output_dir = folder.absolute().parent.parent
    sweep = read_sweep(folder)
    console = Console()
    if arguments.watch and console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            while True:
                sweep = read_sweep(folder)  # a search adds jobs while it runs
                shot = take_snapshot(folder, output_dir, sweep.current, to_come=sweep.to_come)
                live.update(render(shot, width=console.width), refresh=True)
                if not sweep.to_come and not any(shot.counts[s] for s in ("waiting", "running", "interrupted")):
                    break
                time.sleep(2)
    shot = take_snapshot(folder, output_dir, sweep.current, to_come=sweep.to_come)
    if not arguments.watch:
        console.print(render(shot, width=console.width))
    print("\n".join(failures(sweep.current, shot.states, output_dir)))
    return 0
