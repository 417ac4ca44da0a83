"""`headstart inspect`: mistakes, confusions and calibration against direct computation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.compare.test_compare import ARMS, made
from tests.conftest import RunTiny

from headstart.cli import main
from headstart.inspection.mistakes import calibration, confused_pairs, read_tested, worst_mistakes
from headstart.records.schema import RunRecord
from headstart.records.store import write_record
from headstart.records.tables import write_predictions


def written(
    targets: np.ndarray, probabilities: np.ndarray, *, task: str = "multiclass", threshold: float | None = None
) -> Path:
    record: RunRecord = made(ARMS[0], 0, 0.5)
    names = [f"c{i}" for i in range(probabilities.shape[1])]
    record.data = {**record.data, "class_names": names, "task": task}
    record.threshold = threshold
    above = threshold or 0.5
    predicted = {
        "multiclass": probabilities.argmax(axis=1),
        "multilabel": (probabilities > above).astype(int),
        "binary": (probabilities[:, 1] > above).astype(int),
    }[task]
    folder = Path("run")
    folder.mkdir()
    write_record(folder, record)
    ids = [f"{i}.png" for i in range(len(targets))]
    write_predictions(folder / "predictions.parquet", ids=ids, targets=targets, predicted=predicted, probabilities=probabilities.astype(np.float32))  # fmt: skip
    return folder


def test_mistakes_and_confusions_by_hand() -> None:
    targets = np.array([0, 0, 1, 1, 2, 2])
    p = np.array([[0.1, 0.9, 0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0, 0, 1], [0.5, 0.05, 0.45]])
    tested = read_tested(written(targets, p))
    worst = worst_mistakes(tested, 3)
    assert [(one.id, one.target, one.said) for one in worst] == [
        ("0.png", "c0", "c1"), ("1.png", "c0", "c1"), ("3.png", "c1", "c0"),
    ]  # fmt: skip
    assert (worst[0].probability, worst[0].of_target) == pytest.approx((0.9, 0.1))
    pairs = confused_pairs(tested, 10)
    assert [(one.target, one.said, one.count, one.of) for one in pairs] == [
        ("c0", "c1", 2, 2), ("c1", "c0", 1, 2), ("c2", "c0", 1, 2),
    ]  # fmt: skip
    found = calibration(tested)
    # confidences 0.9, 0.7, 0.8, 0.6, 1.0, 0.5, each in a bin of its own; right are the third and the fifth
    assert found.ece == pytest.approx((0.9 + 0.7 + 0.2 + 0.6 + 0 + 0.5) / 6, abs=1e-6)
    assert found.counts == (1,) * 6


def test_several_labels() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1]])
    p = np.array([[0.9, 0.2], [0.6, 0.1], [0.7, 0.8]])
    tested = read_tested(written(targets, p, task="multilabel"))
    assert [(one.id, one.target, one.said) for one in worst_mistakes(tested, 5)] == [
        ("1.png", "c1", "not c1"), ("2.png", "not c0", "c0"),
    ]  # fmt: skip
    assert confused_pairs(tested, 5) == []
    assert sum(calibration(tested).counts) == 6


def test_two_classes_are_told_apart_by_the_threshold() -> None:
    targets = np.array([0, 0, 1, 1])
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    tested = read_tested(written(targets, p, task="binary", threshold=0.3))
    assert [(one.id, one.target, one.said, one.probability) for one in worst_mistakes(tested, 5)] == [
        ("2.png", "c1", "c0", pytest.approx(0.8)), ("1.png", "c0", "c1", pytest.approx(0.4)),
    ]  # fmt: skip
    assert {(one.target, one.said, one.count) for one in confused_pairs(tested, 5)} == {
        ("c0", "c1", 1), ("c1", "c0", 1),
    }  # fmt: skip


def test_the_calibration_of_two_classes_is_that_of_the_positive_one() -> None:
    """Not of the likelier one, by which both images would share a bin, one right and one wrong."""
    tested = read_tested(written(np.array([0, 0]), np.array([[0.9, 0.1], [0.1, 0.9]]), task="binary"))
    assert calibration(tested).ece == pytest.approx((0.1 + 0.9) / 2, abs=1e-6)


def test_a_run_is_inspected(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    folder, record = run_tiny(
        "data=image_folder", f"data.path={photos}", "data.train_size=12", "data.test_size=9", "data.batch_size=8"
    )
    image = str(photos / "red" / "00.jpg")
    assert main(["inspect", str(folder), "--images", image, "--format", "json"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    assert loaded["calibration"]["ece"] == pytest.approx(record.metrics["test/ece"], abs=1e-5)
    wrong = sum(pair["count"] for pair in loaded["confused"])
    assert wrong == len(loaded["mistakes"]) == round(9 * (1 - (record.metrics["test/accuracy_micro"] or 0)))
    assert [Path(path).name for path in loaded["pictures"]] == ["calibration.png", "mistakes.png", "gradcam.png"]
    for path in loaded["pictures"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert main(["inspect", str(folder), "--output", "elsewhere"]) == 0
    shown = capsys.readouterr().out
    assert "Most confused:" in shown
    assert "Picture: elsewhere/mistakes.png" in shown
    assert main(["inspect", str(folder), "--images", image, "--class", "rde"]) == 2
    assert "--class rde: there is no such class. Did you mean 'red'" in capsys.readouterr().err


def test_a_run_without_a_test(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run_tiny("trainer.test=false")
    assert main(["inspect", str(folder)]) == 2
    assert "has no predictions.parquet (it was not tested)" in capsys.readouterr().err
    assert main(["inspect", "nowhere"]) == 2
    assert main(["inspect", str(folder), "--count", "0"]) == 2
