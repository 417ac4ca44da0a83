"""Sources: what is found, what its examples are called, and what bad data is answered with."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import make_photos

from headstart.config.compose import compose
from headstart.data import ImageDataModule, load_data
from headstart.data.opening import open_source
from headstart.errors import ConfigError, DataError
from headstart.resolve import resolve, spec_of


def data_of(*overrides: str) -> ImageDataModule:
    config = resolve(compose(["backbone.name=test_resnet", "weights=scratch", "data.image_size=16", *overrides]))
    return load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)


def folder(path: Path, *more: str) -> ImageDataModule:
    return data_of("data=image_folder", f"data.path={path}", *more)


def hf(path: Path | str, *more: str) -> ImageDataModule:
    return data_of("data=hf", f"data.path={path}", *more)


def test_digits_are_the_real_ones() -> None:
    data = data_of("data=digits")
    assert data.facts.sizes == {"train": 1294, "val": 144, "test": 359}
    assert data.splits["train"].examples.where(3) == "sklearn.datasets.load_digits()[3]"


# --- folders


def test_class_folders(photos: Path) -> None:
    data = folder(photos)
    assert data.facts.class_names == ("blue", "green", "red")
    assert sum(data.facts.sizes.values()) == 36
    assert "red/00.jpg" in {name for split in data.splits.values() for name in split.ids}


def test_split_folders_are_kept_apart(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        make_photos(tmp_path / "set" / split, per_class=4)
    data = folder(tmp_path / "set")
    assert data.facts.sizes == {"train": 12, "val": 12, "test": 12}
    assert all(name.startswith("valid/") for name in data.splits["val"].ids)


def test_nested_folders_any_case_and_loops(photos: Path) -> None:
    (photos / "red" / "deep" / "er").mkdir(parents=True)
    (photos / "red" / "00.jpg").rename(photos / "red" / "deep" / "er" / "X.JPG")
    (photos / "red" / "deep" / "loop").symlink_to(photos / "red")
    (photos / "red" / "notes.txt").write_text("no image")
    assert sum(folder(photos).facts.sizes.values()) == 36


def test_the_fingerprint_is_the_content_and_not_the_order_or_place(photos: Path, tmp_path: Path) -> None:
    first = folder(photos).facts
    again = make_photos(tmp_path / "again")
    os.utime(again / "red" / "00.jpg", (1, 1))
    assert folder(again).facts.fingerprint == first.fingerprint
    assert folder(again).facts.split_fingerprint == first.split_fingerprint
    Image.new("RGB", (40, 30)).save(again / "red" / "00.jpg")
    assert folder(again).facts.fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: [f.unlink() for f in (p / "red").iterdir()], "the class folder .*red has no images"),
        (lambda p: [f.rename(p / f.name) for d in list(p.iterdir()) for f in d.iterdir()], "has no images"),
        (lambda p: (p / "red" / "05.jpg").write_bytes(b""), "red/05.jpg: cannot be decoded"),
        (lambda p: (p / "red" / "05.jpg").write_text("text"), "red/05.jpg: cannot be decoded"),
        (lambda p: _truncate(p / "red" / "05.jpg"), "red/05.jpg: cannot be decoded .*truncated"),
        (lambda p: [_remove(p / c) for c in ("red", "green")], "has one class only .blue."),
    ],
)
def test_a_bad_folder_is_named(photos: Path, spoil: Any, said: str) -> None:
    spoil(photos)
    with pytest.raises(DataError, match=said):
        folder(photos)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _remove(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def test_a_missing_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*nowhere: there is no such folder"):
        folder(Path("nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        folder(tmp_path / "empty")


def test_bad_images_can_be_skipped_and_are_counted(photos: Path) -> None:
    _truncate(photos / "red" / "05.jpg")
    facts = folder(photos, "data.on_bad_image=skip").facts
    assert sum(facts.sizes.values()) == 35
    assert len(facts.skipped) == 1
    assert facts.skipped[0].endswith("red/05.jpg")


def test_splits_with_other_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_photos(tmp_path / "set" / split, per_class=4)
    _remove(tmp_path / "set" / "test" / "red")
    with pytest.raises(DataError, match="test lacks the class folder 'red'"):
        folder(tmp_path / "set")


def test_a_decompression_bomb_is_refused(photos: Path) -> None:
    header = b"P6 60000 60000 255\n"
    (photos / "red" / "bomb.ppm").write_bytes(header + b"\0" * 10)
    with pytest.raises(DataError, match=r"bomb\.ppm: cannot be decoded"):
        folder(photos)


def test_formats_that_start_programs_are_not_decoded(photos: Path) -> None:
    (photos / "red" / "05.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(DataError, match=r"05\.png: cannot be decoded .*cannot identify"):
        folder(photos)


def test_a_name_that_is_no_text(photos: Path) -> None:
    os.rename(photos / "red" / "05.jpg", os.fsencode(photos / "red") + b"/\xff.jpg")  # noqa: PTH104
    with pytest.raises(DataError, match="its name is not UTF-8"):
        folder(photos)


def test_splits_of_any_case_and_classes_of_any_alphabet(tmp_path: Path) -> None:
    for split in ("Train", "VALID", "tesT"):
        for i, name in enumerate(("köter", "猫", "با\u200cهم", "два слова", "a'b")):
            for k in range(3):
                path = tmp_path / "set" / split / name / f"bild {k}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (i * 40, k, 0)).save(path)
    data = folder(tmp_path / "set")
    assert set(data.facts.class_names) == {"köter", "猫", "با\u200cهم", "два слова", "a'b"}
    assert data.facts.sizes == {"train": 15, "val": 15, "test": 15}
    assert "Train/два слова/bild 0.JPEG" in data.splits["train"].ids
    (tmp_path / "set" / "train").mkdir()
    with pytest.raises(DataError, match="Train and train may both be the train split"):
        folder(tmp_path / "set")


def test_a_newline_in_a_name(photos: Path) -> None:
    (photos / "red" / "00.jpg").rename(photos / "red" / "a\nb.jpg")
    assert sum(folder(photos).facts.sizes.values()) == 36
    (photos / "red" / "a\nb.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"red/a\\nb\.jpg: cannot be decoded") as caught:
        folder(photos)
    assert "\n" not in str(caught.value)
    (photos / "red").rename(photos / "re\nd")
    with pytest.raises(DataError, match=r"the class folder 're\\nd' .* is no line of text"):
        folder(photos)


def test_links_that_loop_and_links_to_nothing(photos: Path) -> None:
    (photos / "red" / "a").symlink_to(photos / "red" / "b")
    (photos / "red" / "b").symlink_to(photos / "red" / "a")
    (photos / "red" / "up").symlink_to(photos)
    (photos / "red" / "zz").symlink_to(photos / "red" / "deep")
    (photos / "red" / "deep").mkdir()
    (photos / "red" / "01.jpg").rename(photos / "red" / "deep" / "01.jpg")
    data = folder(photos)
    names = [name for split in data.splits.values() for name in split.ids if name.startswith("red/")]
    assert "red/deep/01.jpg" in names  # by its own name, not by that of a link
    assert len({name.rpartition("/")[2] for name in names if "/up/" not in name}) == 12
    (photos / "red" / "x.jpg").symlink_to(photos / "nowhere.jpg")
    with pytest.raises(DataError, match=r"red/x\.jpg': is a link to nothing"):
        folder(photos)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_never_hangs(photos: Path, make: Any) -> None:
    make(photos / "red" / "x.jpg")
    with pytest.raises(DataError, match=r"red/x\.jpg': is a pipe, socket or device"):
        folder(photos)


def test_a_folder_without_permission(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a person: root may list everything."""
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("/red/secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (photos / "red" / "secret").mkdir()
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"red/secret: cannot be listed .Permission denied"):
        folder(photos)


