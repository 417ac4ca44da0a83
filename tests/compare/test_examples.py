"""Tests over images: McNemar, permutations and bootstraps on stored predictions; and the metrics they compute again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headstart.compare.statistics.examples import mcnemar
from headstart.compare.statistics.examples import test_examples as compare_images
from headstart.compare.statistics.scores import Predictions, contributions, score
from headstart.errors import RecordError
from headstart.records.tables import read_predictions, write_predictions
from headstart.training.metrics import evaluate


def drawn(seed: int, n: int = 60, classes: int = 4, *, skill: float = 1.0, several: bool = False) -> Predictions:
    """Predictions of a model of some skill; the targets depend on n and classes alone."""
    world, own = np.random.default_rng(n * classes), np.random.default_rng(seed)
    if several:
        targets = (world.random((n, classes)) < 0.4).astype(np.int64)
        scores = own.normal(size=(n, classes)) + skill * (2 * targets - 1)
        probabilities = 1 / (1 + np.exp(-scores))
        predicted = (probabilities > 0.5).astype(np.int64)
    else:
        targets = world.integers(0, classes, n)
        scores = own.normal(size=(n, classes)) + skill * np.eye(classes)[targets]
        probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        predicted = probabilities.argmax(axis=1)
    ids = np.array([f"{i:04d}.png" for i in range(n)])
    return Predictions(ids, targets, predicted, probabilities, "multilabel" if several else "multiclass")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(12, 80), classes=st.integers(2, 6), coarse=st.booleans())
def test_metrics_from_predictions_are_those_of_the_record(seed: int, n: int, classes: int, coarse: bool) -> None:
    """Against torchmetrics on the same scores, ties and absent classes included."""
    for several in (False, True):
        one = drawn(seed, n, classes, several=several)
        if not one.targets.any(axis=0).all() if several else len(set(one.targets)) < classes:
            continue  # a class without a test image: torchmetrics warns, or counts 0
        scores = np.log(one.scores / (1 - one.scores)) if several else np.log(one.scores)
        if coarse:  # equal scores
            scores = np.round(scores, 0)
        tensor = torch.from_numpy(scores)
        expected = evaluate(
            tensor, torch.from_numpy(one.targets), task="multilabel" if several else "multiclass", split="test"
        )
        probabilities = (tensor.sigmoid() if several else tensor.softmax(dim=1)).numpy()
        predicted = (probabilities > 0.5).astype(np.int64) if several else probabilities.argmax(axis=1)
        one = Predictions(one.ids, one.targets, predicted, probabilities, one.task)
        for name, value in expected.items():
            metric = name.removeprefix("test/")
            assert score(metric, one) == pytest.approx(value, abs=2e-5), metric


def test_contributions_add_up() -> None:
    one = drawn(0)
    for metric in ("accuracy_micro", "accuracy_macro", "log_loss"):
        assert contributions(metric, one).sum() == pytest.approx(score(metric, one))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(a: int, b: int) -> None:
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)


def test_one_pair_by_permutation_and_by_mcnemar() -> None:
    arm, baseline = drawn(1, skill=2.5), drawn(2, skill=1.0)
    found = compare_images("accuracy_micro", [(arm, baseline)])
    assert found is not None
    right, other = arm.predicted == arm.targets, baseline.predicted == baseline.targets
    only = int((right & ~other).sum()), int((other & ~right).sum())
    assert (found.only_arm, found.only_baseline) == only
    assert found.difference == pytest.approx(right.mean() - other.mean())
    assert found.mcnemar_p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    assert found.p == pytest.approx(found.mcnemar_p, abs=0.004)  # the same test, drawn instead of counted
    assert found.images == 60
    assert compare_images("accuracy_micro", [(arm, baseline)]) == found  # seeded


@pytest.mark.parametrize("metric", ["accuracy_macro", "log_loss"])
def test_permutations_and_resamples_are_scipys(metric: str) -> None:
    arm, baseline = drawn(3, skill=1.6), drawn(4, skill=1.0)
    found = compare_images(metric, [(arm, baseline)])
    gaps = contributions(metric, arm) - contributions(metric, baseline)
    expected = stats.permutation_test(
        (gaps,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=0,
    )
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    interval = stats.bootstrap((gaps * len(gaps),), np.mean, method="percentile", rng=0).confidence_interval
    spread = interval.high - interval.low
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.05 * spread)


def test_a_metric_that_is_no_sum_is_scored_again() -> None:
    arm, baseline = drawn(5, several=True, skill=1.5), drawn(6, several=True, skill=0.3)
    found = compare_images("map_macro", [(arm, baseline)])
    assert found is not None
    assert found.difference == pytest.approx(score("map_macro", arm) - score("map_macro", baseline))
    assert found.p == pytest.approx(1 / 501)
    assert found.low < found.difference < found.high
    assert found.low > 0
    assert found.only_arm is None
    same = compare_images("f1_macro", [(arm, arm)])
    assert same is not None
    assert (same.p, same.difference) == (1.0, 0.0)


def test_more_seeds_are_not_more_images() -> None:
    pair = drawn(1, skill=2.0), drawn(2, skill=1.0)
    one, again = compare_images("accuracy_micro", [pair]), compare_images("accuracy_micro", [pair] * 4)
    assert one is not None
    assert again is not None
    assert (again.images, again.mcnemar_p) == (one.images, None)
    assert again.p == pytest.approx(one.p, abs=0.003)
    assert again.high - again.low == pytest.approx(one.high - one.low, rel=0.05)


def test_the_order_of_images_is_no_matter_and_other_images_are_no_pair() -> None:
    arm, baseline = drawn(1), drawn(2)
    turned = baseline.take(np.arange(60)[::-1])
    assert compare_images("accuracy_micro", [(arm, turned)]) == compare_images("accuracy_micro", [(arm, baseline)])
    assert compare_images("accuracy_micro", [(arm, drawn(2, n=61))]) is None
    relabelled = Predictions(baseline.ids, (baseline.targets + 1) % 4, baseline.predicted, baseline.probabilities)
    assert compare_images("accuracy_micro", [(arm, relabelled)]) is None


def test_nothing_to_find_is_found_as_often_as_it_says() -> None:
    p_values = []
    for i in range(150):
        found = compare_images("accuracy_micro", [(drawn(2 * i), drawn(2 * i + 1))])
        assert found is not None
        p_values.append(found.p)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.07


@pytest.mark.parametrize("several", [False, True])
def test_predictions_come_back_from_their_file(several: bool) -> None:
    one = drawn(0, several=several)
    path = Path("predictions.parquet")
    p = one.scores.astype(np.float32)
    write_predictions(path, ids=list(one.ids), targets=one.targets, predicted=one.predicted, probabilities=p)
    back = read_predictions(path)
    assert list(back["id"]) == list(one.ids)
    np.testing.assert_array_equal(back["target"], one.targets)
    np.testing.assert_array_equal(back["predicted"], one.predicted)
    np.testing.assert_allclose(back["probability"], one.scores, rtol=1e-6)
    assert "probability" not in read_predictions(path, probabilities=False)
    path.write_bytes(b"PAR1 no such table")
    with pytest.raises(RecordError, match=r"predictions\.parquet: cannot be read"):
        read_predictions(path)
    with pytest.raises(RecordError, match="there is no such file"):
        read_predictions(Path("nowhere.parquet"))


def test_mcnemars_test_is_of_accuracy_alone() -> None:
    found = compare_images("log_loss", [(drawn(1), drawn(2))])
    assert found is not None
    assert found.mcnemar_p is None


def test_a_large_test_of_a_metric_that_is_no_sum_makes_fewer_draws() -> None:
    arm, baseline = drawn(1, n=20_000, classes=50), drawn(2, n=20_000, classes=50)
    found = compare_images("ece", [(arm, baseline)])
    assert found is not None
    assert found.draws == 100


def test_metrics_of_two_classes_and_of_numbers_are_those_of_the_record() -> None:
    random = np.random.default_rng(0)
    ids = np.array([f"{i:03d}" for i in range(80)])
    scores, labels = torch.from_numpy(np.round(random.normal(size=(80, 1)), 1)), random.integers(0, 2, 80)
    expected = evaluate(scores, torch.from_numpy(labels), task="binary", split="test", threshold=0.3)
    p = torch.cat([1 - scores.sigmoid(), scores.sigmoid()], dim=1).numpy()
    one = Predictions(ids, labels, (p[:, 1] > 0.3).astype(np.int64), p, "binary")
    for name, value in expected.items():
        assert score(name.removeprefix("test/"), one) == pytest.approx(value, abs=1e-6), name
    targets, said = random.normal(size=(80, 2)) * [1, 50], random.normal(size=(80, 2)) * [1, 50]
    numbers = Predictions(ids, targets, said, None, "regression")
    expected = evaluate(torch.from_numpy(said), torch.from_numpy(targets), task="regression", split="test")
    for name, value in expected.items():
        assert score(name.removeprefix("test/"), numbers) == pytest.approx(value, rel=1e-9), name
    with pytest.raises(ValueError, match="auroc is no metric of this task"):
        score("auroc", numbers)


@pytest.mark.parametrize("metric", ["mse", "mae", "rmse", "r2"])
def test_numbers_are_compared_image_by_image(metric: str) -> None:
    random = np.random.default_rng(1)
    ids, targets = np.array([f"{i:03d}" for i in range(60)]), random.normal(size=(60, 1))
    near = Predictions(ids, targets, targets + 0.3 * random.normal(size=(60, 1)), None, "regression")
    far = Predictions(ids, targets, targets + 0.6 * random.normal(size=(60, 1)), None, "regression")
    found = compare_images(metric, [(near, far)])
    assert found is not None
    assert found.difference == pytest.approx(score(metric, near) - score(metric, far))
    assert (found.mcnemar_p, found.only_arm) == (None, None)
    assert found.p < 0.02
    assert (found.low > 0) if metric == "r2" else (found.high < 0)
    if metric == "mse":
        gaps = (near.predicted - targets)[:, 0] ** 2 - (far.predicted - targets)[:, 0] ** 2
        expected = stats.permutation_test(
            (gaps,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=20_000,
            vectorized=True, rng=0,
        )  # fmt: skip
        assert found.p == pytest.approx(expected.pvalue, abs=0.005)
