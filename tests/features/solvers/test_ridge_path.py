"""Least squares in closed form: scikit-learn's, for every penalty."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import Ridge

from headstart.features.solvers.ridge import ridge_path, wanted_scores

PENALTIES = [1e6, 1e2, 1.0, 1e-3]


@pytest.mark.parametrize(("count", "width"), [(120, 15), (30, 80)])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_equals_scikit_learn(count: int, width: int, shift: float) -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(count, width, generator=draw) + shift
    wanted = torch.randn(count, 3, generator=draw) * 2 + 7
    held_out = torch.randn(20, width, generator=draw) + shift
    fits = list(ridge_path(features, wanted, PENALTIES))
    assert [fit.penalty for fit in fits] == PENALTIES
    for fit in fits:
        model = Ridge(alpha=fit.penalty, solver="svd").fit(features.double().numpy(), wanted.double().numpy())
        assert fit.weight.numpy() == pytest.approx(model.coef_, abs=1e-6)
        ours = held_out.double() @ fit.weight.T + fit.bias
        assert ours.numpy() == pytest.approx(model.predict(held_out.double().numpy()), abs=1e-6)
        error = (features.double() @ fit.weight.T + fit.bias - wanted).square().mean()
        assert fit.loss == pytest.approx(float(error), abs=1e-9)


def test_collinear_features_share_the_weight() -> None:
    draw = torch.Generator().manual_seed(1)
    single = torch.randn(50, 1, generator=draw)
    fit = next(ridge_path(torch.cat([single, single, torch.ones(50, 1)], dim=1), single, [1e-3]))
    assert fit.weight[0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-4)


def test_classes_are_one_against_the_others() -> None:
    classes = wanted_scores(torch.tensor([2, 0]), 3, "multiclass", units=None)
    assert classes.tolist() == [[-1, -1, 1], [1, -1, -1]]
    assert wanted_scores(torch.tensor([1, 0]), 1, "binary", units=None).tolist() == [[1], [-1]]
    labels = wanted_scores(torch.tensor([[1.0, 0.0]]), 2, "multilabel", units=None)
    assert labels.tolist() == [[1, -1]]
    units = torch.tensor([10.0]), torch.tensor([2.0])
    assert wanted_scores(torch.tensor([[14.0]]), 1, "regression", units=units).tolist() == [[2]]
