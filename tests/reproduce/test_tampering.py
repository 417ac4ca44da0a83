"""Each ingredient changed alone: the verdict names it, before all that follows from it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.conftest import make_photos, tiny_config

import headstart
from headstart.cli import main
from headstart.data import load
from headstart.data.augmentation import Augmentation, build_augmentation
from headstart.experiment import run
from headstart.reproduce.again import check
from headstart.reproduce.changes import Change
from headstart.reproduce.saved import open_saved


@dataclass(frozen=True)
class Original:
    """A run and all that it was made of; a test may change any of it, in a copy."""

    folder: Path
    photos: Path
    weights: Path

    def words(self) -> list[str]:
        """Where things are now."""
        return [f"data.path={self.photos}", f"weights.path={self.weights}"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on photographs in folders, from a file of weights."""
    root = tmp_path_factory.mktemp("original")
    make_photos(root / "photos")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), root / "weights.safetensors")
    words = {
        "data": "image_folder",
        "data.path": str(root / "photos"),
        "data.augment": "light",
        "data.train_size": "null",
        "data.test_size": "null",
        "data.batch_size": "8",
        "weights": "file",
        "weights.path": str(root / "weights.safetensors"),
        "trainer.max_epochs": "2",
        "output_dir": str(root / "outputs"),
    }
    folder, _ = run(tiny_config(*(f"{key}={value}" for key, value in words.items())), command=["test"])
    folder.rename(root / "run")
    return root


@pytest.fixture
def original(made: Path, tmp_path: Path) -> Original:
    root = tmp_path / "here"
    shutil.copytree(made, root)
    return Original(root / "run", root / "photos", root / "weights.safetensors")


def found(original: Original) -> list[Change]:
    """All that `headstart reproduce` finds changed."""
    saved = open_saved(str(original.folder), unpack_to=Path("unpacked"))
    return list(check(saved, original.words(), output_dir="outputs").changes)


def edit_config(original: Original, old: str, new: str) -> None:
    path = original.folder / "config.yaml"
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))


def change_a_pixel(original: Original) -> None:
    path = original.photos / "red" / "03.jpg"
    image = Image.open(path).convert("RGB")
    image.putpixel((1, 1), (0, 255, 0))
    image.save(path, quality=100, subsampling=0)


def change_a_label(original: Original) -> None:
    (original.photos / "red" / "03.jpg").rename(original.photos / "blue" / "r03.jpg")


def add_an_image(original: Original) -> None:
    shutil.copy(original.photos / "green" / "00.jpg", original.photos / "green" / "99.jpg")


def remove_an_image(original: Original) -> None:
    (original.photos / "green" / "05.jpg").unlink()


def change_the_split_file(original: Original) -> None:
    path = original.folder / "examples.parquet"
    table = pyarrow.parquet.read_table(path)
    splits = table.column("split").to_pylist()
    splits[0] = "test" if splits[0] != "test" else "train"
    pyarrow.parquet.write_table(table.set_column(4, "split", pyarrow.array(splits)), path)


def change_a_byte_of_the_weights(original: Original) -> None:
    content = bytearray(original.weights.read_bytes())
    content[-2] ^= 1  # a float32's last byte but one
    original.weights.write_bytes(content)


def change_the_learning_rate(original: Original) -> None:
    edit_config(original, "  lr: 0.001", "  lr: 0.0011")


def change_the_seed(original: Original) -> None:
    edit_config(original, "\nseed: 0", "\nseed: 1")


def change_the_threads(original: Original) -> None:
    edit_config(original, "  threads: 1", "  threads: 2")


def change_the_predictions(original: Original) -> None:
    path = original.folder / "predictions.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 2), path)


Tamper = Callable[[Original], None]
TAMPERS: list[tuple[Tamper, str, str]] = [
    (change_a_pixel, "data", "1 image changed: red/03.jpg"),
    (change_a_label, "data", "1 image renamed or put into another class: blue/r03.jpg"),
    (add_an_image, "data", "1 image added: green/99.jpg"),
    (remove_an_image, "data", "1 image gone: green/05.jpg"),
    (change_the_split_file, "record", "examples.parquet was changed after the run"),
    (change_the_predictions, "record", "predictions.parquet was changed after the run"),
    (change_a_byte_of_the_weights, "weights", "weights.safetensors: the file is another (SHA-256 "),
    (change_the_learning_rate, "config", "optimizer.lr: 0.001 -> 0.0011"),
    (change_the_seed, "config", "seed: 0 -> 1"),
    (change_the_threads, "config", "trainer.threads: 1 -> 2"),
]


