#!/usr/bin/env python3
"""Benchmarks: ratios against the plain way, measured in one run, with their spread.

.venv/bin/python scripts/bench.py speed                    all that has a bar, in one table
.venv/bin/python scripts/bench.py gpu                      all that needs a GPU, in 8 minutes of one
.venv/bin/python scripts/bench.py NAME [--json FILE] ...   one of them; `NAME --help` says what it takes

Each is a file bench_NAME.py beside this one. --json keeps what was measured in every round.
Exit status 3: it was measured, and a bar was not reached.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = {
    "speed": "probe, heads, lbfgs, step and startup in turn, in one table",
    "gpu": "all that needs a GPU, within some minutes",
    "probe": "a linear probe on features that are kept, against the plain loop",
    "heads": "a hundred linear probes in one sweep, against one, and against separate commands",
    "lbfgs": "a path of logistic regressions, against scikit-learn's",
    "step": "the training step of full fine-tuning, against plain PyTorch and plain Lightning",
    "startup": "the command line, and the time to the first training step",
    "strategies": "the training step of each strategy, against that of full fine-tuning",
    "sweep": "what a sweep costs beside its jobs, against Hydra's launchers",
    "data": "images per second of the loader, against torchvision's and PyTorch's",
    "listing": "listing, fingerprinting and splitting 100,000 files",
    "rank": "LogME on frozen features, against the plain loop, and in steps of fine-tuning",
    "reproduce": "whether each strategy comes out the same twice, and what determinism costs",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a benchmark; its exit status."""
    given = list(sys.argv[1:] if words is None else words)
    if not given or given[0] in ("-h", "--help"):
        width = max(map(len, BENCHMARKS))
        print(__doc__)
        print("\n".join(f"  {name:<{width}}  {help}" for name, help in BENCHMARKS.items()))
        return 0
    name = given[0]
    if name not in BENCHMARKS:
        print(f"bench: {name}: there is no such benchmark; there are {', '.join(BENCHMARKS)}.", file=sys.stderr)
        return 2
    # children (sweeps, measurements in a process of their own) find these files as well
    os.environ["PYTHONPATH"] = os.pathsep.join(
        part for part in (str(Path(__file__).parent), os.environ.get("PYTHONPATH")) if part
    )
    module = importlib.import_module(f"bench_{name}")
    parser = argparse.ArgumentParser(
        prog=f"bench.py {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="also write the figures there")
    module.add_arguments(parser)
    return int(module.run(parser.parse_args(given[1:])) or 0)


if __name__ == "__main__":
    sys.exit(main())