def test_a_file_without_permission(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "05.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(DataError, match=r"05\.jpg: cannot be decoded .*Permission denied"):
        folder(photos)


# --- Hugging Face


def dataset(rows: int = 40, **columns: Any) -> Any:
    import datasets

    images = [Image.fromarray(np.full((9, 7, 3), 5 * i, dtype=np.uint8)) for i in range(rows)]
    features = {"image": datasets.Image()}
    values: dict[str, Any] = {"image": images}
    for name, (value, feature) in columns.items():
        values[name], features[name] = value, feature
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


def label(names: list[str]) -> Any:
    import datasets

    return datasets.ClassLabel(names=names)


def test_parquet_folder_with_class_labels(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    rows = dataset(label=([i % 2 for i in range(40)], label(["cat", "dog"])))
    rows.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    rows.select(range(10)).to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
    data = hf(tmp_path / "set")
    assert data.facts.class_names == ("cat", "dog")
    assert data.facts.sizes == {"train": 36, "val": 4, "test": 10}
    picture = data.splits["train"].examples.image(3)
    assert np.asarray(picture)[0, 0, 0] == 15


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["cat", "dog"] * 20, ("cat", "dog")),
        ([7, 3] * 20, ("3", "7")),
    ],
)
def test_labels_may_be_names_or_numbers(tmp_path: Path, values: list[Any], names: tuple[str, ...]) -> None:
    import datasets

    kind = datasets.Value("string" if isinstance(values[0], str) else "int64")
    dataset(label=(values, kind)).save_to_disk(tmp_path / "set")
    data = hf(tmp_path / "set")
    assert data.facts.class_names == names
    assert sorted(data.facts.class_counts["train"]) == [14, 15]
    first = data.splits["train"]
    assert [names[t] for t in first.targets] == [str(values[int(i.partition("/")[2])]) for i in first.ids]


