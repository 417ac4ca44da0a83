"""Binary labels, numbers, focal losses and thresholds against scikit-learn, torchvision and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from headstart.config.schema.trainer import LossConfig
from headstart.errors import ConfigError
from headstart.facts import DataFacts
from headstart.training.losses import build_loss, resolve_loss
from headstart.training.metrics import best_threshold, confusion, evaluate, probabilities_of

COUNTS = {"binary": (30, 90), "multiclass": (10, 20, 30, 60), "multilabel": (10, 20, 30, 60), "regression": ()}


def facts(task: str) -> DataFacts:
    names = {"binary": ("no", "yes"), "regression": ("age", "size")}.get(task, ("a", "b", "c", "d"))
    numbers = {"target_mean": (5.0, -1.0), "target_std": (2.0, 0.25)} if task == "regression" else {}
    return DataFacts(
        task=task, class_names=names, channels=3, image_size=(8, 8), sizes={"train": 120},  # type: ignore[arg-type]
        class_counts={"train": COUNTS[task]}, fingerprint="", split_fingerprint="", **numbers,  # type: ignore[arg-type]
    )  # fmt: skip


def drawn(*shape: int) -> torch.Tensor:
    """Other numbers every time."""
    generator = torch.Generator()
    generator.seed()
    return torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_is_that_of_one_score(smoothing: float) -> None:
    scores, targets = drawn(50, 1), (drawn(50) > 0.5).long()
    got = build_loss(LossConfig(label_smoothing=smoothing), facts("binary"))(scores, targets)
    p, y = torch.sigmoid(scores[:, 0].double()), targets.double() * (1 - smoothing) + smoothing / 2
    assert float(got) == pytest.approx(float(-(y * p.log() + (1 - y) * (1 - p).log()).mean()), rel=1e-6)


@pytest.mark.parametrize(("weights", "expected"), [("balanced", (2.0, 2 / 3)), ([1.0, 5.0], (1.0, 5.0))])
def test_binary_weights_are_of_both_classes(weights: object, expected: tuple[float, float]) -> None:
    scores, targets = drawn(50, 1), (drawn(50) > 0.5).long()
    got = build_loss(LossConfig(class_weights=weights), facts("binary"))(scores, targets)
    w = np.array(expected)[targets.numpy()]
    p = torch.sigmoid(scores[:, 0].double()).numpy()
    each = -np.log(np.where(targets.numpy() == 1, p, 1 - p))
    assert float(got) == pytest.approx((w * each).sum() / w.sum(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_of_classes(gamma: float) -> None:
    scores, targets = drawn(50, 4), drawn(50, 4).argmax(dim=1)
    weights = [1.0, 2.0, 0.5, 3.0]
    got = build_loss(LossConfig(name="focal", gamma=gamma, class_weights=weights), facts("multiclass"))
    p = scores.double().softmax(dim=1).numpy()[np.arange(50), targets.numpy()]
    alpha = np.array(weights)[targets.numpy()]
    expected = (-alpha * (1 - p) ** gamma * np.log(p)).sum() / alpha.sum()
    assert float(got(scores, targets)) == pytest.approx(expected, rel=1e-5)
    if gamma == 0:
        entropy = F.cross_entropy(scores, targets, weight=torch.tensor(weights))
        assert float(got(scores, targets)) == pytest.approx(float(entropy), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_loss_of_labels_is_torchvisions(gamma: float) -> None:
    scores, labels = drawn(50, 4), (drawn(50, 4) > 0).float()
    plain = build_loss(LossConfig(name="focal", gamma=gamma), facts("multilabel"))(scores, labels)
    expected = sigmoid_focal_loss(scores, labels, alpha=-1, gamma=gamma, reduction="mean")
    assert float(plain) == pytest.approx(float(expected), rel=1e-5)
    alpha = 0.8  # theirs weighs positives by alpha and negatives by 1 - alpha: ours by the ratio
    weighted = LossConfig(name="focal", gamma=gamma, class_weights=[alpha / (1 - alpha)] * 4)
    theirs = sigmoid_focal_loss(scores, labels, alpha=alpha, gamma=gamma, reduction="mean") / (1 - alpha)
    assert float(build_loss(weighted, facts("multilabel"))(scores, labels)) == pytest.approx(
        float(theirs), rel=1e-5
    )


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_focal_loss_of_what_is_certain_has_a_slope(task: str) -> None:
    width = {"binary": 1}.get(task, 4)
    scores = torch.full((3, width), 200.0).requires_grad_()
    targets = torch.ones(3, width) if task == "multilabel" else torch.ones(3, dtype=torch.long)
    build_loss(LossConfig(name="focal", gamma=0.5), facts(task))(scores, targets).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_the_default_gamma_is_two_and_a_binary_focal_loss_is_that_of_its_label() -> None:
    scores, targets = drawn(50, 1), (drawn(50) > 0).long()
    got = build_loss(LossConfig(name="focal"), facts("binary"))(scores, targets)
    expected = sigmoid_focal_loss(scores[:, 0], targets.float(), alpha=-1, gamma=2.0, reduction="mean")
    assert float(got) == pytest.approx(float(expected), rel=1e-5)
    assert resolve_loss(LossConfig(name="focal"), facts("binary")).gamma == 2.0


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("auto", lambda z: z**2),
        ("mae", np.abs),
        ("smooth_l1", lambda z: np.where(np.abs(z) < 1, z**2 / 2, np.abs(z) - 0.5)),
    ],
)
def test_losses_of_numbers_are_in_standard_deviations(name: str, each: object) -> None:
    numbers, targets = 3 * drawn(50, 2), drawn(50, 2)
    got = build_loss(LossConfig(name=name), facts("regression"))(numbers, targets)
    z = (numbers.double() - targets.double()).numpy() / np.array([2.0, 0.25])
    assert float(got) == pytest.approx(each(z).mean(), rel=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("task", "loss", "said"),
    [
        ("binary", LossConfig(name="cross_entropy"), "use binary_cross_entropy or focal"),
        ("regression", LossConfig(name="focal"), "the targets are numbers; use mse or mae or smooth_l1"),
        ("regression", LossConfig(class_weights="balanced"), "loss.class_weights=balanced: are for classes"),
        ("regression", LossConfig(label_smoothing=0.1), "loss.label_smoothing=0.1: is for classes"),
        ("multilabel", LossConfig(name="mse"), "have several labels each; use binary_cross_entropy or focal"),
        ("binary", LossConfig(class_weights=[1, 2, 3]), "has 3 numbers for 2 classes"),
    ],
)
def test_losses_that_do_not_fit_a_task(task: str, loss: LossConfig, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_loss(loss, facts(task))
    assert said in str(error.value)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_binary_metrics_are_scikit_learns(threshold: float) -> None:
    scores, targets = drawn(200, 1), (drawn(200) > 0.7).long()
    scores = scores + targets[:, None]
    got = evaluate(scores, targets, task="binary", split="test", threshold=threshold)
    p, y = scores[:, 0].double().sigmoid().numpy(), targets.numpy()
    said = (p > threshold).astype(int)
    expected = {
        "auroc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "accuracy_micro": sk.accuracy_score(y, said),
        "accuracy_macro": sk.balanced_accuracy_score(y, said),
        "f1": sk.f1_score(y, said),
        "precision": sk.precision_score(y, said),
        "recall": sk.recall_score(y, said),
        "specificity": sk.recall_score(y, said, pos_label=0),
        "log_loss": sk.log_loss(y, p),
    }
    for name, value in expected.items():
        assert got[f"test/{name}"] == pytest.approx(value, abs=1e-6), name
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = [abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    assert got["test/ece"] == pytest.approx(sum(gaps), abs=1e-6)
    found = confusion(scores, targets, task="binary", threshold=threshold)
    assert found == sk.confusion_matrix(y, said).tolist()
    np.testing.assert_allclose(probabilities_of(scores, task="binary").numpy(), np.stack([1 - p, p], axis=1))


def test_labels_are_counted_above_the_threshold() -> None:
    scores, labels = drawn(200, 4), (drawn(200, 4) > 0.5).long()
    p, y = scores.double().sigmoid().numpy(), labels.numpy()
    got = evaluate(scores, labels, task="multilabel", split="val", threshold=0.2)
    assert got["val/f1_micro"] == pytest.approx(sk.f1_score(y, p > 0.2, average="micro"), abs=1e-6)
    assert got["val/f1_macro"] == pytest.approx(sk.f1_score(y, p > 0.2, average="macro"), abs=1e-6)
    assert got["val/map_macro"] == pytest.approx(sk.average_precision_score(y, p, average="macro"), abs=1e-6)
    expected = sk.multilabel_confusion_matrix(y, p > 0.2).reshape(4, 4).tolist()
    assert confusion(scores, labels, task="multilabel", threshold=0.2) == expected


def test_numbers_are_scored_as_scikit_learn_does() -> None:
    targets = drawn(100, 3) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor([0.0, 1000.0, 5.0])
    numbers = targets + 0.5 * drawn(100, 3) * torch.tensor([1.0, 100.0, 0.01])
    got = evaluate(numbers, targets, task="regression", split="test")
    y, said = targets.double().numpy(), numbers.double().numpy()
    assert got["test/r2"] == pytest.approx(sk.r2_score(y, said), rel=1e-9)
    assert got["test/mse"] == pytest.approx(sk.mean_squared_error(y, said), rel=1e-9)
    assert got["test/mae"] == pytest.approx(sk.mean_absolute_error(y, said), rel=1e-9)
    assert got["test/rmse"] == pytest.approx(sk.mean_squared_error(y, said) ** 0.5, rel=1e-9)


def test_r2_of_equal_targets_is_finite() -> None:
    targets = torch.tensor([[2.0, 1.0], [2.0, 3.0]])
    off = evaluate(targets + 1, targets, task="regression", split="val")["val/r2"]
    assert off == pytest.approx(sk.r2_score(targets.numpy(), targets.numpy() + 1))
    assert evaluate(targets, targets, task="regression", split="val")["val/r2"] == 1
    one = evaluate(targets[:1] + 1, targets[:1], task="regression", split="val")
    assert one["val/r2"] == 0


@pytest.mark.parametrize("classes", [5, 6, 9])
def test_top5_is_there_for_more_than_five_classes(classes: int) -> None:
    scores, targets = drawn(100, classes), drawn(100, classes).argmax(dim=1)
    got = evaluate(scores, targets, task="multiclass", split="test")
    assert ("test/accuracy_top5" in got) == (classes > 5)
    if classes > 5:
        expected = sk.top_k_accuracy_score(targets.numpy(), scores.numpy(), k=5, labels=range(classes))
        assert got["test/accuracy_top5"] == pytest.approx(expected)
    equal = evaluate(torch.zeros(classes, classes), torch.arange(classes), task="multiclass", split="test")
    assert equal.get("test/accuracy_top5", 5 / classes) == pytest.approx(5 / classes)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), coarse=st.booleans(), labels=st.integers(1, 3))
@pytest.mark.slow
def test_the_threshold_is_the_best_of_all(seed: int, n: int, coarse: bool, labels: int) -> None:
    """Against every threshold that could matter, one by one."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(n, labels)) * 3
    scores = np.round(scores) if coarse else scores
    y = (random.random((n, labels)) < 0.3).astype(int)
    found = best_threshold(torch.from_numpy(scores), torch.from_numpy(y))
    assert 0 < found < 1
    p = torch.from_numpy(scores).sigmoid().numpy()

    def f1(threshold: float) -> float:
        return float(sk.f1_score(y.ravel(), p.ravel() > threshold, zero_division=0))

    values = np.unique(p)
    every = [0.5, *((values[1:] + values[:-1]) / 2), values[0] / 2]
    best = max(map(f1, every))
    assert f1(found) == pytest.approx(best)
    nearest = min(abs(threshold - 0.5) for threshold in every if f1(threshold) >= best - 1e-12)
    assert abs(found - 0.5) == pytest.approx(nearest)


def test_scores_beyond_what_a_probability_can_tell_apart_have_a_threshold() -> None:
    scores, targets = torch.tensor([[900.0], [901.0], [-900.0], [-901.0]]), torch.tensor([1, 0, 1, 0])
    assert best_threshold(scores, targets) == 0.5
    assert best_threshold(torch.tensor([[-2.0], [-3.0]]), torch.tensor([0, 0])) == 0.5  # nothing to find
