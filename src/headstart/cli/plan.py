"""Print what an experiment or a sweep would do, without running it.

headstart plan strategy=gradual backbone=resnet18 weights=scratch      phases, layer groups, rates, penalties
headstart plan strategy=full strategy.layer_decay=0.75 --plot rates.png
headstart plan -m strategy=full,linear_probe seed=range(3)             all jobs, checked, and what they cost
headstart plan strategy=full --find lr                                 a learning rate, from a short trial
headstart plan strategy=full --find batch                              speed and memory of each batch size
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from headstart.planning import Description
    from headstart.preparation import Prepared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same overrides as `headstart train`."""
    parser.add_argument("overrides", nargs="*", help="key=value, as for `headstart train`")
    parser.add_argument("-m", "--multirun", action="store_true", help="plan a sweep: key=a,b and files with jobs")
    parser.add_argument("--config-dir", action="append", default=[], help="folder of further configs")
    parser.add_argument(
        "--plot",
        type=Path,
        help="draw each layer group's rate over the run (.png, .svg or .pdf); with --find, where its picture goes",
    )
    parser.add_argument(
        "--find",
        choices=("lr", "batch"),
        help="try rising learning rates, or growing batch sizes, say which to begin with, and draw it",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare what a run or sweep would, print its plan, and leave nothing behind."""
    from headstart.config.compose import compose
    from headstart.errors import ConfigError

    if arguments.multirun:
        if arguments.find:
            raise ConfigError("--find: tries one run; name one without -m.")
        if arguments.plot:
            raise ConfigError("--plot: draws one run; plan one without -m.")
        from headstart.cli.plan_sweep import plan

        return plan(arguments.overrides, tuple(arguments.config_dir))
    config = compose(arguments.overrides, config_dirs=tuple(arguments.config_dir))
    if config.sweep.has_jobs:
        raise ConfigError("this experiment is a sweep: add -m to plan it.")
    from headstart.cli.plan_find import PICTURES, find
    from headstart.planning import describe, draw
    from headstart.preparation import prepare
    from headstart.records.pictures import check_picture

    picture: Path | None = arguments.plot or (PICTURES[arguments.find] if arguments.find else None)
    if picture:
        check_picture(picture)
    prepared = prepare(config)
    show(prepared, describe(prepared))
    if picture and arguments.find:
        return find(arguments.find, prepared, picture)
    if picture:
        draw(prepared, picture)
        print(f"Picture: {picture}")
    return 0


def show(prepared: Prepared, description: Description) -> None:
    """Print the plan as text, as wide as the terminal or 110 columns."""
    from rich.console import Console

    config, facts, budget = prepared.config, prepared.facts, prepared.budget
    sizes = ", ".join(f"{count} {name}" for name, count in facts.sizes.items())
    origin = prepared.weights.name if prepared.weights else "random"
    print(f"backbone   {config.backbone.name} ({config.weights.source}: {origin})")
    words = f"{facts.num_classes} classes"
    if facts.task == "regression":
        words = f"{facts.num_classes} number{'s' * (facts.num_classes != 1)}"
    print(f"data       {config.data.source}: {words}, {sizes}; {facts.image_size} pixels")
    print(
        f"budget     {budget.total_steps} steps, {budget.total_steps / budget.steps_per_epoch:g} epochs of "
        f"{budget.steps_per_epoch}, batches of {config.data.batch_size}"
    )
    print(
        f"optimizer  {config.optimizer.name}, rate {config.optimizer.lr:g}, weight decay "
        f"{config.optimizer.weight_decay:g}; schedule {config.schedule.name}, begins anew with each "
        f"{config.schedule.restart}"
    )
    frozen = description.parameters - description.trainable
    print(f"strategy   {config.strategy.name}: {description.trainable:,} parameters train, {frozen:,} are frozen")
    if description.additions:
        print(f"additions  {config.strategy.name}: {description.additions:,} new parameters")
    of_penalties = f"; {description.of_penalties:,} parameters of their own" if description.of_penalties else ""
    print(f"penalties  {'; '.join(description.penalties) or 'none'}{of_penalties}")
    print(f"memory     {'; '.join(_memory(prepared))}")
    for note in description.notes:
        print(f"note       {note}")
    Console(width=None if sys.stdout.isatty() else 110).print(_table(description))


def _memory(prepared: Prepared) -> list[str]:
    """What a step will hold, and a warning where that is more than there is."""
    from headstart.finding.memory import estimate, in_words, room_of, size
    from headstart.trouble import ran_out_of_memory

    trainer = prepared.config.trainer
    try:
        found = estimate(prepared)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return ["not even a step of 4 images has room"]
    words, room = [in_words(found, precision=trainer.precision)], room_of(trainer.accelerator)
    place = "the GPU has" if trainer.accelerator == "gpu" else "this machine has free"
    if found.peak() > room:
        largest = found.largest(room)
        fits = f"; up to {largest} images at once would fit" if largest and not found.table else ""
        words.append(f"WILL NOT FIT: {place} {size(room)}{fits}")
    elif trainer.accelerator == "gpu":
        words.append(f"{place} {size(room)}")
    return words


def _table(description: Description) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, side in (("layer group", "left"), ("parameters", "right"), ("trainable", "right")):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for i, phase in enumerate(description.phases, start=1):
        # one phase has room for words, many have not
        steps = f"steps {phase.start}-{phase.end}" if len(description.phases) < 4 else f"{phase.start}-{phase.end}"
        lines = [f"phase {i}", steps, f"norm {phase.normalization}"]
        if phase.kinds:
            lines.append(f"only {', '.join(phase.kinds)}")
        table.add_column("\n".join(lines), justify="right")
    for row in description.groups:
        rates = ["frozen" if rate is None else f"{rate:.2g}" for rate in row.rates]
        table.add_row(row.name, f"{row.parameters:,}", f"{row.trainable:,}", *rates)
    return table
