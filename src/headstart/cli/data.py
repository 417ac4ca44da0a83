"""Check a dataset and show it, before anything is trained: what is in it, what is broken, what is there twice.

headstart data data=image_folder data.path=photos
headstart data data=image_folder data.path=photos backbone=resnet50 data.augment=light --plot sheet.png
headstart data data=hf data.path=cifar_folder --save-split split.csv --json findings.json

Exit status 3 where images are unreadable, copies lie in two splits or have different labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.audit.findings import Audit
    from headstart.config.schema.root import Config

PAIRS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The same overrides as `headstart train`."""
    parser.add_argument("overrides", nargs="*", help="key=value, as for `headstart train`")
    parser.add_argument("--config-dir", action="append", default=[], help="folder of further configs")
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help=f"pairs of copies that are listed (default: {PAIRS})"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw what the model will see (.png, .svg or .pdf)"
    )
    parser.add_argument("--save-split", type=Path, metavar="FILE", help="write id, split and label as CSV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all findings")


def run(arguments: argparse.Namespace) -> int:
    """Audit the data that a run of this config would read, and print the report."""
    from headstart.config.compose import compose
    from headstart.errors import ConfigError, DataError
    from headstart.printable import printable
    from headstart.records.pictures import check_picture

    if arguments.pairs < 0:
        raise ConfigError(f"--pairs {arguments.pairs}: must be at least 0.")
    if arguments.plot:
        check_picture(arguments.plot)
    for flag, path in (("--save-split", arguments.save_split), ("--json", arguments.json)):
        if path and (path.is_dir() or not path.parent.is_dir()):
            what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise ConfigError(f"{flag} {path}: {what}.")
    config = compose(arguments.overrides, config_dirs=tuple(arguments.config_dir))
    from headstart.audit.findings import audit, plain
    from headstart.audit.words import report
    from headstart.resolve import spec_of

    config = _resolved(config)
    found = audit(config.data, spec_of(config), seed=config.seed, threads=config.trainer.threads or 1)
    print(printable(report(found.findings, pairs=arguments.pairs)))
    if arguments.json:
        from headstart.records.atomic import write_json

        write_json(arguments.json, plain(found.findings))
        print(f"Findings: {arguments.json}")
    if found.findings.problem:
        raise DataError(found.findings.problem)
    if arguments.save_split:
        _save_split(found, arguments.save_split)
    if arguments.plot:
        _draw(config, found, arguments.plot)
    return 3 if found.findings.bad else 0


def _resolved(config: Config) -> Config:
    """With what a backbone says of its images; its weights may be anywhere or nowhere."""
    from dataclasses import replace

    from headstart.data.load import bit_image_size
    from headstart.machine import usable_cores
    from headstart.models.classifier import full_name, input_spec
    from headstart.resolve import resolve_data

    if config.data.augment == "bit" and config.data.image_size is None:
        config = replace(config, data=replace(config.data, image_size=bit_image_size(config.data)))
    library = config.backbone.library
    name = full_name(config.backbone.name, library=library)
    return replace(
        config,
        backbone=replace(config.backbone, name=name),
        data=resolve_data(config, input_spec(name, library=library), accelerator="cpu"),
        trainer=replace(config.trainer, threads=config.trainer.threads or usable_cores()),
    )


def _save_split(found: Audit, path: Path) -> None:
    from headstart.data.split_file import write_split

    table = found.data.examples() if found.data else None
    assert table is not None  # data that cannot be split was answered before
    write_split(path, table)
    print(f"Split: {path}")


def _draw(config: Config, found: Audit, path: Path) -> None:
    from headstart.audit.labels import label_text
    from headstart.audit.pixels import shown_examples
    from headstart.audit.sheet import DRAWS, OTHERS, TRAINING, draw_sheet

    data = found.data
    assert data is not None
    facts = data.facts
    shown = {
        name: shown_examples(
            data,
            name,
            count=TRAINING if name == "train" else OTHERS,
            draws=DRAWS,
            labels=[label_text(facts.task, facts.class_names, target) for target in split.targets],
            seed=config.seed,
        )
        for name, split in data.splits.items()
    }
    title = f"{config.data.source}, {config.backbone.name}, data.augment={config.data.augment}"
    draw_sheet(shown, path, title=title)
    print(f"Picture: {path}")
