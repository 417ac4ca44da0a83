"""What a run's model says of other images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torchvision.transforms.v2.functional import to_pil_image

from headstart.data.image_folder import SUFFIXES
from headstart.data.pictures import BAD_IMAGE, as_channels, open_picture, thumbnail
from headstart.errors import DataError, RecordError
from headstart.facts import Task
from headstart.records.store import read_record
from headstart.trained.load import load_run
from headstart.training.metrics import DEFAULT_THRESHOLD, predicted_of, probabilities_of

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """An image with its classes, the likeliest first, or its numbers; `error` says why there are none."""

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    """(name, probability); with several labels per image each probability stands for itself."""
    predicted: tuple[str, ...] | None = None
    """The labels above the run's threshold, or of two classes the one; None where the likeliest class is it."""
    numbers: tuple[tuple[str, float], ...] = ()
    """(name, number in the data's own units), in place of classes where the run predicts numbers."""
    error: str | None = None

    def picture(self, *, side: int = 160) -> bytes:
        """The image, small."""
        return thumbnail(open_picture(self.path.read_bytes()), side=side)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Images that `paths` stand for: files, and all images below folders, sorted. Raises DataError for none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
            if not below:
                raise DataError(f"{path}: has no images ({', '.join(sorted(SUFFIXES))}).")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path}: there is no such image.")
    return list(dict.fromkeys(found))


class Predictor:
    """A run's model and transform, on the GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        self.record = read_record(folder)
        self.model, self.transform = load_run(folder)
        self.class_names = [str(name) for name in self.record.data["class_names"]]
        self.task = cast(Task, self.record.data.get("task") or "multiclass")
        self.threshold = self.record.threshold or DEFAULT_THRESHOLD
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)

    def tensor(self, path: Path) -> torch.Tensor:
        """An image as the model takes it, (channels, height, width); raises DataError where it is none."""
        try:
            return self.transform(open_picture(path.read_bytes()))
        except BAD_IMAGE as error:
            raise DataError(f"{path}: cannot be decoded ({type(error).__name__}).") from error

    def seen(self, path: Path) -> bytes:
        """The part of an image that the model sees, as a PNG."""
        pixels = self.transform.geometry(as_channels(open_picture(path.read_bytes()), 3))
        target = io.BytesIO()
        to_pil_image(pixels).save(target, "PNG")
        return target.getvalue()

    @torch.no_grad()
    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) -> (n, outputs) in float32: scores, or numbers in the data's own units."""
        scores: torch.Tensor = self.model(images.to(self.device)).float().cpu()
        return scores

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) -> (n, classes) in float64."""
        return probabilities_of(self.outputs(images), task=self.task)

    def predict(self, paths: Sequence[Path], *, top: int) -> Iterator[Prediction]:
        """The `top` likeliest classes of each image, or its numbers; one that cannot be decoded is said so."""
        for begin in range(0, len(paths), BATCH):
            part = paths[begin : begin + BATCH]
            tensors: dict[Path, torch.Tensor] = {}
            errors: dict[Path, str] = {}
            for path in part:
                try:
                    tensors[path] = self.tensor(path)
                except DataError as error:
                    errors[path] = str(error)
            rows = self.outputs(torch.stack(list(tensors.values()))) if tensors else torch.empty(0, 0)
            of = dict(zip(tensors, rows, strict=True))
            for path in part:
                yield Prediction(path, error=errors[path]) if path in errors else self._of(path, of[path], top)

    def _of(self, path: Path, row: torch.Tensor, top: int) -> Prediction:
        if self.task == "regression":
            return Prediction(path, numbers=tuple(zip(self.class_names, row.tolist(), strict=True)))
        probabilities = probabilities_of(row[None], task=self.task)[0]
        values, places = probabilities.topk(min(top, len(probabilities)))
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        said: tuple[str, ...] | None = None
        if self.task != "multiclass":
            chosen = predicted_of(row[None], task=self.task, threshold=self.threshold)[0]
            kept = [int(chosen)] if self.task == "binary" else chosen.nonzero()[:, 0].tolist()
            said = tuple(self.class_names[place] for place in kept)
        return Prediction(path, tuple((self.class_names[place], value) for place, value in pairs), said)


def rows_of(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """A flat row per image: its path, then name and probability of each class, the likeliest first.

    `predicted` has the names of the labels that the run's threshold leaves, joined by commas. Of numbers a column
    per name.
    """
    rows = []
    for one in predictions:
        row: dict[str, Any] = {"image": str(one.path), "error": one.error}
        row |= {f"predicted {name}" if name in row else name: number for name, number in one.numbers}
        if one.predicted is not None:
            row["predicted"] = ",".join(one.predicted)
        for i, (name, probability) in enumerate(one.classes, start=1):
            row |= {f"class_{i}": name, f"probability_{i}": round(probability, 6)}
        rows.append(row)
    return rows


def check_kept(folder: Path) -> None:
    """Raise RecordError where a run has not completed, so that no weights were chosen."""
    record = read_record(folder)
    if record.status != "completed":
        raise RecordError(f"{folder}: this run is {record.status}; only a completed one has chosen its weights.")
