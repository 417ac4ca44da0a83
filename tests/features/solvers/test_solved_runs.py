"""Whole runs whose head is solved: what scikit-learn makes of the same features, and all that a run is good for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from tests.conftest import RunTiny

import headstart
from headstart.cli import main
from headstart.config.plain import read_config
from headstart.errors import WeightsError
from headstart.preparation import prepare
from headstart.records.schema import RunRecord
from headstart.records.tables import read_rows
from headstart.trained.onnx_export import export_onnx

SOLVED = ("strategy=linear_probe", "trainer.max_epochs=null", "data.val_size=60")


def features_of(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Features and classes of each split, by the saved model's own backbone."""
    model, _ = headstart.load(folder)
    data = prepare(read_config(folder / "config.yaml")).data
    loaders = {
        "train": data.plain_train_dataloader(),
        "val": data.val_dataloader(),
        "test": data.test_dataloader(),
    }
    found = {}
    for name, loader in loaders.items():
        features, targets = [], []
        for batch in loader:
            with torch.no_grad():
                features.append(model.backbone(data.on_after_batch_transfer(batch, 0)["image"]))  # type: ignore[operator]
            targets.append(batch["target"])
        found[name] = torch.cat(features).double().numpy(), torch.cat(targets).numpy()
    return found


def expected_accuracy(solver: str, folder: Path, record: RunRecord) -> float:
    """Of scikit-learn's model with the chosen strength on the same features."""
    parts, chosen = features_of(folder), record.features["solver"]
    features, targets = parts["train"]
    if record.config["data"]["refit_on_val"]:
        assert chosen["refitted"]
    if solver == "lbfgs":
        logistic = LogisticRegression(C=1 / (2 * chosen["penalty"]), tol=1e-8, max_iter=5000)
        centred = features - features.mean(axis=0)
        return float(
            logistic.fit(centred, targets).score(parts["test"][0] - features.mean(axis=0), parts["test"][1])
        )
    if solver == "ridge":
        ridge = Ridge(alpha=chosen["penalty"]).fit(features, np.eye(10)[targets] * 2 - 1)
        return float((ridge.predict(parts["test"][0]).argmax(axis=1) == parts["test"][1]).mean())
    voting = KNeighborsClassifier(
        chosen["neighbors"], metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07), algorithm="brute"
    )
    return float(voting.fit(features, targets).score(*parts["test"]))


@pytest.mark.parametrize(("solver", "refit"), [("lbfgs", False), ("lbfgs", True), ("ridge", False), ("knn", True)])
def test_a_run_tests_what_scikit_learn_would(run_tiny: RunTiny, solver: str, refit: bool) -> None:
    folder, record = run_tiny(*SOLVED, f"head.solver={solver}", f"data.refit_on_val={str(refit).lower()}")
    assert record.status == "completed"
    assert record.metrics["test/accuracy_micro"] == pytest.approx(
        expected_accuracy(solver, folder, record), abs=0.011
    )
    assert record.metrics["test/accuracy_micro"] > 0.45
    rows = read_rows(folder / "metrics.csv")
    key = "neighbors" if solver == "knn" else "penalty"
    strengths = record.config["head"]["neighbors" if solver == "knn" else "penalties"]
    assert [row[key] for row in rows[: len(strengths)]] == sorted(strengths, reverse=True)
    assert len(rows) == len(strengths) + refit
    assert record.features["solver"][key] == rows[record.best["step"] - 1][key]
    assert record.best["value"] == max(row["val/accuracy_micro"] for row in rows[: len(strengths)])


@pytest.mark.parametrize("solver", ["lbfgs", "knn"])
def test_a_run_comes_out_again_and_predicts(
    run_tiny: RunTiny, solver: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run_tiny(*SOLVED, f"head.solver={solver}", "data=image_folder", f"data.path={photos}", "data.val_size=9",
                         "data.test_size=9", "data.train_size=18")  # fmt: skip
    assert main(["reproduce", str(folder)]) == 0
    assert "identical: predictions and final weights" in capsys.readouterr().out
    assert main(["predict", str(folder), str(photos)]) == 0
    assert "red/" in capsys.readouterr().out
    assert main(["evaluate", str(folder), "data=image_folder", f"data.path={photos}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["lbfgs", "ridge", "knn"])
def test_a_solved_head_is_exported(run_tiny: RunTiny, solver: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder, _ = run_tiny(*SOLVED, f"head.solver={solver}")
    assert export_onnx(folder, tmp_path / "model.onnx").largest_difference <= 1e-4


def test_one_of_two_classes(run_tiny: RunTiny) -> None:
    for solver in ("lbfgs", "ridge", "knn"):
        _, record = run_tiny(*SOLVED, f"head.solver={solver}", "data.classes=[3,8]", "data.positive='8'",
                             "data.train_size=60")  # fmt: skip
        assert record.data["task"] == "binary"
        assert record.metrics["test/auroc"] > 0.8
        assert record.threshold == record.metrics["val/threshold"]


def test_voting_images_are_no_classifier_to_go_on_with(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny(*SOLVED, "head.solver=knn")
    with pytest.raises(WeightsError, match="is not one linear layer"):
        run_tiny("weights=run", f"weights.path={folder}", "regularizer=[co_tuning]")
