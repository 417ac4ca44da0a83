"""What a run's model says of images: the likeliest classes of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.trained.predict import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run and which images."""
    parser.add_argument("run", type=Path, help="folder of a completed run")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders with images anywhere below")
    parser.add_argument("--top", type=int, help="classes per image (default: 3)")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw the images with their classes: .png ..."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the classes of each image; exit status 3 where some could not be decoded."""
    from headstart.errors import ConfigError, DataError
    from headstart.progress import counted
    from headstart.records.pictures import check_picture
    from headstart.trained.predict import Predictor, check_kept, find_images

    if arguments.top is not None and arguments.top < 1:
        raise ConfigError(f"--top {arguments.top}: must be at least 1.")
    if arguments.plot:
        check_picture(arguments.plot)
    check_kept(arguments.run)
    images = find_images(arguments.images)
    predictor = Predictor(arguments.run)
    if arguments.top is not None and predictor.task == "regression":
        raise ConfigError(f"--top {arguments.top}: is for classes; {arguments.run} predicts numbers.")
    found = []
    with counted(len(images), what="images") as tell:
        for one in predictor.predict(images, top=arguments.top or 3):
            found.append(one)
            tell(len(found))
    failed = [one for one in found if one.error]
    if len(failed) == len(found):
        raise DataError(failed[0].error or "no image can be decoded.")
    _print([one for one in found if not one.error], how=arguments.format)
    for one in failed:
        print(one.error, file=sys.stderr)
    if arguments.plot:
        from headstart.inspection.pictures import MOST, Tile, draw_sheet

        good = [one for one in found if not one.error]
        tiles = [Tile(one.picture(), (one.path.name, *_words(one))) for one in good[:MOST]]
        draw_sheet(tiles, arguments.plot, title=f"{predictor.record.id}")
        if arguments.format == "table":
            print(f"Picture: {arguments.plot}")
    return 3 if failed else 0


def _words(one: Prediction) -> list[str]:
    if one.numbers:
        return [f"{name} {number:.6g}" for name, number in one.numbers]
    return [f"{name} {probability:.2f}" for name, probability in one.classes]


def _said(one: Prediction) -> str:
    """What the run's threshold makes of it."""
    return "" if one.predicted is None else f" -> {', '.join(one.predicted) or 'none'}"


def _print(predictions: Sequence[Prediction], *, how: str) -> None:
    from headstart.trained.predict import rows_of

    rows = [{key: value for key, value in row.items() if key != "error"} for row in rows_of(predictions)]
    if how == "json":
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif how == "csv":
        import csv

        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        for one in predictions:
            print(f"{one.path}: {', '.join(_words(one))}{_said(one)}")
