"""`headstart data`: what it prints, writes and answers with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.audit.photographs import jpeg, pieces

from headstart.audit.pixels import chosen_places, shown_examples
from headstart.cli import main
from headstart.cli.completion import candidates
from headstart.config.compose import compose
from headstart.data import load_data
from headstart.resolve import resolve, spec_of

Captured = pytest.CaptureFixture[str]
TINY = ("backbone.name=test_resnet", "data.image_size=48")


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    root = tmp_path / "my trees"
    for i, image in enumerate(pieces()[:30]):
        split = "train" if i < 20 else "val" if i < 24 else "test"
        place = root / split / ("ash", "birch")[i % 2] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)
    return root


def data(root: Path, *words: str) -> int:
    return main(["data", "data=image_folder", f"data.path='{root}'", *TINY, *words])


def test_a_clean_folder_is_answered_with_0(trees: Path, capsys: Captured) -> None:
    before = sorted(trees.rglob("*"))
    assert data(trees) == 0
    shown = capsys.readouterr().out
    assert "image_folder: multiclass, 30 images: 20 train, 4 val, 6 test" in shown
    assert "the shorter side resized to" in shown
    assert "nothing that would mislead" in shown
    assert sorted(trees.rglob("*")) == before
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_a_leak_through_the_real_command_line(trees: Path) -> None:
    jpeg(Image.open(trees / "train/ash/00.png")).save(trees / "test/ash/copy.jpg")
    command = [sys.executable, "-m", "headstart", "data", "data=image_folder", f"data.path='{trees}'", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 3, done.stderr
    assert "LEAK         1 of 7 test images are in train as well (0 exact, 1 near)" in done.stdout
    assert "train/ash/00.png [train, ash] = test/ash/copy.jpg [test, ash]" in done.stdout


def test_what_is_answered_with_3(trees: Path, capsys: Captured) -> None:
    broken = trees / "train/ash/02.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:500])
    assert data(trees) == 3
    assert f"    {broken}: " in capsys.readouterr().out
    broken.write_bytes(whole)
    (trees / "train/birch/odd.png").write_bytes(whole)
    assert data(trees) == 3
    assert "copies with different labels" in capsys.readouterr().out
    (trees / "train/birch/odd.png").unlink()
    assert data(trees) == 0


def test_a_copy_inside_a_split_is_answered_with_0(trees: Path, capsys: Captured) -> None:
    (trees / "train/ash/again.png").write_bytes((trees / "train/ash/02.png").read_bytes())
    assert data(trees) == 0
    assert "within       1 pair of copies inside a split" in capsys.readouterr().out


def test_mistakes_are_answered_with_2_before_any_image_is_read(trees: Path, capsys: Captured) -> None:
    assert data(trees, "data.batch=3") == 2
    assert data(trees, "--plot", "sheet.jpeg") == 2
    assert data(trees, "--pairs", "-1") == 2
    assert data(trees, "--json", "nowhere/f.json") == 2
    assert data(trees, "--save-split", str(trees)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--json nowhere/f.json: there is no folder nowhere." in said.err
    assert "--pairs -1" in said.err
    assert data(trees / "nowhere") == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_data_that_cannot_be_split_is_reported_and_then_answered_with_2(trees: Path, capsys: Captured) -> None:
    assert data(trees, "data.test_size=1", "--json", "f.json", "--save-split", "s.csv") == 2
    said = capsys.readouterr()
    assert "leaves out the class" in said.err
    assert "duplicates   0 exact copies" in said.out
    assert json.loads(Path("f.json").read_text())["problem"]
    assert not Path("s.csv").exists()


def test_pairs_limits_what_is_listed_and_not_what_is_counted(trees: Path, capsys: Captured) -> None:
    for i in (0, 2, 4):
        (trees / f"test/ash/copy{i}.png").write_bytes((trees / f"train/ash/{i:02d}.png").read_bytes())
    assert data(trees, "--pairs", "1") == 3
    shown = capsys.readouterr().out
    assert "3 of 9 test images are in train as well" in shown
    assert shown.count("exact      train/") == 1
    assert "... and 2 more" in shown


def test_the_split_is_saved_as_training_would_use_it(trees: Path, capsys: Captured) -> None:
    overrides = ["data=image_folder", f"data.path='{trees / 'train'}'", *TINY, "data.split_seed=3"]
    assert main(["data", *overrides, "--save-split", "split.csv"]) == 0
    with Path("split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "split", "label"]
    config = resolve(compose([*overrides, "weights=scratch"]))
    loaded = load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)
    for name, split in loaded.splits.items():
        assert {row["id"] for row in rows if row["split"] == name} == set(split.ids)
    assert all(row["label"] == row["id"].split("/")[0] for row in rows)


def test_the_contact_sheet_has_what_training_and_testing_see(trees: Path, capsys: Captured) -> None:
    assert data(trees, "data.augment=light", "--plot", "sheet.png") == 0
    with Image.open("sheet.png") as opened:
        assert opened.format == "PNG"
        picture = np.asarray(opened.convert("RGB"))
    assert picture.shape[1] == 1395
    assert picture.shape[0] > picture.shape[1]
    assert picture.std() > 30
    colours = np.abs(picture[..., 0].astype(int) - picture[..., 2])
    # pictures in every column of the grid, from the first row to the last
    for column in np.array_split(colours[:, 30:-30], 6, axis=1):
        assert all((part > 8).mean() > 0.02 for part in np.array_split(column, 3))


def test_shown_examples_are_the_models_own_batches(trees: Path) -> None:
    config = resolve(
        compose(["data=image_folder", f"data.path='{trees}'", *TINY, "weights=scratch", "data.augment=light"])
    )
    loaded = load_data(config.data, spec_of(config), seed=5, threads=1, num_workers=0)
    labels = [loaded.facts.class_names[t] for t in loaded.splits["train"].targets]
    shown = shown_examples(loaded, "train", count=4, draws=3, labels=labels, seed=0)
    assert [one.label for one in shown] == ["ash", "ash", "birch", "birch"]
    for one in shown:
        position = loaded.splits["train"].ids.index(one.id)
        original = np.asarray(Image.open(trees / one.id).convert("RGB"))
        assert np.abs(one.original.astype(int) - original).mean() < 4  # it has been a JPEG
        plain = np.asarray(loaded.evaluation.geometry(Image.open(trees / one.id).convert("RGB"))).transpose(1, 2, 0)
        assert np.abs(one.evaluated.astype(int) - plain).max() <= 1
        # what training sees in these epochs, whichever batch the example is in
        for epoch, drawn in enumerate(one.augmented):
            loaded.epoch = lambda epoch=epoch: epoch  # type: ignore[misc]
            for raw in loaded.train_dataloader():
                batch = loaded.augmented(raw)
                if position in (rows := batch["index"].tolist()):
                    pixels = batch["image"][rows.index(position)].numpy().transpose(1, 2, 0)
                    assert np.abs(drawn.astype(int) - pixels).max() <= 1
        assert len({drawn.tobytes() for drawn in one.augmented}) == 3
    assert len(loaded.splits["train"].indices) == 20
    others = shown_examples(loaded, "test", count=2, draws=3, labels=["a"] * 6, seed=0)
    assert [one.augmented for one in others] == [(), ()]


def test_a_sheet_has_one_of_each_class_before_a_second_of_any() -> None:
    labels = ["a"] * 90 + ["b"] * 9 + ["c"]
    chosen = [labels[place] for place in chosen_places(labels, count=5, seed=0)]
    assert chosen == ["a", "a", "b", "b", "c"]
    assert chosen_places(labels, count=5, seed=0) == chosen_places(labels, count=5, seed=0)
    assert len(chosen_places(labels, count=500, seed=0)) == 100


def test_sheets_of_grey_and_many_channels(trees: Path, capsys: Captured) -> None:
    assert data(trees, "data.channels=1", "--plot", "grey.png") == 0
    assert data(trees, "data.channels=4", "--plot", "four.svg") == 0
    assert main(["data", "data=digits", *TINY, "--plot", "digits.png"]) == 0
    assert Path("grey.png").stat().st_size > 10_000
    assert "too small to be near duplicates" in capsys.readouterr().out


def test_names_cannot_command_the_terminal(trees: Path, capsys: Captured) -> None:
    (trees / "train/ash/\x1b[2Jx.png").write_bytes(b"nothing")
    assert data(trees) == 3
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[2Jx.png" in shown


def test_completion_and_help(capsys: Captured) -> None:
    assert "data" in candidates("headstart da")
    assert "--save-split" in candidates("headstart data --s")
    assert "data.path=" in candidates("headstart data data.pa")
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    assert "--save-split" in capsys.readouterr().out
