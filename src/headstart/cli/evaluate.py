"""Score completed runs on further test sets, into their records.

headstart evaluate RUN data=image_folder data.path=other       other images of the same classes
headstart evaluate SWEEP --corrupt all                         spoilt copies of the runs' own test images

`headstart compare` shows them beside the runs' own test.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from headstart.records.schema import RunRecord
    from headstart.trained.further import Asked, Prepared

WIDTH = 100
"""Columns that the table needs: a number that is cut is none."""
ALL_STRENGTHS = "1,2,3,4,5"
Metrics = Mapping[str, float | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which runs, on what."""
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN|SWEEP|KEY=VALUE",
        help="folders of runs, sweeps or outputs; then which data (data=, data.path= ...), data.batch_size=, "
        "trainer.accelerator= ...",
    )
    parser.add_argument("--name", help="what the evaluation is called (default: as the data is)")
    parser.add_argument(
        "--split",
        choices=("train", "val", "test", "all"),
        help="which part of other data (default: its test split, else all of it)",
    )
    parser.add_argument(
        "--map",
        type=Path,
        metavar="FILE",
        help="CSV of two columns: classes of the data, and what the run calls them",
    )
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="leave out classes that the run does not know"
    )
    parser.add_argument(
        "--corrupt",
        metavar="NAMES",
        help="spoilt copies of the run's own test images in place of other data: all, or some of noise, blur, "
        "weather, digital, gaussian_noise ...",
    )
    parser.add_argument("--severity", help="how strong, of 1 to 5 (default: all five)")
    parser.add_argument("--again", action="store_true", help="replace evaluations that are there already")
    parser.add_argument("--no-predictions", action="store_true", help="keep no predictions beside the record")
    parser.add_argument("--config-dir", action="append", default=[], help="a further folder of configs")
    parser.add_argument("--format", choices=("table", "json"), default="table")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, score, print; exit status 3 where some of several runs could not be scored."""
    from headstart.errors import HeadstartError
    from headstart.experiment import explained
    from headstart.progress import counted
    from headstart.trained.evaluate import evaluate
    from headstart.trained.further import Reader

    paths, overrides = _words(arguments.words)
    asked = _asked(arguments, overrides)
    folders, failed = _folders(paths)
    reader = Reader(asked)
    ready: list[Prepared] = []
    for folder in folders:
        try:
            ready.append(reader.prepare(folder, alone=len(folders) == 1))
        except HeadstartError as error:
            if len(folders) == 1:
                raise
            failed.append(str(error))
    if not ready:
        raise HeadstartError("\n".join(failed))
    shown: list[tuple[Prepared, dict[str, Metrics]]] = []
    begun, done = time.monotonic(), 0
    total = sum(one.images for one in ready)
    with counted(total, what="images") as tell:
        for number, prepared in enumerate(ready, start=1):
            results: dict[str, Metrics] = {}
            shown.append((prepared, results))
            try:
                results |= evaluate(prepared, asked, tell=partial(_further, tell, done))
            except KeyboardInterrupt:
                print("headstart: interrupted; what was scored by then is in the records.", file=sys.stderr)
                return 130
            except HeadstartError as error:
                if len(ready) == 1:
                    raise
                shown.pop()
                failed.append(str(error))
            except (MemoryError, RuntimeError) as error:
                raise explained(error, prepared.config) or error from error
            done += prepared.images
            if len(ready) > 1:
                _tell_of_run(prepared, number, len(ready), begun, share=done / max(1, total))
    if not shown:
        raise HeadstartError("\n".join(failed))
    _print(shown, how=arguments.format)
    for line in failed:
        print(line, file=sys.stderr)
    return 3 if failed else 0


def _further(tell: Callable[[int], None], done: int, count: int) -> None:
    tell(done + count)


def _words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Paths, and overrides: whatever has an equals sign and is not there."""
    from headstart.errors import ConfigError

    paths = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    if not paths:
        raise ConfigError("evaluate: say which run or sweep; `headstart runs` lists them.")
    return paths, [word for word in words if Path(word) not in paths]


def _asked(arguments: argparse.Namespace, overrides: Sequence[str]) -> Asked:
    from headstart.data.corruptions import chosen
    from headstart.data.elsewhere import read_names
    from headstart.errors import ConfigError
    from headstart.records.evaluations import SEVERITIES, check_name
    from headstart.trained.further import Asked
    from headstart.trained.scoring import Spoiling

    spoilings: tuple[Spoiling, ...] = ()
    if arguments.corrupt is not None:
        for flag, value in (
            ("name", arguments.name),
            ("split", arguments.split),
            ("map", arguments.map),
            ("ignore-unknown", arguments.ignore_unknown or None),
        ):
            if value is not None:
                raise ConfigError(f"--{flag}: is for other data; --corrupt names its own, of the run's test split.")
        names = chosen([word.strip() for word in arguments.corrupt.split(",")])
        strengths = [word.strip() for word in (arguments.severity or ALL_STRENGTHS).split(",")]
        if odd := [word for word in strengths if word not in map(str, SEVERITIES)]:
            raise ConfigError(f"--severity {odd[0]}: must be of {', '.join(map(str, SEVERITIES))}.")
        severities = sorted({int(word) for word in strengths})
        spoilings = tuple(Spoiling(name, severity) for name in names for severity in severities)
    elif arguments.severity is not None:
        raise ConfigError("--severity: is for spoilt copies; add --corrupt.")
    elif not any(text.startswith(("data=", "data.")) for text in overrides):
        raise ConfigError("evaluate: say on what: data=image_folder data.path=FOLDER, or --corrupt all.")
    if arguments.name is not None:
        check_name(arguments.name)
    return Asked(
        overrides=tuple(overrides),
        config_dirs=tuple(arguments.config_dir),
        name=arguments.name,
        split=arguments.split,
        names=read_names(arguments.map) if arguments.map else {},
        ignore_unknown=arguments.ignore_unknown,
        spoilings=spoilings,
        predictions=not arguments.no_predictions,
        again=arguments.again,
    )


