"""Send runs to W&B that were logged offline or broken off; what has been sent already is left alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs."""
    parser.add_argument("paths", nargs="*", type=Path, help="sweeps, runs or outputs (default: the outputs)")


def run(arguments: argparse.Namespace) -> int:
    """Send them; exit status 3 where one could not be sent."""
    from headstart.config.paths import default_output_dir
    from headstart.progress import counted
    from headstart.records.store import run_folders
    from headstart.wandb_sync import check_server, sync

    paths = arguments.paths or [default_output_dir()]
    folders = list(dict.fromkeys(folder.resolve() for path in paths for folder in run_folders(path)))
    check_server()
    with counted(len(folders), what="runs") as tell:
        found = sync(folders, tell=tell)
    counts = {
        what: sum(one.what == what for one in found) for what in ("sent", "there", "none", "running", "failed")
    }
    words = {
        "sent": "sent",
        "there": "there already",
        "none": "without W&B",
        "running": "still running",
        "failed": "not sent",
    }
    print(", ".join(f"{count} {words[what]}" for what, count in counts.items() if count))
    for one in found:
        if one.what == "failed":
            print(f"{one.folder}: {one.why}", file=sys.stderr)
    return 3 if counts["failed"] else 0
