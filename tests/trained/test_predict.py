"""`headstart predict` and Grad-CAM: what a run's model says of images, and where it looks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.conftest import RunTiny

import headstart
from headstart.cli import main
from headstart.config.schema.head import LinearHeadConfig
from headstart.errors import ConfigError
from headstart.models.classifier import Classifier, build_classifier, full_name
from headstart.records.store import read_record, write_record
from headstart.records.tables import read_predictions
from headstart.trained.gradcam import grad_cam
from headstart.trained.predict import Predictor, find_images


@pytest.fixture
def of_photos(run_tiny: RunTiny, photos: Path) -> Path:
    """A run that tells red, green and blue photographs apart."""
    return run_tiny(
        "data=image_folder", f"data.path={photos}", "data.train_size=20", "data.test_size=9", "data.batch_size=8",
        "trainer.max_epochs=4", "optimizer.lr=0.01",
    )[0]  # fmt: skip


def test_predictions_are_the_runs_own(of_photos: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the run's test images: the probabilities that it stored, whatever images are predicted beside them."""
    stored = read_predictions(of_photos / "predictions.parquet")
    names = read_record(of_photos).data["class_names"]
    images = [photos / str(name) for name in stored["id"]]
    assert main(["predict", str(of_photos), *map(str, images), "--top", "3", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    for row, probabilities in zip(rows, stored["probability"], strict=True):
        assert row["class_1"] == names[int(probabilities.argmax())]
        for i in (1, 2, 3):
            expected = probabilities[names.index(row[f"class_{i}"])]
            assert row[f"probability_{i}"] == pytest.approx(expected, abs=2e-5)
    assert [row["image"] for row in rows] == [str(image) for image in images]


def test_folders_formats_and_a_picture(of_photos: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(of_photos), str(photos / "red"), "--top", "1", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 12
    assert set(rows[0]) == {"image", "class_1", "probability_1"}
    assert main(["predict", str(of_photos), str(photos), "--plot", "sheet.png"]) == 0
    assert "Picture: sheet.png" in capsys.readouterr().out
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")


def test_an_image_that_is_none_is_named(of_photos: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    assert main(["predict", str(of_photos), "broken.jpg", str(photos / "red" / "00.jpg")]) == 3
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1
    assert "broken.jpg: cannot be decoded" in shown.err
    assert main(["predict", str(of_photos), "broken.jpg"]) == 2
    assert main(["predict", str(of_photos), "nowhere.jpg"]) == 2
    assert "nowhere.jpg: there is no such image" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["predict", str(of_photos), "empty"]) == 2
    assert main(["predict", str(of_photos), "broken.jpg", "--top", "0"]) == 2
    record = read_record(of_photos)
    record.status = "failed"
    write_record(of_photos, record)
    assert main(["predict", str(of_photos), str(photos)]) == 2
    assert "this run is failed; only a completed one" in capsys.readouterr().err


def test_images_are_found_once_and_in_order(photos: Path) -> None:
    found = find_images([photos / "red" / "03.jpg", photos])
    assert found[0] == photos / "red" / "03.jpg"
    assert len(found) == len(set(found)) == 36


def model_of(name: str) -> Classifier:
    return build_classifier(
        name=full_name(name, library="timm"), library="timm", head=LinearHeadConfig(), classes=3, channels=3,
        size=(64, 64), weights=None, seed=0,
    ).model.eval()  # fmt: skip


def test_grad_cam_is_its_formula() -> None:
    """Against eq. 1 and 2 on the last maps before the pooling."""
    model = model_of("test_resnet")
    image = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = model.backbone.forward_features(image[None])  # type: ignore[operator]
    maps.retain_grad()
    score = model.head(model.backbone.forward_head(maps))[0, 1]  # type: ignore[operator]
    score.backward()
    cam = (maps.grad.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu()
    cam = torch.nn.functional.interpolate(cam, size=(64, 64), mode="bilinear", align_corners=False)[0, 0]
    expected = cam / cam.max() if cam.max() > 0 else cam
    found = grad_cam(model, image, target=1)
    torch.testing.assert_close(found, expected.detach())
    assert all(parameter.grad is None or bool(parameter.grad.any()) for parameter in model.head.parameters())


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)  # fmt: skip
def test_grad_cam_finds_maps_in_every_kind_of_network(name: str) -> None:
    found = grad_cam(model_of(name), torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1)), target=0)
    assert found.shape == (64, 64)
    assert float(found.min()) >= 0
    assert float(found.max()) in (0.0, pytest.approx(1.0))


def test_grad_cam_looks_where_the_class_is() -> None:
    """A model whose score is the red in the picture: it looks at the red quarter."""

    class Reds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = torch.nn.AvgPool2d(8)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.pool(images * 1.0).mean(dim=(2, 3))

    model = Classifier(Reds(), torch.nn.Identity())
    image = torch.zeros(3, 64, 64)
    image[0, :32, :32] = 1
    found = grad_cam(model, image, target=0)
    assert float(found[:24, :24].min()) > 0.9
    assert float(found[40:, 40:].max()) < 0.01
    # what speaks against more red: nothing here, and all of it where the score is turned
    assert not grad_cam(model, image, target=0, against=True).any()
    turned = torch.nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        turned.weight.copy_(-torch.eye(3))
    torch.testing.assert_close(grad_cam(Classifier(Reds(), turned), image, target=0, against=True), found)


def test_no_maps_no_grad_cam() -> None:
    flat = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5)), torch.nn.Linear(5, 2))
    with pytest.raises(ConfigError, match="this backbone has no maps of places"):
        grad_cam(flat, torch.randn(3, 2, 2), target=0)


def test_what_the_model_sees_is_its_crop(of_photos: Path, photos: Path) -> None:
    predictor = Predictor(of_photos)
    seen = Image.open(io.BytesIO(predictor.seen(photos / "red" / "00.jpg")))
    assert seen.size == (32, 32)
    _model, transform = headstart.load(of_photos)
    image = Image.open(photos / "red" / "00.jpg")
    torch.testing.assert_close(transform(image), predictor.tensor(photos / "red" / "00.jpg"))
