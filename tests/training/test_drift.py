"""How far features moved: the formula, what it is invariant to, and that looking changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conftest import RunTiny, tiny_config
from tests.training.test_frozen import module_of

import headstart.experiment
from headstart.config.schema.strategy import LinearProbeConfig
from headstart.experiment import resume
from headstart.preparation import prepare
from headstart.records.store import read_record
from headstart.training.drift import debiased_linear_cka, features_of, linear_cka, moved_since, start_of
from headstart.training.history import History


@pytest.fixture
def trained(run_tiny: RunTiny) -> tuple[str, ...]:
    """Overrides of a run that starts from the weights of another, on other classes."""
    folder, _ = run_tiny("data.classes=[0,1,2]", "data.train_size=30", "data.test_size=10")
    return "weights=run", f"weights.path={folder}"


def drawn(seed: int, n: int, width: int) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_cka_is_its_formula() -> None:
    a, b = drawn(0, 40, 7), drawn(1, 40, 11) + 3
    x, y = a - a.mean(dim=0), b - b.mean(dim=0)
    expected = torch.linalg.norm(y.T @ x) ** 2 / (torch.linalg.norm(x.T @ x) * torch.linalg.norm(y.T @ y))
    assert linear_cka(a, b) == pytest.approx(float(expected), rel=1e-12)
    assert linear_cka(a, torch.ones(40, 3, dtype=torch.float64)) is None


def test_debiased_hsic_is_the_sum_over_distinct_images() -> None:
    """Song et al. 2012: sums over i, j, q, r that all differ, of K_ij (L_ij + L_qr - 2 L_iq)."""
    a, b = drawn(2, 7, 3), drawn(3, 7, 4)
    x, y = a - a.mean(dim=0), b - b.mean(dim=0)

    def hsic(k: torch.Tensor, m: torch.Tensor) -> float:
        n, total = len(k), 0.0
        for i in range(n):
            for j in range(n):
                for q in range(n):
                    for r in range(n):
                        if len({i, j, q, r}) == 4:
                            total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        return total / (n * (n - 1) * (n - 2) * (n - 3))

    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / (hsic(k, k) * hsic(m, m)) ** 0.5
    assert debiased_linear_cka(a, b) == pytest.approx(expected, rel=1e-9)
    assert debiased_linear_cka(a[:3], b[:3]) is None


@pytest.mark.parametrize("cka", [linear_cka, debiased_linear_cka])
def test_turning_and_scaling_is_no_drift(cka: Any) -> None:
    a = drawn(4, 60, 9)
    turn = torch.linalg.qr(drawn(5, 9, 9))[0]
    assert cka(a, 3.5 * a @ turn + 1) == pytest.approx(1)
    assert cka(a, a) == pytest.approx(1)


def test_wide_features_that_have_nothing_in_common() -> None:
    """The plain estimate says 0.9 of two drawn at random, where there are more features than images."""
    found = [(linear_cka(drawn(i, 64, 640), drawn(100 + i, 64, 640)), debiased_linear_cka(drawn(i, 64, 640), drawn(100 + i, 64, 640))) for i in range(20)]  # fmt: skip
    assert min(float(plain or 0) for plain, _ in found) > 0.8
    assert sum(float(debiased or 0) for _, debiased in found) / 20 == pytest.approx(0, abs=0.01)


def test_the_record_says_how_far_the_features_moved(run_tiny: RunTiny, trained: tuple[str, ...]) -> None:
    _, probe = run_tiny(*trained, "strategy=linear_probe")
    _, full = run_tiny(*trained, "strategy=full", "optimizer.lr=0.01")
    _, scratch = run_tiny("strategy=full")
    assert probe.drift["linear_cka"] == pytest.approx(1, abs=1e-9)
    assert 0 < full.drift["linear_cka"] < 0.99
    assert full.drift["images"] == min(128, full.data["sizes"]["val"])
    assert full.seconds["drift"] > 0
    assert full.seconds["total"] == pytest.approx(sum(v for k, v in full.seconds.items() if k != "total"), abs=0.01)
    assert scratch.drift == {}


def test_looking_at_features_changes_no_bit(
    run_tiny: RunTiny, trained: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*trained, "strategy=full", "data.augment=light")
    _, with_it = run_tiny(*words)
    fit = headstart.experiment.fit
    monkeypatch.setattr(headstart.experiment, "fit", lambda *a, **k: fit(*a, **{**k, "drift": False}))
    _, without = run_tiny(*words)
    assert without.drift == {}
    assert without.predictions_sha256 == with_it.predictions_sha256


def test_modes_are_left_as_they_were() -> None:
    module, _ = module_of("test_resnet", 32, LinearProbeConfig())
    module.train()
    before = [one.training for one in module.model.modules()]
    state = {name: value.clone() for name, value in module.model.state_dict().items()}
    features_of(module.model.backbone, torch.randn(5, 3, 32, 32), device="cpu")
    assert [one.training for one in module.model.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in module.model.state_dict().items())


def test_the_start_is_the_one_before_training() -> None:
    """The copy stays as the backbone was, whatever happens to it."""
    module, _ = module_of("test_resnet", 32, LinearProbeConfig())
    data = prepare(tiny_config()).data
    before = features_of(module.model.backbone, data.sample("val", 128), device="cpu")
    start = start_of(module.model, data, gpu=False)
    with torch.no_grad():
        for parameter in module.model.backbone.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    after = features_of(module.model.backbone, start.images, device="cpu")
    assert not torch.equal(before, after)
    assert moved_since(start, module.model)["linear_cka"] == linear_cka(before, after)


def test_a_resumed_run_measures_from_the_same_start(
    run_tiny: RunTiny, trained: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*trained, "strategy=full", "trainer.max_epochs=2")
    _, unbroken = run_tiny(*words)
    add = History.add

    def stop(self: History, *arguments: Any) -> None:
        add(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "add", stop)
    folders: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        headstart.experiment.run(tiny_config(*words), announce=folders.append)
    monkeypatch.setattr(History, "add", add)
    assert read_record(folders[0]).status == "interrupted"
    assert resume(folders[0]).drift["linear_cka"] == unbroken.drift["linear_cka"]
