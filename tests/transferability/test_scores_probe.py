"""The cross-validated probe against scikit-learn, fold by fold, and what its folds promise."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.transferability.scores import SCORES, Examples
from headstart.transferability.scores.measures import credit, explained
from headstart.transferability.scores.probe import PENALTIES, _folds, _labels, _logistic, _ridge, linear_probe


def data(n: int = 90, d: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    y = np.arange(n) % classes
    return draw.standard_normal((n, d)) + draw.standard_normal((classes, d))[y], y


def test_each_fit_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    features, y = data()
    features = features - features.mean(axis=0)
    penalties = (30.0, 1.0)
    for penalty, (weight, bias) in zip(penalties, _logistic(features, np.eye(3)[y], penalties), strict=True):
        plain = LogisticRegression(C=1 / (2 * penalty), tol=1e-10, max_iter=10_000).fit(features, y)
        ours, theirs = features @ weight + bias, plain.decision_function(features)
        assert ours - ours.mean(axis=1, keepdims=True) == pytest.approx(
            theirs - theirs.mean(axis=1, keepdims=True), abs=0.03
        )
    labels = np.stack([y == 0, y < 2, y < 9], axis=1).astype(float)
    for penalty, (weight, bias) in zip(penalties, _labels(features, labels, penalties), strict=True):
        for label in range(2):
            plain = LogisticRegression(C=1 / (2 * penalty), tol=1e-10, max_iter=10_000).fit(
                features, labels[:, label]
            )
            ours = features @ weight[:, label] + bias[label]
            assert ours == pytest.approx(plain.decision_function(features), abs=0.03)
        assert (features @ weight[:, 2] + bias[2] > 0).all()  # a label that all have
    numbers = features[:, :2] ** 2
    for penalty, (weight, bias) in zip(penalties, _ridge(features, numbers, penalties), strict=True):
        plain = Ridge(alpha=penalty).fit(features, numbers)
        assert features @ weight + bias == pytest.approx(plain.predict(features), abs=1e-9)


def test_what_can_be_told_is_told_and_what_cannot_is_not() -> None:
    draw = np.random.default_rng(1)
    y = np.arange(200) % 4
    clear = 4 * np.eye(4)[y] + 0.5 * draw.standard_normal((200, 4))
    noise = draw.standard_normal((200, 4))
    assert linear_probe(Examples(clear, y, "multiclass", 4)).value == 1.0
    assert 0.1 < (linear_probe(Examples(noise, y, "multiclass", 4)).value or 0) < 0.4
    labels = np.stack([y > 1, y % 2 == 0], axis=1).astype(np.int64)
    assert linear_probe(Examples(clear, labels, "multilabel", 2)).value == 1.0
    assert 0.35 < (linear_probe(Examples(noise, labels, "multilabel", 2)).value or 0) < 0.65
    numbers = clear @ draw.standard_normal((4, 2))
    assert (linear_probe(Examples(clear, numbers, "regression", 2)).value or 0) > 0.999
    assert -0.2 < (linear_probe(Examples(noise, numbers, "regression", 2)).value or 0) < 0.1
    found = linear_probe(Examples(clear, np.ones((200, 1)), "regression", 1))
    assert (found.value, found.note) == (None, "the targets do not differ")


def test_a_stronger_penalty_is_chosen_where_features_are_many_and_noisy() -> None:
    """Fits with the weakest penalty alone predict worse than those that may choose."""
    draw = np.random.default_rng(2)
    features = draw.standard_normal((80, 60))
    examples = Examples(features, features[:, :1] + draw.standard_normal((80, 1)), "regression", 1)
    free = linear_probe(examples).value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.transferability.scores.probe.PENALTIES", PENALTIES[-1:])
        weak = linear_probe(examples).value
    assert free is not None
    assert weak is not None
    assert free > weak + 0.5


def test_folds_are_even_within_classes_and_copies_share_one() -> None:
    draw = np.random.default_rng(3)
    places = np.repeat([0, 1, 2], [40, 23, 2])
    folds = _folds(places, draw.integers(1 << 60, size=65).tolist(), np.arange(65))
    for place in range(3):
        sizes = np.bincount(folds[places == place], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    keys = np.arange(65) // 2
    again = _folds(places, draw.integers(1 << 60, size=65).tolist(), keys)
    assert all(len(set(again[keys == key].tolist())) == 1 for key in set(keys.tolist()))
    # with copies in training a nearest neighbour would have it all; the probe does not see them
    features = draw.standard_normal((60, 50))
    y = draw.integers(2, size=60)
    examples = Examples(np.tile(features, (2, 1)), np.tile(y, 2), "binary", 2)
    assert (linear_probe(examples).value or 0) < 0.75
    assert SCORES["knn"].compute(examples).value == 1.0


def test_folds_follow_the_images_and_not_the_last_bit_of_the_features() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(3, size=90)
    features = draw.standard_normal((90, 40)) + 0.25 * draw.standard_normal((3, 40))[y]
    keys = draw.integers(1 << 63, size=90).astype(np.uint64)
    found = [linear_probe(Examples(features, y, "multiclass", 3, keys=keys)).value or 0]
    for seed in range(2):
        noisy = features * (1 + 1e-6 * np.random.default_rng(seed).standard_normal((90, 40)))
        found.append(linear_probe(Examples(noisy, y, "multiclass", 3, keys=keys)).value or 0)
    assert np.ptp(found) < 0.005
    shuffled = Examples(features, y, "multiclass", 3, keys=keys).take(draw.permutation(90))
    assert linear_probe(shuffled).value == pytest.approx(found[0])
    # other keys are other folds
    others = [
        linear_probe(Examples(features, y, "multiclass", 3, keys=keys * np.uint64(k))).value or 0 for k in (3, 5)
    ]
    assert np.ptp([found[0], *others]) > 0.005


def test_copies_by_key_share_a_fold_though_their_features_differ() -> None:
    """As where an image was seen twice; with its copy in training the probe would have it all."""
    draw = np.random.default_rng(3)
    features, y = draw.standard_normal((60, 200)), draw.integers(2, size=60)
    twice = np.tile(features, (2, 1)) + 1e-3 * draw.standard_normal((120, 200))
    keys = np.arange(60, dtype=np.uint64) * np.uint64(1 << 40)
    values = [
        linear_probe(Examples(twice, np.tile(y, 2), "binary", 2, keys=one)).value
        for one in (None, np.tile(keys, 2))
    ]
    assert values[0] is not None
    assert values[1] is not None
    assert values[0] > 0.85
    assert values[1] < 0.75
    with pytest.raises(DataError, match="each needs one digest"):
        linear_probe(Examples(twice, np.tile(y, 2), "binary", 2, keys=keys))


def test_ties_are_shared_and_r2_is_scikit_learns() -> None:
    from sklearn.metrics import r2_score

    said = np.array([[1.0, 1.0, 0.0], [0.2, 0.3, 0.1], [0.0, 0.0, 0.0]])
    assert credit(said, np.array([0, 0, 2])) == pytest.approx([0.5, 0.0, 1 / 3])
    draw = np.random.default_rng(4)
    targets = draw.standard_normal((30, 2)) * [1, 50]
    near = targets + draw.standard_normal((30, 2))
    found = explained(near, targets)
    assert found.value == pytest.approx(r2_score(targets, near))
    assert found.per_example is not None
    assert found.per_example.mean() == pytest.approx(found.value)


def test_neighbours_of_numbers_and_labels_by_definition() -> None:
    from sklearn.metrics import r2_score

    draw = np.random.default_rng(5)
    features = draw.standard_normal((40, 5)) + 0.5
    numbers = features[:, :2] + 0.3 * draw.standard_normal((40, 2))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    said = np.empty((40, 2))
    share = np.empty((40, 2))
    labels = (numbers > 0.5).astype(np.int64)
    for i in range(40):
        alike = unit @ unit[i]
        alike[i] = -np.inf
        near = np.argsort(-alike)[:20]
        weights = np.exp(alike[near] / 0.07)
        said[i] = weights @ numbers[near] / weights.sum()
        share[i] = weights @ labels[near] / weights.sum()
    found = SCORES["knn"].compute(Examples(features, numbers, "regression", 2))
    assert found.value == pytest.approx(r2_score(numbers, said), abs=1e-9)
    found = SCORES["knn"].compute(Examples(features, labels, "multilabel", 2))
    assert found.value == pytest.approx(float(((share > 0.5) == labels).mean()), abs=1e-9)


def test_neighbours_that_are_alike_but_for_rounding_all_vote() -> None:
    """All along one line: cosines of 1 with errors in the last digit. One's own class is always one vote short."""
    draw = np.random.default_rng(6)
    line = draw.standard_normal(7)
    y = np.arange(60) % 2
    features = draw.uniform(0.1, 9.0, size=(60, 1)) * line
    found = SCORES["knn"].compute(Examples(features, y, "binary", 2))
    assert found.value == 0
    # opposites: the only neighbour is the other one, never oneself
    two = SCORES["knn"].compute(Examples(np.array([[1.0], [-1.0]]), np.array([0, 1]), "binary", 2))
    assert two.value == 0