def test_untouched_nothing_is_named(original: Original) -> None:
    assert found(original) == []


@pytest.mark.parametrize(("tamper", "kind", "text"), TAMPERS, ids=[one[0].__name__ for one in TAMPERS])
def test_it_is_named_first(
    original: Original, tamper: Tamper, kind: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(original)
    changes = found(original)
    assert changes, "nothing was found"
    assert (changes[0].kind, changes[0].matters) == (kind, True), changes
    assert changes[0].text.startswith(text) or text in changes[0].text, changes
    assert main(["reproduce", str(original.folder), *original.words(), "--check-only"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Not what it was, the likeliest to matter first:", f"  {kind}: {changes[0].text}"]


@pytest.mark.parametrize("tamper", [change_a_pixel, change_the_seed])
def test_the_verdict_names_it_too(original: Original, tamper: Tamper, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(original)
    first = found(original)[0]
    main(["reproduce", str(original.folder), *original.words()])
    said = capsys.readouterr().out
    assert f"The likeliest reason: {first.kind}: {first.text}." in said
    assert "They part in epoch 1: " in said, said


def test_what_follows_from_it_comes_after(original: Original) -> None:
    change_a_label(original)
    kinds = [change.kind for change in found(original)]
    assert kinds[0] == "data"
    assert "split" in kinds
    assert kinds.index("data") < kinds.index("split")
    change_the_seed(original)
    kinds = [change.kind for change in found(original)]
    assert kinds[0] == "config"
    assert kinds.index("config") < kinds.index("data") < kinds.index("order") < kinds.index("initial weights")


def test_a_transform_that_is_built_otherwise(original: Original, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that builds another transform of the same config."""

    def other(*given: Any, **named: Any) -> Augmentation:
        built = build_augmentation(*given, **named)
        assert built is not None
        return replace(built, scale=(0.5, 1.0))

    monkeypatch.setattr(load, "build_augmentation", other)
    changes = found(original)
    assert changes[0].kind == "transform"
    assert "0.2" in changes[0].text
    assert "0.5" in changes[0].text
    assert [change.kind for change in changes[1:]] == ["first images"]


def in_a_process(original: Original, path: Path) -> str:
    """What a process says whose Python finds packages below `path` first."""
    words = ["reproduce", str(original.folder), *original.words(), "--check-only"]
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(path)},
    )
    assert done.returncode == 3, done.stdout + done.stderr
    return done.stdout.splitlines()[1]


@pytest.mark.slow
def test_a_package_of_another_version(original: Original, tmp_path: Path) -> None:
    info = tmp_path / "site" / "timm-0.0.7.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 0.0.7\n")
    real = importlib.metadata.version("timm")
    assert in_a_process(original, tmp_path / "site").startswith(f"  packages: timm {real} -> 0.0.7")


def test_other_code(original: Original, tmp_path: Path) -> None:
    package = Path(headstart.__file__).parent
    shutil.copytree(package, tmp_path / "site" / "headstart", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "site" / "headstart" / "training" / "losses.py"
    assert path.is_file()
    path.write_text(path.read_text() + "\n# another line\n")
    assert in_a_process(original, tmp_path / "site").startswith("  code: Headstart's own: training")


def test_a_label_in_a_column(tmp_path: Path) -> None:
    """Where labels stand beside images, one is changed without touching its image."""
    import datasets

    def write(labels: list[int]) -> None:
        images = [Image.new("RGB", (16, 16), (i * 6, 90, 200 - i * 6)) for i in range(len(labels))]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        table.to_parquet(tmp_path / "table" / "train.parquet")

    labels = [i % 2 for i in range(30)]
    (tmp_path / "table").mkdir()
    write(labels)
    words = ("data=hf", f"data.path={tmp_path / 'table'}", "data.train_size=null", "data.test_size=null")
    folder, _ = run(tiny_config(*words), command=["test"])
    labels[4] = 1
    write(labels)
    saved = open_saved(str(folder), unpack_to=Path("unpacked"))
    first = check(saved, [], output_dir="outputs").changes[0]
    assert (first.kind, first.text) == ("data", "1 label changed: train/000004 (a -> b)")


def test_weights_that_were_packed_with_other_bytes_are_seen(original: Original) -> None:
    """The tensors themselves, not only the file: a file written anew with the same tensors is another file."""
    tensors = load_file(original.weights)
    save_file(tensors, original.weights, metadata={"written": "anew"})
    (change,) = found(original)
    assert change.kind == "weights"
    assert "the same tensors" in change.text
