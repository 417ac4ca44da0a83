"""Go on with an interrupted or failed run, from its last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's folder."""
    parser.add_argument("run", type=Path, help="folder of the run")


def run(arguments: argparse.Namespace) -> int:
    """Resume, and say what came out."""
    from headstart.records.store import read_record

    read_record(arguments.run)  # a path without a run is said before torch is imported
    from headstart.experiment import resume

    record = resume(arguments.run)
    metric, value = next((k, v) for k, v in record.metrics.items() if k.startswith("test/"))
    print(f"{metric} {value:.4f}")
    print(f"{arguments.run}")
    return 0
