"""`headstart export --to onnx`: the same scores, and the preprocessing in the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import RunTiny

import headstart
from headstart.cli import main
from headstart.errors import RecordError
from headstart.trained import onnx_export
from headstart.trained.onnx_export import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")


def scores_of(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["scores"], {"image": images.numpy()})[0])


def test_the_same_scores_and_how_to_get_there(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, record = run_tiny("head=mlp")
    assert main(["export", str(folder)]) == 0
    assert "largest difference of a score from the model's own: " in capsys.readouterr().out
    path = folder / "model.onnx"
    model, transform = headstart.load(folder)
    digits = [transform(np.arange(64, dtype=np.uint8).reshape(8, 8) + i) for i in range(7)]
    images = torch.stack(digits)
    np.testing.assert_allclose(scores_of(path, images), model(images).detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(scores_of(path, images[:1]), model(images[:1]).detach().numpy(), atol=1e-4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert said["size"] == [32, 32]
    assert said["class_names"] == record.data["class_names"]
    assert said["mean"] == pytest.approx(transform.normalize.mean.flatten().tolist())  # type: ignore[attr-defined]
    assert said["run"] == record.id


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_convnext", "test_vit", "test_nfnet", "test_mambaout", "test_byobnet"]
)
def test_every_kind_of_network(run_tiny: RunTiny, name: str) -> None:
    folder, _ = run_tiny(f"backbone.name={name}", "data.image_size=64")
    exported = export_onnx(folder, Path("model.onnx"))
    assert exported.largest_difference <= 1e-4


@pytest.mark.slow
def test_a_model_that_comes_out_different_is_not_written(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_tiny()
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *arguments: 0.01)
    with pytest.raises(RecordError, match=r"differ by 0\.01 from its own, more than 0\.0001; nothing was written"):
        export_onnx(folder, Path("model.onnx"))
    assert list(Path().glob("*.onnx*")) == []


def test_where_it_cannot_be_written(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run_tiny()
    assert main(["export", str(folder), "--output", "model.bin"]) == 2
    assert "--output model.bin: must end in .onnx" in capsys.readouterr().err
    assert main(["export", str(folder), "--output", "nowhere/model.onnx"]) == 2
    assert main(["export", str(folder), "--to", "torchscript"]) == 2
