"""Go on with an interrupted run or sweep.

headstart resume outputs/runs/RUN       a run, from its last checkpoint
headstart resume SWEEP                  a sweep, by name or folder: what is missing, failed or was interrupted
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, or a sweep's name."""
    parser.add_argument("run", type=Path, help="folder of the run or sweep, or the name of a sweep")
    parser.add_argument("--workers", type=int, help="of a sweep: jobs at the same time")


def run(arguments: argparse.Namespace) -> int:
    """Resume, and say what came out."""
    from headstart.errors import RecordError
    from headstart.records.schema import result_of
    from headstart.records.store import RECORD, read_record
    from headstart.sweep.plan import find_sweep

    if not (arguments.run / RECORD).exists():
        try:
            folder = find_sweep(arguments.run)
        except RecordError as error:
            if arguments.run.exists():
                read_record(arguments.run)  # says what is wrong with it
            raise error from None
        from headstart.cli.train import report
        from headstart.sweep.launch import relaunch

        return report(relaunch(folder, workers=arguments.workers))
    read_record(arguments.run)  # a record that cannot be read is said before torch is imported
    from headstart.experiment import resume

    record = resume(arguments.run)
    print(result_of(record))
    print(f"{arguments.run}")
    return 0
