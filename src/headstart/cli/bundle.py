"""Pack a run into one file that another person unpacks and reproduces.

headstart bundle outputs/runs/RUN -o result.zip
headstart bundle outputs/runs/RUN --weights none      record, config, predictions: small enough to mail
headstart bundle --unpack result.zip
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to pack, and where."""
    parser.add_argument("run", type=Path, help="folder of a completed run; with --unpack a bundle")
    parser.add_argument("-o", "--output", type=Path, help="the file, or with --unpack the folder to unpack into")
    parser.add_argument(
        "--weights", choices=("none", "tested", "all"), default="tested", help="of the final ones (default: tested)"
    )
    parser.add_argument("--start", action="store_true", help="the weights it started from too: a file or a run")
    parser.add_argument("--unpack", action="store_true", help="check and unpack a bundle")


def run(arguments: argparse.Namespace) -> int:
    """Pack or unpack, and say what is in it."""
    if arguments.unpack:
        return _unpack(arguments.run, arguments.output)
    from headstart.errors import ConfigError
    from headstart.records.store import read_record
    from headstart.reproduce.pack import pack

    if arguments.run.is_file():
        raise ConfigError(
            f"{arguments.run}: is a file; `headstart bundle --unpack {arguments.run}` unpacks a bundle."
        )
    read_record(arguments.run)
    target = arguments.output or Path(f"{arguments.run.resolve().name}.zip")
    if target.is_dir():
        target = target / f"{arguments.run.resolve().name}.zip"
    if not target.parent.is_dir():
        raise ConfigError(f"--output {target}: there is no folder {target.parent}.")
    files = pack(arguments.run, target, weights=arguments.weights, start=arguments.start)
    for name, size in files:
        print(f"  {name}  {size:,} bytes")
    print(f"{target}  {target.stat().st_size:,} bytes: headstart reproduce {target}")
    return 0


def _unpack(path: Path, into: Path | None) -> int:
    from headstart.errors import RecordError
    from headstart.reproduce.bundle import is_bundle, unpack

    if not path.is_file():
        raise RecordError(f"{path}: there is no such file.")
    if not is_bundle(path):
        raise RecordError(f"{path}: is no bundle.")
    folder = unpack(path, into=into or Path.cwd())
    print(f"{folder}: headstart reproduce {folder}")
    return 0
