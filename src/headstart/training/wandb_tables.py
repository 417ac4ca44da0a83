"""What W&B shows of a test: mistakes with their pictures, and the confusion matrix."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import RecordError
from headstart.records.mistakes import errors_of
from headstart.records.schema import RunRecord
from headstart.records.tables import PREDICTIONS, read_predictions
from headstart.records.thumbnails import THUMBNAILS, read_thumbnails

MOST_CLASSES = 100
"""Of a confusion matrix: W&B is sent a row per pair of classes."""


def mistakes_of(folder: Path, record: RunRecord) -> Any | None:
    """A W&B table with a row per mistake that the run kept a picture of; None where there is none."""
    import wandb
    from PIL import Image

    try:
        pictures = read_thumbnails(folder / THUMBNAILS)
        numbers = record.data.get("task") == "regression"
        found = read_predictions(folder / PREDICTIONS, probabilities=not numbers) if pictures else {}
    except RecordError:
        return None
    names = [str(name) for name in record.data.get("class_names") or []]
    rows = []
    further = _off(found, record) if numbers and found else found.get("probability", np.empty(0))
    for name, target, predicted, values in (
        zip(found["id"], found["target"], found["predicted"], further, strict=True) if found else ()
    ):
        picture = pictures.get(str(name))
        if picture is None:
            continue
        try:
            image = Image.open(io.BytesIO(picture), formats=("PNG", "JPEG")).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        rows.append(
            [
                wandb.Image(image),
                str(name),
                _words(target, names),
                _words(predicted, names),
                float(values.max()),
            ]
        )
    columns = ["picture", "image", "class", "said", "standard deviations off" if numbers else "probability"]
    return wandb.Table(columns=columns, data=rows) if rows else None


def _off(found: dict[str, npt.NDArray[Any]], record: RunRecord) -> npt.NDArray[np.float64]:
    """How far each image's number is off that is furthest off."""
    targets, predicted = (_columns(found[key]) for key in ("target", "predicted"))
    return errors_of(targets, predicted, std=record.data.get("target_std")).size


def _columns(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return values.astype(np.float64).reshape(len(values), -1)


def _words(value: Any, names: list[str]) -> str:
    if np.asarray(value).dtype.kind == "f":
        return ", ".join(f"{name} {number:.6g}" for name, number in zip(names, np.atleast_1d(value), strict=True))
    if np.ndim(value):
        return ", ".join(name for name, there in zip(names, value, strict=True) if there) or "none"
    return names[int(value)]


def confusion_of(folder: Path, record: RunRecord) -> Any | None:
    """W&B's own chart of the confusion matrix on the test split; None where there is none, or over 100 classes."""
    import wandb

    names = [str(name) for name in record.data.get("class_names") or []]
    several = record.data.get("task") not in ("multiclass", "binary")
    if several or len(names) > MOST_CLASSES or not (folder / PREDICTIONS).is_file():
        return None
    try:
        found = read_predictions(folder / PREDICTIONS, probabilities=False)
    except RecordError:
        return None
    return wandb.plot.confusion_matrix(
        y_true=found["target"].tolist(),
        preds=found["predicted"].tolist(),
        class_names=names,
        title="confusion (test)",
    )
