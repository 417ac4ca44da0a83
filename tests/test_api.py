"""What a notebook needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from tests.conftest import TINY, RunTiny

import headstart
from headstart.data.digits import digits
from headstart.errors import ConfigError, RecordError


def test_train_runs_compare(capsys: pytest.CaptureFixture[str]) -> None:
    records = [headstart.train([*TINY, f"strategy={s}"]) for s in ("full", "linear_probe")]
    frame = headstart.runs("outputs")
    assert list(frame["id"]) == [record.id for record in records]
    assert frame["metrics.test/accuracy_micro"].tolist() == [r.metrics["test/accuracy_micro"] for r in records]
    headstart.compare("outputs")
    table = headstart.compare("outputs").arms
    difference = records[1].metrics["test/accuracy_micro"] - records[0].metrics["test/accuracy_micro"]
    assert table.set_index("arm").loc["strategy=linear_probe", "gain"] == pytest.approx(difference)
    assert capsys.readouterr().out == ""


def test_load_gives_the_tested_model(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny("trainer.max_epochs=3", "optimizer.lr=0.02")
    model, transform = headstart.load(folder)
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    source = digits().splits["train"]
    images = [source.image(int(name.rpartition("/")[2])) for name in table["id"][:32]]
    with torch.no_grad():
        probabilities = model(torch.stack([transform(image) for image in images])).softmax(1)
    assert not model.training
    assert np.allclose(probabilities.numpy(), np.array(table["probability"][:32]), atol=1e-5)
    assert transform(Image.new("RGB", (50, 70))).shape == (3, 32, 32)


def test_load_needs_weights(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder, _ = run_tiny()
    (folder / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(RecordError, match=r"kept no weights .best\.safetensors."):
        headstart.load(folder)
    with pytest.raises(RecordError, match="is not a run folder"):
        headstart.load(tmp_path)


def test_a_mistake_is_an_exception() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'optimizer'"):
        headstart.train(["optimzer.lr=1"])
