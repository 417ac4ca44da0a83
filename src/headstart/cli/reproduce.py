"""Run a saved result again, and say whether the same comes out: identical, within tolerance, or different and why.

headstart reproduce outputs/runs/RUN
headstart reproduce wandb:my-team/my-project/RUN
headstart reproduce RUN.zip data.path=photos        a bundle; its images are elsewhere now
headstart reproduce config.yaml                     there is nothing to compare with: it runs
headstart reproduce SWEEP --sample 5
headstart reproduce RUN --check-only
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.reproduce.again import Checked
    from headstart.reproduce.changes import Change
    from headstart.reproduce.saved import Saved
    from headstart.reproduce.verdict import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, how much of it, and where things are now."""
    parser.add_argument("run", help="a run's folder, a config.yaml, a bundle, wandb:entity/project/run, or a sweep")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="where things are now: data.path=..., weights.path=..."
    )
    parser.add_argument("--check-only", action="store_true", help="compare the ingredients; train nothing")
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="write the recorded versions for pip")
    parser.add_argument("--against", type=Path, metavar="RUN", help="compare with this run; train nothing")
    parser.add_argument("--sample", type=int, metavar="N", help="of a sweep: N of its runs, spread over its arms")


def run(arguments: argparse.Namespace) -> int:
    """Reproduce; exit status 0, or 3 where the result or an ingredient is different."""
    from headstart.config.paths import default_output_dir
    from headstart.errors import ConfigError
    from headstart.records.sweeps import SWEEP
    from headstart.reproduce.saved import exists
    from headstart.sweep.plan import is_sweep_name

    if arguments.sample is not None and arguments.sample < 1:
        raise ConfigError(f"--sample {arguments.sample}: must be 1 or more.")
    path = Path(arguments.run)
    if exists(path / SWEEP) or (is_sweep_name(arguments.run) and not exists(path)):
        return _sweep(arguments)
    if arguments.sample is not None:
        raise ConfigError("--sample: is for a sweep; this is one run.")
    from headstart.reproduce.saved import open_saved

    saved = open_saved(arguments.run, unpack_to=default_output_dir() / "bundles")
    if saved.is_copy and saved.folder is not None:
        _tell(f"its files: {saved.folder}")
    if arguments.requirements is not None:
        return _requirements(saved, arguments.requirements)
    return _one(saved, arguments)


def _requirements(saved: Saved, path: Path) -> int:
    from headstart.errors import RecordError
    from headstart.records.atomic import write_text
    from headstart.reproduce.requirements import requirements_of

    if saved.record is None:
        raise RecordError(f"{saved.said}: a config alone does not know versions; name the run's folder.")
    write_text(path, requirements_of(saved.record.environment))
    print(f"{path}: pip install -r {path}")
    return 0


def _one(saved: Saved, arguments: argparse.Namespace) -> int:
    """One run: check, and unless that is all, run and compare."""
    from headstart.reproduce.saved import require_completed

    if not arguments.check_only:
        require_completed(saved)
    if arguments.against is not None:
        from headstart.errors import ConfigError

        if arguments.overrides or arguments.check_only:
            raise ConfigError("--against: compares two runs; it takes no overrides and no --check-only.")
        return _against(saved, arguments.against)
    checked = _check(saved, arguments.overrides)
    if arguments.check_only:
        return 3 if checked.causes else 0
    from headstart.reproduce.again import reproduce

    done = reproduce(checked, command=["headstart", *sys.argv[1:]], tell=_tell)
    if done.verdict is None:
        from headstart.records.schema import result_of

        print(
            f"There is nothing to compare with: {saved.said} is a config alone. It gave {result_of(done.record)}."
        )
        print(f"{done.folder}")
        return 0
    _show_verdict(done.verdict, done.changes)
    print(f"{done.folder}")
    return 3 if done.verdict.kind == "different" else 0


