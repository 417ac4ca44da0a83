"""Mixed precision stays within what docs/training.md states."""

from __future__ import annotations

import pytest
from tests.conftest import RunTiny

from headstart.records.tables import read_rows


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_bfloat16_is_near_float32(backbone: str, run_tiny: RunTiny) -> None:
    words = (f"backbone.name={backbone}", "data.train_size=66", "trainer.max_epochs=2", "optimizer.lr=0.003")
    (one, exact), (two, mixed) = run_tiny(*words), run_tiny(*words, "trainer.precision=bf16-mixed")
    for row, other in zip(read_rows(one / "metrics.csv"), read_rows(two / "metrics.csv"), strict=True):
        for key in ("train/loss", "val/log_loss"):
            assert row[key] == pytest.approx(other[key], rel=0.05)
            assert row[key] != other[key]  # and it is in use
    assert exact.metrics["test/log_loss"] == pytest.approx(mixed.metrics["test/log_loss"], rel=0.05)
