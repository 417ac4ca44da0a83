"""Which mistakes are kept as pictures, and the file that they are kept in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import RunTiny

from headstart.data.pictures import thumbnail
from headstart.errors import DataError, RecordError
from headstart.records.mistakes import misses
from headstart.records.tables import read_predictions
from headstart.records.thumbnails import read_thumbnails, write_thumbnails
from headstart.training.mistakes import choose_mistakes


def test_mistakes_are_taken_from_the_classes_in_turn_the_worst_first() -> None:
    targets = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [[0.1, 0.8, 0.1], [0.4, 0.5, 0.1], [0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.95, 0.05, 0.0], [0.0, 0.1, 0.9]]
    )
    predicted = probabilities.argmax(axis=1)
    assert choose_mistakes(targets, predicted, probabilities, count=10) == [4, 0, 3, 1]
    assert choose_mistakes(targets, predicted, probabilities, count=2) == [4, 0]
    assert choose_mistakes(targets, predicted, probabilities, count=0) == []


def test_with_several_labels_one_wrong_label_is_a_mistake() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1]])
    probabilities = np.array([[0.9, 0.2], [0.6, 0.1], [0.7, 0.8]])
    assert choose_mistakes(targets, (probabilities > 0.5).astype(int), probabilities, count=5) == [1, 2]
    # above 0.15 the second image lacks its second label still, and the first has one too many
    assert choose_mistakes(targets, (probabilities > 0.15).astype(int), probabilities, count=5) == [1, 2, 0]
    # at 0.75 the second label is right, although its probability is further off than that of the first
    found = misses(np.array([[1, 0]]), np.array([[0, 0]]), np.array([[0.6, 0.7]]))
    assert (found.places.tolist(), found.label.tolist(), found.of_target.tolist()) == ([0], [0], [0.6])


def test_a_run_keeps_pictures_of_its_mistakes_alone(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny()
    predictions = read_predictions(folder / "predictions.parquet")
    wrong = set(predictions["id"][predictions["predicted"] != predictions["target"]])
    kept = read_thumbnails(folder / "pictures.parquet")
    assert set(kept) <= wrong
    assert len(kept) == min(48, len(wrong))
    assert Image.open(io.BytesIO(next(iter(kept.values())))).size == (8, 8)  # as the digits are
    few, _ = run_tiny("trainer.pictures=3")
    assert len(read_thumbnails(few / "pictures.parquet")) == 3
    none, _ = run_tiny("trainer.pictures=0")
    assert not (none / "pictures.parquet").exists()
    assert read_thumbnails(none / "pictures.parquet") == {}


def test_thumbnails_are_small() -> None:
    large = thumbnail(Image.new("RGB", (400, 200), "red"), side=96)
    assert Image.open(io.BytesIO(large)).size == (96, 48)
    assert Image.open(io.BytesIO(large)).format == "JPEG"
    assert Image.open(io.BytesIO(thumbnail(np.zeros((20, 10), np.uint8), side=96))).format == "PNG"
    with pytest.raises(DataError, match="7 channels"):
        thumbnail(np.zeros((20, 10, 7), np.uint8), side=96)


def test_what_is_no_picture_is_left_out_and_a_damaged_file_said() -> None:
    path = Path("pictures.parquet")
    good = thumbnail(Image.new("RGB", (5, 5)), side=96)
    huge = good + b"\0" * 100_000
    write_thumbnails(path, {"a": good, "b": b"<svg onload=alert(1)>", "c": huge})
    assert read_thumbnails(path) == {"a": good}
    path.write_bytes(b"PAR1")
    with pytest.raises(RecordError, match=r"pictures\.parquet: cannot be read"):
        read_thumbnails(path)