def test_fractions_are_numbers_to_be_told(tmp_path: Path) -> None:
    import datasets

    from headstart.config.schema.data import HuggingFaceConfig
    from headstart.data.opening import chosen_source

    ages = [i / 2 for i in range(40)]
    whole = list(range(40))
    places = [[i / 3, float(i)] for i in range(40)]
    rows = dataset(
        age=(ages, datasets.Value("float32")),
        count=(whole, datasets.Value("int64")),
        place=(places, datasets.List(datasets.Value("float64"))),
    )
    rows.save_to_disk(tmp_path / "set")

    def opened(**options: Any) -> Any:
        return chosen_source(HuggingFaceConfig(path=str(tmp_path / "set"), **options))

    one = opened(label_column="age")
    assert (one.task, one.class_names) == ("regression", ("age",))
    assert one.splits["train"].targets.tolist() == [[age] for age in ages]
    assert one.splits["train"].targets.dtype == np.float64
    several = opened(label_column="place")
    assert (several.task, several.class_names) == ("regression", ("place.0", "place.1"))
    assert several.splits["train"].targets.tolist() == places
    columns = opened(label_column=["age", "count"])
    assert columns.class_names == ("age", "count")
    assert columns.splits["train"].targets.tolist() == [[a, c] for a, c in zip(ages, whole, strict=True)]
    assert opened(label_column="count").task == "multiclass"
    assert opened(label_column="count", task="regression").task == "regression"
    with pytest.raises(ConfigError, match=r"data\.task=multilabel: these images have one class each"):
        opened(label_column="count", task="multilabel")


def test_a_list_of_labels_means_several(tmp_path: Path) -> None:
    import datasets

    lists = [[0], [1], [0, 1], [2, 0]] * 10
    rows = dataset(labels=(lists, datasets.List(label(["a", "b", "c"]))))
    rows.save_to_disk(tmp_path / "set")
    data = hf(tmp_path / "set", "data.test_size=10", "data.val_size=8")
    assert data.facts.task == "multilabel"
    batch = next(iter(data.train_dataloader()))
    assert batch["target"].shape[1] == 3
    assert batch["target"].dtype.is_floating_point
    split = data.splits["train"]
    for name, target in zip(split.ids, split.targets, strict=True):
        expected = lists[int(name.partition("/")[2])]
        assert sorted(np.flatnonzero(target)) == sorted(expected)


def test_arrays_of_any_channels(tmp_path: Path) -> None:
    import datasets

    array = np.arange(40 * 6 * 8 * 5, dtype=np.int64).reshape(40, 6, 8, 5) % 256
    features = datasets.Features({"image": datasets.Array3D((6, 8, 5), "uint8"), "label": label(["a", "b"])})
    rows = datasets.Dataset.from_dict(
        {"image": list(array.astype(np.uint8)), "label": [0, 1] * 20}, features=features
    )
    rows.save_to_disk(tmp_path / "set")
    data = hf(tmp_path / "set", "data.channels=5", "data.image_size=[16,24]")
    assert next(iter(data.train_dataloader()))["image"].shape[1:] == (5, 16, 24)
    with pytest.raises(DataError, match=r"data\.channels=3: the images have 5 channels"):
        hf(tmp_path / "set")


