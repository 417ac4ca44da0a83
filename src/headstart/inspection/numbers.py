"""What a run that predicts numbers gets wrong: the largest errors, and how good each number is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import RecordError
from headstart.inspection.mistakes import tested_record
from headstart.records.mistakes import errors_of
from headstart.records.pictures import check_picture, write_picture
from headstart.records.schema import RunRecord
from headstart.records.tables import PREDICTIONS, read_predictions
from headstart.records.thumbnails import THUMBNAILS, read_thumbnails

Floats = npt.NDArray[np.float64]
MOST_PANELS = 6
_INK, _DOT = "#1f2933", "#2a6f97"


@dataclass(frozen=True)
class TestedNumbers:
    """A run with what it said of its test images: `targets` and `predicted` are (n, numbers) in their own units."""

    record: RunRecord
    ids: npt.NDArray[np.str_]
    targets: Floats
    predicted: Floats
    pictures: dict[str, bytes]

    @property
    def names(self) -> list[str]:
        """Names of the numbers."""
        return [str(name) for name in self.record.data["class_names"]]


@dataclass(frozen=True)
class Error:
    """A test image, and the number of it that is furthest off."""

    id: str
    name: str
    target: float
    said: float
    deviations: float
    """How far off, in standard deviations of the training targets."""
    picture: bytes | None = None


@dataclass(frozen=True)
class Quality:
    """How good one number is over the test images, in its own unit."""

    name: str
    r2: float
    rmse: float
    mae: float
    bias: float
    """Mean of what was said minus what it is."""


def read_numbers(folder: Path) -> TestedNumbers:
    """Read the predictions of a run whose targets are numbers; raises RecordError where it was not tested."""
    record = tested_record(folder)
    found = read_predictions(folder / PREDICTIONS, probabilities=False)
    targets, predicted = (
        found[key].astype(np.float64).reshape(len(found["id"]), -1) for key in ("target", "predicted")
    )
    if targets.shape != predicted.shape or targets.shape[1] != len(record.data.get("class_names") or []):
        raise RecordError(f"{folder / PREDICTIONS}: does not fit the numbers of {folder.name}.")
    pictures = read_thumbnails(folder / THUMBNAILS)
    return TestedNumbers(record, found["id"].astype(np.str_), targets, predicted, pictures)


def worst_errors(tested: TestedNumbers, count: int) -> list[Error]:
    """The images that are furthest off, in standard deviations, the worst first."""
    std: Sequence[Any] | None = tested.record.data.get("target_std")
    found = errors_of(tested.targets, tested.predicted, std=std)
    worst = []
    for i in found.places[:count]:
        number, id = int(found.number[i]), str(tested.ids[i])
        target, said = float(tested.targets[i, number]), float(tested.predicted[i, number])
        off = float(found.size[i])
        worst.append(Error(id, tested.names[number], target, said, off, tested.pictures.get(id)))
    return worst


def qualities(tested: TestedNumbers) -> list[Quality]:
    """A row per number; R2 is 1 or 0 where all its targets are equal, as in the metrics."""
    found = []
    for name, target, said in zip(tested.names, tested.targets.T, tested.predicted.T, strict=True):
        residual = float(((said - target) ** 2).sum())
        total = float(((target - target.mean()) ** 2).sum())
        r2 = 1 - residual / total if total else float(residual == 0)
        mae, bias = float(np.abs(said - target).mean()), float((said - target).mean())
        found.append(Quality(name, r2, float(np.sqrt(residual / len(target))), mae, bias))
    return found


def described(errors: Sequence[Error]) -> list[dict[str, object]]:
    """Plain data, without the pictures."""
    return [{key: value for key, value in asdict(one).items() if key != "picture"} for one in errors]


def draw_numbers(tested: TestedNumbers, path: Path) -> None:
    """Write what was said against what it is, a panel per number; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    shown = qualities(tested)[:MOST_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.6 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for i, (axes, one) in enumerate(zip(grid, shown, strict=False)):
        target, said = tested.targets[:, i], tested.predicted[:, i]
        ends = [float(min(target.min(), said.min())), float(max(target.max(), said.max()))]
        axes.plot(ends, ends, color="#9aa5b1", linewidth=1, linestyle=":")
        axes.plot(target, said, "o", color=_DOT, markersize=3, alpha=0.6)
        axes.set_title(f"{one.name}: R2 {one.r2:.3f}", fontsize=8, color=_INK, parse_math=False)
        axes.set_xlabel("what it is")
        axes.set_ylabel("what was said")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(tested.record.id, fontsize=8, color=_INK, parse_math=False)
    write_picture(figure, path)