def _check(saved: Saved, overrides: Sequence[str]) -> Checked:
    from headstart.config.paths import default_output_dir
    from headstart.reproduce.again import check

    _tell("checking data, weights, packages, code and machine ...")
    checked = check(saved, overrides, output_dir=str(default_output_dir()))
    if saved.record is None:
        print("All that it needs is here. A config alone says nothing of what came out, or of what it came.")
        return checked
    if not checked.causes:
        _say("Every ingredient is what it was: config, data, split, weights, packages, code, machine.")
    else:
        _say("Not what it was, the likeliest to matter first:")
    for change in checked.changes:
        _say(f"  {change.kind}: {change.text}" if change.matters else f"  ({change.kind}: {change.text})")
    return checked


def _against(saved: Saved, folder: Path) -> int:
    from headstart.errors import RecordError
    from headstart.records.store import read_record
    from headstart.reproduce.again import changes_between, compare

    if saved.record is None:
        raise RecordError(f"{saved.said}: is a config alone; there is nothing to compare with.")
    other = read_record(folder)
    if other.status != "completed":
        raise RecordError(f"{folder}: this run ({other.status}) has no result to compare with.")
    verdict = compare(saved, folder, other)
    _show_verdict(verdict, changes_between(saved, folder, other))
    return 3 if verdict.kind == "different" else 0


def _show_verdict(verdict: Verdict, changes: Sequence[Change]) -> None:
    from headstart.reproduce.words import verdict_lines

    print()
    for line in verdict_lines(verdict, changes):
        _say(line)


def _sweep(arguments: argparse.Namespace) -> int:
    """Runs of a sweep, one after the other; a failure of one is its own."""
    from headstart.config.paths import default_output_dir
    from headstart.errors import ConfigError, HeadstartError
    from headstart.records.store import find_runs
    from headstart.reproduce.again import check, reproduce
    from headstart.reproduce.places import of_it, require_allowed
    from headstart.reproduce.sample import sample
    from headstart.reproduce.saved import open_saved
    from headstart.reproduce.words import first_cause
    from headstart.sweep.plan import find_sweep

    for flag in ("requirements", "against"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag}: is for one run; this is a sweep.")
    require_allowed(arguments.overrides)
    folder = find_sweep(Path(arguments.run))
    unused = set(arguments.overrides)
    runs, damaged = find_runs([folder], answers=True)
    for line in damaged:
        _tell(line)
    chosen = sample(runs, count=arguments.sample)
    left = sum(record.status != "completed" for _, record in runs)
    _tell(f"{len(chosen)} of {len(runs)} runs" + (f"; {left} did not complete" if left else ""))
    counts: dict[str, int] = {}
    for place, (path, _) in enumerate(chosen, 1):
        _tell(f"[{place}/{len(chosen)}] {path.name}")
        try:
            saved = open_saved(str(path), unpack_to=folder)
            own = of_it(saved, arguments.overrides)
            unused -= set(own)
            checked = check(saved, own, output_dir=str(default_output_dir()))
            if arguments.check_only:
                kind, why = ("changed" if checked.causes else "as it was"), first_cause(checked.changes)
            else:
                done = reproduce(checked, command=["headstart", *sys.argv[1:]], tell=_tell)
                assert done.verdict is not None
                kind, why = done.verdict.kind, first_cause(done.changes)
        except (HeadstartError, OSError, MemoryError, RuntimeError) as error:
            kind, why = "failed", str(error) or type(error).__name__
        counts[kind] = counts.get(kind, 0) + 1
        _say(f"{kind:<18}{path.name}" + (f"  ({why})" if why and kind not in ("identical", "as it was") else ""))
    for text in sorted(unused):
        _tell(f"{text}: none of these runs has a use for it.")
    print()
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 3 if set(counts) & {"different", "failed", "changed"} else 0


def _say(text: str) -> None:
    """Print what may be another's words."""
    print(printable(text))


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
