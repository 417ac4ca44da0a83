"""All that has a bar, one after the other, each in a process of its own, and then one table of all.

`--quick` takes the smallest sizes that still run, to see that everything does; its ratios say nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_rows import Row, keep, machine, read, table

PARTS = ("probe", "heads", "lbfgs", "step", "startup")
QUICK: dict[str, tuple[str, ...]] = {
    "probe": (
        "--backbone=test_resnet", "--weights=scratch", "--size=32", "--images=64", "--epochs=2", "--rounds=1",
    ),
    "step": ("--backbone=test_resnet", "--size=32", "--batch=8", "--steps=3", "--rounds=1"),
    "startup": ("--backbone=test_resnet", "--size=32", "--images=16", "--batch=8", "--rounds=1"),
    "heads": ("--backbone=resnet18", "--size=32", "--images=60", "--epochs=2", "--rounds=1", "--separate=1"),
    "lbfgs": ("--drawn", "--images=200", "--width=32", "--penalties=5", "--rounds=1"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which parts, and how often."""
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--rounds", type=int, default=None, help="of each part; else its own number")
    parser.add_argument("--quick", action="store_true")


def run(words: argparse.Namespace) -> int:
    """Measure all, print one table; exit status 3 where a bar is not reached or a part failed."""
    rows: list[Row] = []
    failed = []
    for name in words.only:
        if importlib.util.find_spec(f"bench_{name}") is None:
            continue
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        more = QUICK[name] if words.quick else ()
        found = _apart(name, [*more, *([f"--rounds={words.rounds}"] if words.rounds else [])])
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
        rows += found
        failed += [] if found else [name]
    said = machine("auto")
    print(f"\n{said}\n\n{table(rows)}")
    for name in failed:
        print(f"{name} failed: see above")
    keep(rows, said=said, path=words.json)
    return 3 if failed or any(row.reached is False for row in rows) else 0


def _apart(name: str, words: Sequence[str]) -> list[Row]:
    """The rows of a benchmark that runs in a process of its own; none where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "rows.json")
        program = Path(__file__).with_name("bench.py")
        subprocess.run([sys.executable, str(program), name, f"--json={kept}", *words], check=False)
        return read(kept) if kept.is_file() else []
