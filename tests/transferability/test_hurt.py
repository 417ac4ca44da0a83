"""When a warning is given: where random weights' features do as well, or better."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.transferability.hurt import gain_over_control, measuring_command, warning_of


def hits(n: int, share: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def boot(hit: np.ndarray, seed: int, count: int = 2000) -> np.ndarray:
    places = np.random.default_rng(seed).integers(0, len(hit), (count, len(hit)))
    return hit[places].mean(axis=1)


def test_the_interval_is_that_of_paired_differences() -> None:
    """Images that are hard for both widen neither: against the normal interval of the differences per image."""
    rng = np.random.default_rng(0)
    easy = rng.random(400) < 0.6
    a = (easy | (rng.random(400) < 0.1)).astype(float)
    b = easy.astype(float)
    found = gain_over_control(a.mean(), b.mean(), boot(a, 1), boot(b, 1))
    apart = a - b
    half = 1.96 * apart.std() / np.sqrt(len(apart))
    assert found["value"] == pytest.approx(apart.mean())
    assert found["low"] == pytest.approx(apart.mean() - half, abs=0.15 * half)
    assert found["high"] == pytest.approx(apart.mean() + half, abs=0.15 * half)
    alone = gain_over_control(a.mean(), b.mean(), boot(a, 1), boot(b, 2))
    assert alone["high"] - alone["low"] > 2 * (found["high"] - found["low"])


@pytest.mark.parametrize(
    ("share", "control", "said"),
    [
        (0.8, 0.5, None),
        (0.52, 0.5, "transfer is likely to buy nothing: "),
        (0.3, 0.5, "transfer is likely to hurt: "),
    ],
    ids=str,
)
def test_the_warning(share: float, control: float, said: str | None) -> None:
    a, b = hits(300, share, 3), hits(300, control, 4)
    gain = gain_over_control(a.mean(), b.mean(), boot(a, 5), boot(b, 5))
    found = warning_of(
        gain, score="accuracy of a linear probe", value=a.mean(), control_value=b.mean(), then="headstart compare"
    )
    if said is None:
        assert found is None
        return
    assert found is not None
    assert found.startswith(said)
    assert "\n" not in found
    for number in (
        f"{a.mean():.3f}",
        f"{b.mean():.3f}",
        *(f"{gain[key]:+.3f}" for key in ("value", "low", "high")),
    ):
        assert number in found
    assert found.endswith("compare measures it: headstart compare")


def test_equal_features_buy_nothing_and_no_control_says_nothing() -> None:
    same = np.full(50, 0.5)
    gain = gain_over_control(0.5, 0.5, same, same)
    assert gain == {"value": 0, "low": 0, "high": 0}
    words = {"score": "s", "value": 0.5, "control_value": 0.5, "then": "x"}
    assert "buy nothing" in (warning_of(gain, **words) or "")
    assert warning_of(None, **words) is None


def test_draws_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match="not paired"):
        gain_over_control(0.5, 0.5, np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="finite"):
        gain_over_control(0.5, 0.5, np.array([np.nan]), np.ones(1))
    gain = gain_over_control(0.5, 0.4, np.array([np.nan, 0.5, 0.6]), np.array([0.1, 0.4, np.inf]))
    assert gain["low"] == gain["high"] == pytest.approx(0.1)


def test_the_command_that_measures_it() -> None:
    assert measuring_command(["backbone.name=a", "strategy=linear_probe"]) == (
        "headstart train -m backbone.name=a weights=pretrained,scratch strategy=full 'seed=range(3)' && headstart compare"
    )
    from_run = ["backbone.name=a", "weights=run", "weights.path=outputs/runs/x y"]
    assert measuring_command(from_run) == (
        "headstart train -m backbone.name=a weights=run 'weights.path=outputs/runs/x y' strategy=full 'seed=range(3)'"
        " && headstart train -m backbone.name=a weights=scratch strategy=full 'seed=range(3)' && headstart compare"
    )
