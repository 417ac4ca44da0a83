"""The head in which the nearest training images vote: scikit-learn's, and what is saved of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from headstart.config.schema.head import LinearHeadConfig
from headstart.features.solvers.knn import bank_of
from headstart.models import neighbors
from headstart.models.heads import build_head

Array = npt.NDArray[np.float64]


def weighing(temperature: float) -> Callable[[Array], Array]:
    """scikit-learn hands over cosine distances: 1 - similarity."""
    return lambda distances: np.exp((1 - distances) / temperature)


def head(outputs: int, *, numbers: bool = False) -> torch.nn.Sequential:
    units = ([0.0] * outputs, [1.0] * outputs) if numbers else None
    return build_head(LinearHeadConfig(solver="knn"), features=6, outputs=outputs, units=units)


def images(count: int, *, seed: int) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 7, 60])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_are_scikit_learns(count: int, temperature: float) -> None:
    bank, asked = images(60, seed=0), images(25, seed=1)
    targets = torch.arange(60) % 4
    found = head(4)
    found.load_state_dict(bank_of(bank, targets, count=count, temperature=temperature))
    model = KNeighborsClassifier(count, metric="cosine", weights=weighing(temperature), algorithm="brute")
    expected = model.fit(bank.double().numpy(), targets.numpy()).predict_proba(asked.double().numpy())
    scores = found(asked)
    assert torch.isfinite(scores).all()
    assert scores.softmax(dim=1).numpy() == pytest.approx(expected, abs=1e-5)


def test_one_output_is_the_second_class() -> None:
    bank, asked, targets = images(30, seed=0), images(9, seed=1), torch.arange(30) % 2
    found = head(1)
    found.load_state_dict(bank_of(bank, targets, count=5, temperature=0.5))
    model = KNeighborsClassifier(5, metric="cosine", weights=weighing(0.5), algorithm="brute")
    expected = model.fit(bank.double().numpy(), targets.numpy()).predict_proba(asked.double().numpy())
    assert found(asked).shape == (9, 1)
    assert found(asked).sigmoid()[:, 0].numpy() == pytest.approx(expected[:, 1], abs=1e-5)


def test_several_labels_and_numbers() -> None:
    bank, asked = images(30, seed=0), images(9, seed=1)
    labels = (images(30, seed=2)[:, :3] > 0).float()
    found = head(3)
    found.load_state_dict(bank_of(bank, labels, count=5, temperature=0.5))
    model = KNeighborsRegressor(5, metric="cosine", weights=weighing(0.5), algorithm="brute")
    expected = model.fit(bank.double().numpy(), labels.double().numpy()).predict(asked.double().numpy())
    assert found(asked).sigmoid().numpy() == pytest.approx(expected, abs=1e-5)
    numbers = images(30, seed=3)[:, :2] * 40 + 100
    found = head(2, numbers=True)
    found.load_state_dict(bank_of(bank, numbers, count=5, temperature=0.5))
    expected = model.fit(bank.double().numpy(), numbers.double().numpy()).predict(asked.double().numpy())
    assert found(asked).numpy() == pytest.approx(expected, rel=1e-5)


def test_what_is_saved_comes_back_whatever_its_size(tmp_path: Path) -> None:
    found, asked = head(4), images(9, seed=1)
    found.load_state_dict(bank_of(images(40, seed=0), torch.arange(40) % 4, count=7, temperature=0.2))
    save_file(found.state_dict(), tmp_path / "head.safetensors")
    fresh = head(4)
    fresh.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(fresh(asked), found(asked))
    assert not list(fresh.parameters())
    with pytest.raises(RuntimeError, match="Missing"):
        fresh.load_state_dict({})


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = head(4), images(50, seed=1)
    found.load_state_dict(bank_of(images(40, seed=0), torch.arange(40) % 4, count=7, temperature=0.2))
    whole, sizes, votes = found(asked), [], neighbors.NeighborHead._votes
    monkeypatch.setattr(neighbors, "_NUMBERS_AT_ONCE", 400)
    monkeypatch.setattr(
        neighbors.NeighborHead, "_votes", lambda self, part: sizes.append(len(part)) or votes(self, part)
    )
    assert found(asked) == pytest.approx(whole, abs=1e-6)
    assert sizes == [10] * 5


def test_a_bank_of_zeros_and_images_of_zeros_have_scores() -> None:
    fresh = head(4)
    assert torch.isfinite(fresh(torch.zeros(2, 6))).all()
