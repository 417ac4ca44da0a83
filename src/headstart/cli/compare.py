"""Compare runs: each arm with its interval, and its paired gain over training from scratch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from headstart.errors import RecordError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to compare, and how to show it."""
    parser.add_argument("paths", nargs="*", type=Path, help="sweeps, runs or outputs (default: the outputs)")
    parser.add_argument("--metric", help="such as test/accuracy_macro (default: the task's main one)")
    parser.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it: .png, .svg or .pdf")
    parser.add_argument(
        "--curve", type=Path, metavar="FILE", help="also draw the curve of one sweep that has an axis (sweep.curve)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    from headstart.config.paths import default_output_dir

    paths = arguments.paths or [default_output_dir()]
    show(paths, metric=arguments.metric, how=arguments.format, plot=arguments.plot, curve=arguments.curve)
    return 0


def show(
    paths: Sequence[Path], *, metric: str | None, how: str, plot: Path | None, curve: Path | None = None
) -> None:
    """Compare the runs below `paths`, print the result and draw it if asked."""
    from headstart.compare.comparison import compare_runs
    from headstart.compare.formats import render, table
    from headstart.records.store import find_runs

    found, damaged = find_runs(paths, answers=True)
    comparison = compare_runs([record for _, record in found], metric=metric, notes=damaged)
    if how == "table" and sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(table(comparison))
    else:
        print(render(comparison, how, width=140))
    if plot:
        from headstart.compare.picture import draw

        draw(comparison, plot)
        if how == "table":
            print(f"Picture: {plot}")
    if curve:
        from headstart.compare.curve import curve_keys, draw_curve, lines_of

        if len(paths) != 1:
            raise RecordError("--curve: is of one sweep; give its folder alone.")
        lines = lines_of(paths[0], comparison, [record for _, record in found])
        draw_curve(lines, curve, axis=" or ".join(curve_keys(paths[0])), metric=comparison.metric)
        if how == "table":
            print(f"Curve: {curve}")
