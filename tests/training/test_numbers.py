"""Losses and metrics against direct float64 computations and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from headstart.config.schema.trainer import LossConfig
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.training.losses import build_loss
from headstart.training.metrics import confusion, evaluate

COUNTS = (10, 20, 30, 60)


def facts(task: str) -> DataFacts:
    return DataFacts(
        task=task, class_names=("a", "b", "c", "d"), channels=3, image_size=(8, 8),  # type: ignore[arg-type]
        sizes={"train": 120}, class_counts={"train": COUNTS}, fingerprint="", split_fingerprint="",
    )  # fmt: skip


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, classes and label sets; other ones every time."""
    generator = torch.Generator()
    generator.seed()
    scores = torch.randn(200, 4, generator=generator)
    classes = torch.randint(0, 4, (200,), generator=generator)
    labels = torch.randint(0, 2, (200, 4), generator=generator).float()
    return scores, classes, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced", [1.0, 2.0, 0.5, 3.0]])
def test_cross_entropy(drawn: tuple[torch.Tensor, ...], smoothing: float, weights: object) -> None:
    scores, classes, _ = drawn
    got = build_loss(LossConfig(label_smoothing=smoothing, class_weights=weights), facts("multiclass"))(
        scores, classes
    )
    x = scores.double().numpy()
    logp = x - np.log(np.exp(x).sum(1, keepdims=True))
    w = {"none": np.ones(4), "balanced": 120 / (4 * np.array(COUNTS))}.get(str(weights), np.array([1, 2, 0.5, 3]))
    target = np.eye(4)[classes.numpy()]
    hard = -(w * target * logp).sum(1)
    soft = -(w * logp).sum(1) / 4
    norm = w[classes.numpy()].sum()
    expected = (1 - smoothing) * hard.sum() / norm + smoothing * soft.sum() / norm
    assert float(got) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_binary_cross_entropy(drawn: tuple[torch.Tensor, ...], smoothing: float, weights: str) -> None:
    scores, _, labels = drawn
    got = build_loss(LossConfig(label_smoothing=smoothing, class_weights=weights), facts("multilabel"))(
        scores, labels
    )
    x, y = scores.double().numpy(), labels.double().numpy() * (1 - smoothing) + smoothing / 2
    w = np.ones(4) if weights == "none" else (120 - np.array(COUNTS)) / np.array(COUNTS)
    p = 1 / (1 + np.exp(-x))
    expected = -(w * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_losses_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"loss\.name=binary_cross_entropy: .* use cross_entropy"):
        build_loss(LossConfig(name="binary_cross_entropy"), facts("multiclass"))
    with pytest.raises(ConfigError, match="has 2 numbers for 4 classes"):
        build_loss(LossConfig(class_weights=[1, 2]), facts("multiclass"))


def test_metrics_of_one_class_per_image(drawn: tuple[torch.Tensor, ...]) -> None:
    scores, classes, _ = drawn
    keep = ~((classes == 0) & (torch.arange(200) % 4 > 0))  # imbalanced, so that micro is not macro
    scores, classes = scores[keep], classes[keep]
    got = evaluate(scores, classes, task="multiclass", split="test")
    p, y = scores.double().softmax(1).numpy(), classes.numpy()
    predicted = p.argmax(1)
    assert got["test/accuracy_micro"] == pytest.approx(sk.accuracy_score(y, predicted), abs=1e-6)
    assert got["test/accuracy_macro"] == pytest.approx(sk.balanced_accuracy_score(y, predicted), abs=1e-6)
    assert got["test/f1_macro"] == pytest.approx(sk.f1_score(y, predicted, average="macro"), abs=1e-6)
    assert got["test/auroc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-6)
    assert got["test/log_loss"] == pytest.approx(sk.log_loss(y, p, labels=range(4)), abs=1e-9)
    assert got["test/ece"] == pytest.approx(calibration_error(p, y), abs=1e-6)
    assert confusion(scores, classes, task="multiclass") == sk.confusion_matrix(y, predicted).tolist()


def calibration_error(p: np.ndarray, y: np.ndarray) -> float:
    sure, right = p.max(1), p.argmax(1) == y
    bins = np.clip(np.ceil(sure * 15).astype(int) - 1, 0, 14)
    gaps = [abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    return float(sum(gaps))


def test_metrics_of_several_labels_per_image(drawn: tuple[torch.Tensor, ...]) -> None:
    scores, _, labels = drawn
    got = evaluate(scores, labels, task="multilabel", split="val")
    p, y = scores.double().sigmoid().numpy(), labels.numpy().astype(int)
    assert got["val/map_macro"] == pytest.approx(sk.average_precision_score(y, p, average="macro"), abs=1e-6)
    assert got["val/f1_micro"] == pytest.approx(sk.f1_score(y, p >= 0.5, average="micro"), abs=1e-6)
    assert got["val/f1_macro"] == pytest.approx(sk.f1_score(y, p >= 0.5, average="macro"), abs=1e-6)
    entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert got["val/log_loss"] == pytest.approx(entropy, abs=1e-9)
    expected = sk.multilabel_confusion_matrix(y, p >= 0.5).reshape(4, 4).tolist()
    assert confusion(scores, labels, task="multilabel") == expected