@pytest.mark.parametrize(
    ("columns", "overrides", "said"),
    [
        ({"label": ([0, -1] * 20, "classes")}, [], "the label -1 is none of the 2 classes"),
        ({"score": ([0.5] * 40, "float")}, [], "which column has the labels"),
        ({"label": ([0.5] * 40, "float")}, ["data.task=multiclass"], "must hold classes"),
        ({"label": ([0.5] * 39 + [float("nan")], "float")}, [], "train, label, row 39: the label nan is no number"),
        ({"label": ([0, 1] * 20, "classes")}, ["data.label_column=lable"], "Did you mean 'label'"),
        (
            {"label": ([0, 1] * 20, "classes")},
            ["data.image_column=pic"],
            r"data\.image_column=pic: there is no such",
        ),
        ({"label": ([0] * 40, "one")}, [], "has one class only"),
    ],
)
def test_a_bad_dataset_is_named(tmp_path: Path, columns: Any, overrides: list[str], said: str) -> None:
    import datasets

    kinds = {"classes": label(["a", "b"]), "one": label(["a"]), "float": datasets.Value("float32")}
    dataset(**{name: (values, kinds[kind]) for name, (values, kind) in columns.items()}).save_to_disk(
        tmp_path / "s"
    )
    with pytest.raises(DataError, match=said):
        hf(tmp_path / "s", *overrides)


def test_an_unreadable_cell_is_named(tmp_path: Path) -> None:
    import datasets

    cells = [{"bytes": b"no image", "path": None}] * 4
    rows = datasets.Dataset.from_dict(
        {"image": cells, "label": [0, 1, 0, 1]},
        features=datasets.Features({"image": datasets.Image(decode=False), "label": label(["a", "b"])}),
    )
    rows.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="train, row 0: cannot be decoded"):
        hf(tmp_path / "set")


def test_a_row_without_image_and_labels_as_a_0_1_vector(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": label(["a", "b"])})
    picture = Image.new("RGB", (4, 4))
    rows = {"image": [picture, None, picture, picture], "label": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "hole")
    with pytest.raises(DataError, match="there is no image in this row"):
        hf(tmp_path / "hole")
    hot = dataset(labels=([[0, 1, 0], [1, 0, 1]] * 20, datasets.List(datasets.Value("int64"))))
    hot.save_to_disk(tmp_path / "hot")
    with pytest.raises(DataError, match=r"holds 0 and 1 for every class"):
        hf(tmp_path / "hot")


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        hf(tmp_path / "empty")
    with pytest.raises(DataError, match="there is no such folder"):
        hf("./nowhere")
    with pytest.raises(DataError, match=r"data\.path=owner/name: cannot be read as a dataset"):
        hf("owner/name")


# --- torchvision


def write_mnist(
    root: Path, count: int = 60, *, name: str = "MNIST", splits: tuple[str, ...] = ("train", "t10k")
) -> None:
    """MNIST's own files: a header in big-endian, then bytes."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split in splits:
        pixels = np.random.default_rng(0).integers(0, 255, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for part, magic, array in (("images-idx3", 2051, pixels), ("labels-idx1", 2049, labels)):
            header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            (raw / f"{split}-{part}-ubyte").write_bytes(header + array.tobytes())
            (raw / f"{split}-{part}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def test_a_torchvision_set_in_its_own_format(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = data_of("data=torchvision", "data.name=MNIST", f"data.path={tmp_path}", "data.val_size=10")
    assert data.facts.sizes == {"train": 50, "val": 10, "test": 60}
    assert data.facts.num_classes == 10
    assert next(iter(data.test_dataloader()))["image"].shape == (32, 3, 16, 16)


def test_a_set_that_needs_more_said(tmp_path: Path) -> None:
    kinds = ("emnist-digits-train", "emnist-digits-test")
    write_mnist(tmp_path, name="EMNIST", splits=kinds)
    words = ("data=torchvision", "data.name=EMNIST", f"data.path={tmp_path}", "data.val_size=10")
    assert data_of(*words, "data.options={split: digits}").facts.sizes == {"train": 50, "val": 10, "test": 60}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CIFAR1O", "Did you mean 'CIFAR10'"),
        ("CIFAR10", r"is not in data\.path=.*data\.download=true fetches it"),
        ("ImageFolder", "torchvision has no such set"),
        ("LSUN", "torchvision has no such set"),
        ("VOCDetection", r"data\.name=VOCDetection"),
    ],
)
def test_a_set_that_cannot_be_opened(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        data_of("data=torchvision", f"data.name={name}", f"data.path={tmp_path}")


def test_every_source_is_tried_here() -> None:
    from headstart.config.schema.data import OPTIONS

    assert set(OPTIONS) == {"digits", "image_folder", "csv", "hf", "torchvision"}  # csv: in test_csv_table.py
    assert open_source(resolve(compose([])).data).class_names == tuple("0123456789")
