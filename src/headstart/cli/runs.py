"""List runs: what each was, and what came out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

WIDTH = 130
"""Columns that the list needs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument("path", nargs="?", type=Path, help="outputs, a sweep or a run (default: the outputs)")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only runs for which it holds, such as backbone=resnet50, status!=completed or "
        "'test/accuracy_micro>0.9'; several must all hold",
    )
    parser.add_argument("--sort", metavar="KEY", help="by a key, rising; --sort=-KEY: falling")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")


def run(arguments: argparse.Namespace) -> int:
    """Print the list; records that cannot be read are named."""
    from headstart.compare.filters import select
    from headstart.config.paths import default_output_dir
    from headstart.records.store import find_runs

    found, damaged = find_runs([arguments.path or default_output_dir()])
    runs = select(found, arguments.filter, arguments.sort)
    metric = _metric(arguments.sort, arguments.filter)
    if arguments.format == "table":
        from rich.console import Console

        from headstart.compare.listing import table

        # a name that is cut cannot be copied: rather let a narrow terminal wrap
        Console(width=max(Console().width, WIDTH)).print(table(runs, metric=metric))
        if arguments.filter:
            print(f"{len(runs)} of {len(found)} runs.")
    else:
        from headstart.compare.listing import rows_of

        rows = rows_of(runs, metric=metric)
        if arguments.format == "json":
            print(json.dumps(rows, indent=1))
        elif rows:
            import csv

            writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for line in damaged:
        print(line, file=sys.stderr)
    return 0


def _metric(sort: str | None, filters: list[str]) -> str | None:
    """The metric that the list is about, where it is sorted or filtered by one."""
    from headstart.compare.filters import parse_filter
    from headstart.records.evaluations import PREFIX

    asked = [(sort or "").removeprefix("-"), *(parse_filter(text).key for text in filters)]
    return next((key for key in asked if key.startswith(("test/", "val/", PREFIX))), None)