def _folders(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Folders of the runs that paths stand for; of a sweep or outputs a line for each that is not done."""
    from headstart.errors import HeadstartError, RecordError
    from headstart.records.store import RECORD, read_record, run_folders
    from headstart.sweep.plan import find_sweep

    found: dict[Path, None] = {}
    failed = []
    for path in paths:
        if (path / RECORD).is_file():
            found[path.resolve()] = None
            continue
        for folder in run_folders(path if path.exists() else find_sweep(path), answers=True):
            try:
                status = read_record(folder).status
            except RecordError as error:
                failed.append(str(error))
                continue
            if status == "completed":
                found[folder.resolve()] = None
            else:
                failed.append(f"{folder}: this run is {status}; only a completed one has chosen its weights.")
    if not found:
        raise HeadstartError("\n".join(failed[:5]))
    return list(found), failed


def _tell_of_run(prepared: Prepared, number: int, total: int, begun: float, *, share: float) -> None:
    from headstart.records.progress import clock

    spent = time.monotonic() - begun
    left = f", {clock(spent / share - spent)} left" if 0 < share < 1 else ""
    print(f"{number} of {total} runs in {clock(spent)}{left}: {prepared.folder.name}", file=sys.stderr, flush=True)


def _print(shown: Sequence[tuple[Prepared, Mapping[str, Metrics]]], *, how: str) -> None:
    if how == "json":
        rows = [
            {"run": prepared.record.id, "name": name, "metrics": dict(metrics)}
            for prepared, results in shown
            for name, metrics in results.items()
        ]
        print(json.dumps(rows, indent=1))
        return
    from rich.console import Console

    from headstart.trained.further import notes_of

    console = Console(width=max(Console().width, WIDTH), highlight=False)
    for prepared, results in shown:
        print(prepared.folder)
        if results:
            console.print(_table(prepared.record, results, size=prepared.data.facts.sizes["test"]))
        if prepared.there:
            some = ", ".join(prepared.there[:5]) + (" ..." if len(prepared.there) > 5 else "")
            print(f"There already, and left as they are: {some} ({len(prepared.there)}; --again scores them anew).")
        for line in notes_of(prepared):
            print(line)


def _table(record: RunRecord, results: Mapping[str, Metrics], *, size: int) -> Table:
    """Home and elsewhere by the task's main metric; a row per corruption, with its mean and each strength."""
    from rich import box
    from rich.table import Table

    from headstart.compare.comparison import DEFAULT_METRIC
    from headstart.records.evaluations import SEVERITIES, spoilt_as, spoilt_means, spoilt_name

    metric = DEFAULT_METRIC[str(record.data["task"])].partition("/")[2]
    home = record.metrics.get(f"test/{metric}")
    spoilt = any(spoilt_as(name) for name in results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    strengths = [s for s in SEVERITIES if any(spoilt_as(n) and spoilt_as(n)[1] == s for n in results)]  # type: ignore[index]
    header = ["", *(["images"] if not spoilt else []), metric, "to home", *(f"at {s}" for s in strengths if spoilt)]
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    own = (record.data.get("sizes") or {}).get("test")
    table.add_row("home", *([str(own)] if not spoilt else []), _number(home), "", *("" for _ in strengths))
    if not spoilt:
        for name, metrics in results.items():
            table.add_row(name, str(size), _number(metrics.get(metric)), _gap(metrics.get(metric), home))
        return table
    values: dict[str, Any] = {name: metrics.get(metric) for name, metrics in results.items()}
    means = spoilt_means({name: {metric: value} for name, value in values.items()})
    for corruption in dict.fromkeys(found[0] for name in results if (found := spoilt_as(name))):
        each = [values.get(spoilt_name(corruption, strength)) for strength in strengths]
        mean = means.get(corruption, {}).get(metric)
        table.add_row(corruption, _number(mean), _gap(mean, home), *map(_number, each))
    if (whole := means.get("corrupted")) is not None:
        table.add_row(
            "corrupted", _number(whole.get(metric)), _gap(whole.get(metric), home), *("" for _ in strengths)
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _gap(value: float | None, home: float | None) -> str:
    return "-" if value is None or home is None else f"{value - home:+.4f}"
