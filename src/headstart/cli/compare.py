"""Compare runs: each arm with its interval, and its paired gain over training from scratch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import RecordError

if TYPE_CHECKING:
    from headstart.compare.comparison import Comparison
    from headstart.compare.details import Details


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to compare, and how to show it."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        help="sweeps, runs, outputs, CSV files of results or wandb:entity/project/group (default: the outputs)",
    )
    parser.add_argument("--metric", help="such as test/accuracy_macro (default: the task's main one)")
    parser.add_argument(
        "--baseline",
        metavar="ARM",
        help="measure against another arm than training from scratch: its label, or overrides that it has, such as "
        "'weights=pretrained strategy=linear_probe'",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse arms that differ from their baseline in what should be equal"
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also effect sizes, tests over images, measures along training, per class, per number of labels, cost "
        "(not in --format csv, which has a row per arm)",
    )
    parser.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it: .png, .svg or .pdf")
    parser.add_argument(
        "--curve", type=Path, metavar="FILE", help="also draw the curve of one sweep that has an axis (sweep.curve)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write it all as one page: .html")


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    from headstart.config.paths import default_output_dir

    show(
        arguments.paths or [default_output_dir()],
        metric=arguments.metric,
        how=arguments.format,
        plot=arguments.plot,
        curve=arguments.curve,
        baseline=arguments.baseline,
        strict=arguments.strict,
        with_details=arguments.details,
        report=arguments.report,
    )
    return 0


def show(
    paths: Sequence[Path],
    *,
    metric: str | None,
    how: str,
    plot: Path | None,
    curve: Path | None = None,
    baseline: str | None = None,
    strict: bool = False,
    with_details: bool = False,
    report: Path | None = None,
) -> None:
    """Compare what is below `paths`, print the result, and draw it or write its report if asked."""
    from headstart.compare.comparison import compare_results
    from headstart.compare.details import details_of
    from headstart.compare.fairness import check_strict
    from headstart.compare.formats import render, table
    from headstart.compare.sources import find_results

    if report:
        from headstart.compare.report import check_report

        check_report(report)
    results, notes = find_results(paths, metric=metric)
    comparison = compare_results(results, metric=metric, baseline=baseline, notes=notes)
    if strict:
        check_strict(comparison.unequal)
    details = details_of(comparison) if with_details or report else None
    shown = details if with_details else None
    written = _files(comparison, details, paths, plot=plot, curve=curve, report=report)
    if how == "table" and sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(table(comparison, details=shown))
    else:
        print(render(comparison, how, width=140, details=shown))
    if how == "table":
        for line in written:
            print(line)


def _files(
    comparison: Comparison,
    details: Details | None,
    paths: Sequence[Path],
    *,
    plot: Path | None,
    curve: Path | None,
    report: Path | None,
) -> list[str]:
    """Write what was asked for, before anything is printed: a reader that goes away (`| head`) costs no file."""
    written = []
    if plot:
        from headstart.compare.picture import draw

        draw(comparison, plot)
        written.append(f"Picture: {plot}")
    if curve:
        from headstart.compare.curve import curve_keys, draw_curve, lines_of

        if len(paths) != 1:
            raise RecordError("--curve: is of one sweep; give its folder alone.")
        lines = lines_of(paths[0], comparison)
        draw_curve(lines, curve, axis=" or ".join(curve_keys(paths[0])), metric=comparison.metric)
        written.append(f"Curve: {curve}")
    if report and details:
        from headstart.compare.report import write_report

        write_report(comparison, details, report)
        written.append(f"Report: {report}")
    return written
