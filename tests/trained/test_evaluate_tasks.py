"""`headstart evaluate` of runs whose images have two classes, several labels or numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics
from tests.conftest import RunTiny

from headstart.cli import main
from headstart.records.store import read_record
from headstart.records.tables import read_predictions
from headstart.trained.judging import metrics_of


def table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, seed: int) -> Path:
    """A table of images that are as red as the first number of a row says, from 0 to 1, and as blue as the last."""
    folder = Path(name)
    folder.mkdir()
    random = np.random.default_rng(seed)
    lines = [",".join(["path", *columns])]
    for i, row in enumerate(rows):
        red, blue, *cells = row
        pixels = random.integers(0, 60, (32, 32, 3))
        pixels[..., 0] += int(190 * red)
        pixels[..., 2] += int(190 * blue)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
        lines.append(",".join([f"{i:03d}.png", *map(str, cells)]))
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


WORDS = ("data=csv", "data.test_size=15", "data.train_size=40", "data.batch_size=8", "trainer.max_epochs=2")


def evaluated(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    entry = json.loads((folder / "run.json").read_text())["evaluations"][name]
    return entry, read_predictions(folder / entry["predictions"]["file"], probabilities=False)


def test_numbers(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    """In the data's own units, whatever the order of the columns; and spoilt."""
    random = np.random.default_rng(0)
    reds, blues = random.random(70), random.random(70)
    home = [(r, b, f"{300 + 50 * r:.4f}", f"{b:.4f}") for r, b in zip(reds, blues, strict=True)]
    away = [(r, b, f"{b:.4f}", "x", f"{300 + 50 * r:.4f}") for r, b in zip(reds[:9], blues[:9], strict=True)]
    path = table("home", ["warmth", "depth"], home, seed=1)
    other = table("away", ["depth", "by", "warmth"], away, seed=2)
    words = (f"data.path={path}", "data.label_column=[warmth,depth]", "data.task=regression")
    folder, record = run_tiny(*WORDS, *words)
    assert record.data["task"] == "regression"
    columns = "data.label_column=[depth,warmth]"
    assert main(["evaluate", str(folder), f"data.path={other}", columns, "--name", "away"]) == 0
    entry, rows = evaluated(folder, "away")
    targets = np.array([[float(row[4]), float(row[2])] for row in away])
    assert [rows["id"].tolist(), rows["target"].tolist()] == [[f"{i:03d}.png" for i in range(9)], targets.tolist()]
    assert entry["metrics"]["mae"] == pytest.approx(
        metrics.mean_absolute_error(targets, rows["predicted"]), rel=1e-4
    )
    assert entry["metrics"]["r2"] == pytest.approx(metrics.r2_score(targets, rows["predicted"]), rel=1e-3)
    assert main(["evaluate", str(folder), "--corrupt", "contrast", "--severity", "5"]) == 0
    assert "contrast" in capsys.readouterr().out
    assert main(["evaluate", str(folder), f"data.path={other}", "data.label_column=[depth]", "--name", "less"]) == 2
    assert "data: has no 'warmth'; the run predicts warmth, depth." in capsys.readouterr().err
    assert main(["compare", str(folder)]) == 0
    assert "away" in capsys.readouterr().out


def test_two_classes(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    """By their names, by the threshold of the run; of one class alone what can be said of it."""
    random = np.random.default_rng(0)
    reds = random.random(70)
    home = [(r, 0, "warm" if r + random.normal(0, 0.2) > 0.5 else "cold") for r in reds]
    path = table("home", ["kind"], home, seed=1)
    folder, _ = run_tiny(*WORDS, f"data.path={path}", "data.label_column=kind", "data.positive=cold")
    record = read_record(folder)
    assert record.data["class_names"] == ["warm", "cold"]
    other = table("away", ["kind"], [(r, 0, "warm" if r > 0.4 else "cold") for r in reds[:20]], seed=2)
    assert main(["evaluate", str(folder), f"data.path={other}", "--name", "away"]) == 0
    entry, rows = evaluated(folder, "away")
    truth = np.array([int(r <= 0.4) for r in reds[:20]])
    assert rows["target"].tolist() == truth.tolist()
    p = read_predictions(folder / "predictions-away.parquet")["probability"][:, 1]
    assert rows["predicted"].tolist() == (p > (record.threshold or 0.5)).astype(int).tolist()
    assert entry["metrics"]["accuracy_micro"] == pytest.approx((rows["predicted"] == truth).mean())
    assert entry["metrics"]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, p))
    alone = table("alone", ["kind"], [(r, 0, "warm") for r in reds[:7]], seed=3)
    assert main(["evaluate", str(folder), f"data.path={alone}", "data.task=multiclass", "--name", "alone"]) == 0
    entry, rows = evaluated(folder, "alone")
    assert "No images of cold" in capsys.readouterr().out
    assert entry["metrics"]["auroc"] is None
    assert entry["metrics"]["recall"] is None
    assert entry["metrics"]["specificity"] == pytest.approx((rows["predicted"] == 0).mean())
    assert entry["metrics"]["accuracy_macro"] == entry["metrics"]["accuracy_micro"]
    numbers = table("numbers", ["kind"], [(r, 0, f"{r:.3f}") for r in reds[:7]], seed=4)
    assert main(["evaluate", str(folder), f"data.path={numbers}", "data.task=regression", "--name", "no"]) == 2
    assert "its images have numbers, and the run's one class each" in capsys.readouterr().err


def test_several_labels(run_tiny: RunTiny) -> None:
    random = np.random.default_rng(0)
    shades = [(float(r), float(b)) for r, b in random.integers(0, 2, (70, 2))]

    def row(r: float, b: float) -> tuple[Any, ...]:
        return r, b, "+".join(["grey", *(["red"] if r else []), *(["blue"] if b else [])])

    path = table("home", ["kinds"], [row(*one) for one in shades], seed=1)
    words = (f"data.path={path}", "data.label_column=kinds", "data.label_separator=+")
    folder, record = run_tiny(*WORDS, *words)
    assert record.data["task"] == "multilabel"
    other = table("away", ["kinds"], [row(r, 0.0) for r, _ in shades[:20]], seed=2)
    assert main(["evaluate", str(folder), f"data.path={other}", "data.task=multilabel", "--name", "away"]) == 0
    entry, rows = evaluated(folder, "away")
    names = record.data["class_names"]
    there = [i for i, name in enumerate(names) if name != "blue"]
    assert rows["target"].sum(axis=0).tolist() == entry["data"]["class_counts"]
    assert entry["data"]["class_counts"][names.index("blue")] == 0
    expected = metrics.f1_score(rows["target"][:, there], rows["predicted"][:, there], average="micro")
    assert entry["metrics"]["f1_micro"] == pytest.approx(expected)


def test_the_threshold_counts() -> None:
    scores, targets = torch.tensor([[0.2], [0.5], [-1.0]]), torch.tensor([1, 0, 0])
    low = metrics_of(scores, targets, task="binary", threshold=0.6)
    assert low["accuracy_micro"] == pytest.approx(1 / 3)
    assert metrics_of(scores, targets, task="binary", threshold=0.5)["accuracy_micro"] == pytest.approx(2 / 3)
