"""The batch-size test: which sizes are tried, what is suggested, and that the search finds where memory ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.conftest import tiny_config

from headstart.cli import main
from headstart.errors import ConfigError
from headstart.finding import batch
from headstart.finding.batch import BatchTest, Tried, find_batch
from headstart.finding.memory import estimate
from headstart.finding.steps import Steps
from headstart.preparation import prepare


def test_the_smallest_size_near_the_best_is_suggested() -> None:
    tried = tuple(Tried(size, rate, 0) for size, rate in ((8, 50), (16, 94), (32, 95), (64, 100), (128, 99)))
    assert BatchTest(tried, 128, "images", measured=False, room=0).suggestion == 32


def test_sizes_double_up_to_the_training_split() -> None:
    prepared = prepare(tiny_config("strategy=linear_probe", "features.use=false"))
    found = find_batch(prepared, seconds=0)
    sizes = [one.size for one in found.tried]
    assert sizes == [8, 16, 32, 64, 100][: len(sizes)]
    assert len(sizes) >= 3
    assert all(one.rate > 0 for one in found.tried)
    memory = estimate(prepare(tiny_config("strategy=linear_probe", "features.use=false")))
    assert [one.memory for one in found.tried] == [memory.peak(size) for size in sizes]
    assert (found.largest, found.limited_by, found.measured) == (100, "images", False)


def test_a_head_on_kept_features_has_no_batch_to_find() -> None:
    with pytest.raises(ConfigError, match="fits its head on features that are computed once"):
        find_batch(prepare(tiny_config("strategy=linear_probe")), seconds=0)


def test_sizes_without_room_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(tiny_config("strategy=full"))
    memory = estimate(prepared)
    monkeypatch.setattr(batch, "room_of", lambda accelerator: int(memory.peak(40) / 0.8))
    found = find_batch(prepare(tiny_config("strategy=full")), seconds=0)
    assert [one.size for one in found.tried] == [8, 16, 32]
    assert found.limited_by == "memory"
    assert 38 <= found.largest <= 40
    monkeypatch.setattr(batch, "room_of", lambda accelerator: 1000)
    with pytest.raises(ConfigError, match="not even 8 images at once have room"):
        find_batch(prepare(tiny_config("strategy=full")), seconds=0)


@pytest.mark.parametrize("limit", [7, 8, 100, 837, 2000])
def test_on_a_gpu_the_largest_is_found_by_halving(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """No GPU is asked: what fits is given."""
    asked: list[int] = []

    def attempt(steps: Any, size: int, seconds: float) -> Tried | None:
        asked.append(size)
        return Tried(size, 1.0, size) if size <= limit else None

    monkeypatch.setattr(batch, "_try", attempt)
    found, by = batch._on_gpu(cast(Steps, SimpleNamespace()), cast(Any, None), 8, 1500, 0.0, lambda words: None)
    largest = max((one.size for one in found), default=0)
    if limit < 8:
        assert largest == 0
    elif limit > 1500:
        assert (largest, by) == (1500, "images")
    else:
        assert limit * (1 - 2 / 16) <= largest <= limit
        assert by == "memory"
    assert len(asked) < 20


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(batch.find_batch, "__kwdefaults__", {**batch.find_batch.__kwdefaults__, "seconds": 0.0})
    words = ["backbone.name=test_resnet", "weights=scratch", "data.image_size=32", "data.train_size=100", "data.test_size=100", "trainer.threads=1"]  # fmt: skip
    assert main(["plan", *words, "strategy=full", "--find", "batch"]) == 0
    shown = capsys.readouterr().out
    assert "Suggested, the smallest within 5 % of the best speed: data.batch_size=" in shown
    assert "Another batch size is another experiment" in shown
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert left == {"batch_sizes.png"}
