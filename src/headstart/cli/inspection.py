"""What a run gets wrong: its worst mistakes, the classes it confuses, its calibration, where it looks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.inspection.mistakes import Confusion, Mistake
    from headstart.inspection.pictures import Tile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run, and what to look at."""
    parser.add_argument("run", type=Path, help="folder of a run that was tested")
    parser.add_argument("--count", type=int, default=12, help="how many mistakes and pairs (default: 12)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the pictures go (default: `inspection` in the run)"
    )
    parser.add_argument(
        "--images", nargs="+", type=Path, default=[], metavar="IMAGE", help="draw where the model looks (Grad-CAM)"
    )
    parser.add_argument("--class", dest="target", metavar="NAME", help="for this class (default: the likeliest)")


def run(arguments: argparse.Namespace) -> int:
    """Print the mistakes, and draw them."""
    from headstart.errors import ConfigError
    from headstart.inspection.mistakes import (
        calibration,
        confused_pairs,
        described,
        read_tested,
        tested_record,
        worst_mistakes,
    )
    from headstart.inspection.pictures import Tile, draw_calibration

    if arguments.count < 1:
        raise ConfigError(f"--count {arguments.count}: must be at least 1.")
    if tested_record(arguments.run).data.get("task") == "regression":
        return _run_numbers(arguments)
    tested = read_tested(arguments.run)
    mistakes, pairs = worst_mistakes(tested, arguments.count), confused_pairs(tested, arguments.count)
    found = calibration(tested)
    folder = _folder(arguments)
    drawn = [folder / "calibration.png"]
    draw_calibration(found, drawn[0], title=tested.record.id)
    tiles = [
        Tile(one.picture, (f"{one.target}", f"said {one.said} {one.probability:.2f}"))
        for one in mistakes
        if one.picture
    ]
    drawn += _draw_tiles(arguments, folder, tiles, title="worst mistakes: what it is, what was said and how surely")
    if arguments.format == "json":
        value = {
            "mistakes": described(mistakes),
            "confused": [vars(pair) for pair in pairs],
            "calibration": vars(found),
            **({} if tested.record.threshold is None else {"threshold": tested.record.threshold}),
            "pictures": [str(path) for path in drawn],
        }
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return 0
    _print(mistakes, pairs)
    if tested.record.threshold is not None:
        print(f"threshold {tested.record.threshold:.4f}")
    print(f"expected calibration error {found.ece:.4f}")
    for path in drawn:
        print(f"Picture: {path}")
    return 0


def _folder(arguments: argparse.Namespace) -> Path:
    from headstart.errors import ConfigError

    folder: Path = arguments.output or arguments.run / "inspection"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output: cannot write to {folder} ({error.strerror}).") from error
    return folder


def _run_numbers(arguments: argparse.Namespace) -> int:
    """The same for a run that predicts numbers: the largest errors, and how good each number is."""
    from headstart.inspection.numbers import described, draw_numbers, qualities, read_numbers, worst_errors
    from headstart.inspection.pictures import Tile

    tested = read_numbers(arguments.run)
    errors, found = worst_errors(tested, arguments.count), qualities(tested)
    folder = _folder(arguments)
    drawn = [folder / "numbers.png"]
    draw_numbers(tested, drawn[0])
    tiles = [
        Tile(one.picture, (f"{one.name} {one.target:.6g}", f"said {one.said:.6g}")) for one in errors if one.picture
    ]
    drawn += _draw_tiles(arguments, folder, tiles, title="largest errors: what it is and what was said")
    if arguments.format == "json":
        value = {
            "errors": described(errors),
            "numbers": [vars(one) for one in found],
            "pictures": [str(path) for path in drawn],
        }
        print(json.dumps(value, indent=1, ensure_ascii=False))
        return 0
    for one in found:
        print(f"{one.name}: R2 {one.r2:.4f}, RMSE {one.rmse:.6g}, MAE {one.mae:.6g}, bias {one.bias:+.6g}")
    print("Largest errors:")
    for error in errors:
        print(
            f"  {error.id}: {error.name} {error.target:.6g}, said {error.said:.6g} "
            f"({error.deviations:.2f} standard deviations off)"
        )
    for path in drawn:
        print(f"Picture: {path}")
    return 0


def _print(mistakes: list[Mistake], pairs: list[Confusion]) -> None:
    if pairs:
        print("Most confused:")
        for pair in pairs:
            print(f"  {pair.target} taken for {pair.said}: {pair.count} of {pair.of}")
    if mistakes:
        print("Worst mistakes:")
        for one in mistakes:
            print(f"  {one.id}: {one.target}, said {one.said} ({one.probability:.3f}; {one.of_target:.3f} for it)")
    else:
        print("No mistakes.")


def _draw_tiles(arguments: argparse.Namespace, folder: Path, tiles: Sequence[Tile], *, title: str) -> list[Path]:
    """The sheet of what went wrong, and where the model looks in images that were named; returns their files."""
    from headstart.inspection.pictures import draw_sheet

    drawn = []
    if tiles:
        drawn.append(folder / "mistakes.png")
        draw_sheet(tiles, drawn[-1], title=title)
    if arguments.images:
        drawn.append(folder / "gradcam.png")
        _draw_cams(arguments.run, arguments.images, arguments.target, drawn[-1])
    return drawn


def _draw_cams(run: Path, images: list[Path], target: str | None, path: Path) -> None:
    """Where the model looks on each image, beside the image itself."""
    from headstart.errors import ConfigError, did_you_mean
    from headstart.inspection.pictures import MOST, Tile, draw_sheet
    from headstart.trained.gradcam import grad_cam
    from headstart.trained.predict import Predictor, find_images

    predictor = Predictor(run)
    if target is not None and target not in predictor.class_names:
        hint = did_you_mean(target, predictor.class_names) or f" There are {', '.join(predictor.class_names[:20])}."
        raise ConfigError(f"--class {target}: there is no such class.{hint}")
    tiles = []
    for image in find_images(images)[: MOST // 2]:
        tensor = predictor.tensor(image)
        numbers, binary = predictor.task == "regression", predictor.task == "binary"
        row = (predictor.outputs if numbers else predictor.probabilities)(tensor[None])[0]
        likeliest = 0 if numbers else int(row.argmax())
        chosen = predictor.class_names.index(target) if target is not None else likeliest
        output, against = (0, chosen == 0) if binary else (chosen, False)
        image_there = tensor.to(predictor.device)
        heat = grad_cam(predictor.model, image_there, target=output, against=against).double().numpy()
        seen = predictor.seen(image)
        value = f"{float(row[chosen]):.6g}" if numbers else f"{float(row[chosen]):.2f}"
        words = (image.name, f"{predictor.class_names[chosen]} {value}")
        tiles += [
            Tile(seen, words),
            Tile(seen, ("", "where it looks" if heat.any() else "nothing speaks for it"), heat),
        ]
    draw_sheet(tiles, path, title=f"Grad-CAM, {predictor.record.id}")
