"""Run one experiment, or with -m one run for each combination of the values given.

headstart train backbone=resnet18 strategy=linear_probe data=image_folder data.path=photos
headstart train -m strategy=full,linear_probe seed=range(3)
headstart train -m experiment=quickstart
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.records.sweeps import Sweep
    from headstart.sweep.launch import Launched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Hydra's command line, as its users know it."""
    parser.add_argument("overrides", nargs="*", help="key=value; with -m also key=a,b and key=range(3)")
    parser.add_argument("-m", "--multirun", action="store_true", help="run every combination of the values")
    parser.add_argument("--config-dir", action="append", default=[], help="folder of further configs")
    parser.add_argument("--force-new", action="store_true", help="with -m: a new sweep, whatever is there already")
    parser.add_argument("--cfg", choices=("job",), help="print the config that would run, and stop")
    parser.add_argument("-h", "--help", action="store_true", help="list every group, option and default")


def run(arguments: argparse.Namespace) -> int:
    """Run, and say where the results are."""
    config_dirs = tuple(arguments.config_dir)
    if arguments.help:
        from headstart.cli.options import describe_options

        print(f"usage: headstart train [-m] [--config-dir DIR] [--cfg job] [KEY=VALUE ...]\n\n{__doc__}")
        print(describe_options(config_dirs))
        return 0
    command = ["headstart", *sys.argv[1:]]
    if arguments.multirun:
        return _sweep(arguments, config_dirs, command)
    from headstart.config.compose import compose
    from headstart.config.schema.root import LAUNCH
    from headstart.errors import ConfigError

    for text in arguments.overrides:
        if text.partition("=")[0].partition(".")[0] in LAUNCH:
            raise ConfigError(f"{text}: is for sweeps; add -m.")
    config = compose(arguments.overrides, config_dirs=config_dirs)
    if arguments.cfg:
        import yaml

        from headstart.config.plain import to_plain

        print(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True), end="")
        return 0
    if config.sweep.has_jobs:
        from headstart.sweep.expand import expand

        count = len(expand(arguments.overrides, config_dirs=config_dirs).jobs)
        raise ConfigError(f"this experiment is a sweep of {count} runs: add -m to run it.")
    from headstart.experiment import run as run_experiment
    from headstart.records.schema import result_of

    folder, record = run_experiment(
        config, command=command, announce=lambda found: print(f"run: {found}", file=sys.stderr, flush=True)
    )
    print(f"{result_of(record)} in {record.seconds['total']:.1f} s")
    print(f"{folder}")
    return 0


def _sweep(arguments: argparse.Namespace, config_dirs: tuple[str, ...], command: list[str]) -> int:
    from headstart.sweep.expand import describe_varied, expand
    from headstart.sweep.launch import launch

    jobs = expand(arguments.overrides, config_dirs=config_dirs)
    if arguments.cfg:
        print("\n".join(describe_varied(jobs.jobs)))
        return 0
    again = f", {jobs.duplicates} duplicates left out" if jobs.duplicates else ""
    searched = f" of what search={jobs.search.name} finds" if jobs.search.name != "none" else ""
    runs = f"{len(jobs.jobs)} run{'s' * (len(jobs.jobs) != 1)}"
    print(f"{runs}{searched}{again}; checking the jobs ...", file=sys.stderr, flush=True)
    return report(launch(jobs, command=command, force_new=arguments.force_new))


def report(launched: Launched) -> int:
    """Compare what a launch has come to, and name what failed; exit status 0, or 3 where a job did not complete."""
    from headstart.cli.compare import show
    from headstart.errors import RecordError
    from headstart.records.sweeps import DONE
    from headstart.sweep.live import failures

    folder, states = launched.folder, launched.states
    if launched.sweep.studies:
        _show_search(folder, launched.sweep)
    answers = {job.id for job in launched.sweep.answers}
    if any(states[id].status == "completed" for id in answers):
        print()
        try:
            curve = Path(folder, "curve.png") if launched.sweep.curve else None
            show([folder], metric=None, how="table", plot=Path(folder, "comparison.png"), curve=curve)
        except RecordError as error:
            print(f"No comparison: {error}")
    for line in failures(launched.sweep.jobs, states, folder.parent.parent):
        print(line, file=sys.stderr)
    done = sum(state.status in DONE for state in states.values())
    for study in launched.sweep.studies:
        chosen = launched.sweep.chosen.get(study.id)
        if chosen is None or chosen.trial is None:
            why = "its trials are not over" if chosen is None else "no trial completed"
            print(f"{study.varied or 'the search'}: {why}, so nothing was tested.", file=sys.stderr)
    if done < len(states):
        print(f"{done} of {len(states)} completed; the same command runs the rest.", file=sys.stderr)
    print(f"\nResults: {folder}")
    return 0 if done == len(states) and launched.sweep.is_answered else 3


def _show_search(folder: Path, sweep: Sweep) -> None:
    """What was tried for each arm, and what was found."""
    from rich.console import Console

    from headstart.compare.trials import draw, edges, table
    from headstart.errors import RecordError

    print()
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table(sweep))
    for line in edges(sweep):
        print(line)
    if len({chosen.trials for chosen in sweep.chosen.values()}) > 1:
        print("The arms have different numbers of trials: one that is tuned more has the better odds.")
    with suppress(RecordError):  # where no trial has completed there is nothing to draw
        draw(folder, folder / "trials.png")
        print(f"Picture: {folder / 'trials.png'}")
