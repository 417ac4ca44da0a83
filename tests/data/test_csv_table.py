"""Tables of images: what is read of them, and a line for each way in which a row is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from tests.conftest import RunTiny, make_photos, tiny_config

from headstart.config.compose import compose
from headstart.config.schema.data import CsvConfig
from headstart.data.opening import chosen_source
from headstart.data.source import Source
from headstart.errors import ConfigError, DataError


def table(path: Path, text: str, *words: str, encoding: str = "utf-8") -> Source:
    """The source of a table beside images a.jpg to h.jpg."""
    path.mkdir(exist_ok=True)
    for name in "abcdefgh":
        if not (path / f"{name}.jpg").exists():
            Image.new("RGB", (8, 8), (ord(name), 0, 0)).save(path / f"{name}.jpg")
    (path / "table.csv").write_text(text, encoding=encoding)
    return opened(path / "table.csv", *words)


def opened(path: Path, *words: str) -> Source:
    given = dict(word.removeprefix("data.").split("=", 1) for word in words)
    return chosen_source(CsvConfig(path=str(path), **{key: yaml.safe_load(value) for key, value in given.items()}))


def targets(source: Source, split: str = "train") -> Any:
    return source.splits[split].targets.tolist()


def test_paths_and_labels(tmp_path: Path) -> None:
    source = table(tmp_path / "s", "path,label\na.jpg,dog\nb.jpg,cat\n\nc.jpg,dog\n")
    assert source.task == "multiclass"
    assert source.class_names == ("cat", "dog")
    assert source.splits["train"].ids == ["a.jpg", "b.jpg", "c.jpg"]
    assert targets(source) == [1, 0, 1]
    assert source.splits["train"].content(1) == (tmp_path / "s" / "b.jpg").read_bytes()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_quotes_and_semicolons(tmp_path: Path, mark: str) -> None:
    source = table(tmp_path / "s", f'{mark}path;label\n"a.jpg";"küche; groß"\nb.jpg;日本\n')
    assert source.class_names == ("küche; groß", "日本")


def test_numbers_are_sorted_by_value_and_gaps_stay(tmp_path: Path) -> None:
    source = table(tmp_path / "s", "file,class\na.jpg,10\nb.jpg,2\nc.jpg,1\nd.jpg,2.0\n")
    assert source.class_names == ("1", "2", "10")
    assert targets(source) == [2, 1, 0, 1]
    chosen = table(tmp_path / "s", "file,class\na.jpg,10\nb.jpg,2\nc.jpg,1\n", "data.classes=[1,2]")
    assert chosen.class_names == ("1", "2")
    assert chosen.splits["train"].ids == ["b.jpg", "c.jpg"]
    with pytest.raises(ConfigError, match="there is no class 0; there are 1 to 10"):
        table(tmp_path / "s", "file,class\na.jpg,10\nb.jpg,2\nc.jpg,1\n", "data.classes=[0,1]")


def test_a_split_column_of_any_case(tmp_path: Path) -> None:
    text = "path,label,Split\na.jpg,x,Train\nb.jpg,y,TRAIN\nc.jpg,x,valid\nd.jpg,y,Validation\ne.jpg,y,TEST\n"
    source = table(tmp_path / "s", text)
    assert {name: list(part.ids) for name, part in source.splits.items()} == {
        "train": ["a.jpg", "b.jpg"],
        "val": ["c.jpg", "d.jpg"],
        "test": ["e.jpg"],
    }
    assert list(table(tmp_path / "s", text, "data.split_column=none").splits) == ["train"]
    renamed = text.replace("Split", "part")
    assert list(table(tmp_path / "s", renamed, "data.split_column=part").splits) == ["train", "val", "test"]


def test_several_labels_in_a_cell_and_in_columns(tmp_path: Path) -> None:
    source = table(tmp_path / "s", "path,labels\na.jpg,x|y\nb.jpg,\nc.jpg, z | x \n", "data.label_separator='|'")
    assert source.task == "multilabel"
    assert source.class_names == ("x", "y", "z")
    assert targets(source) == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    hot = table(tmp_path / "s", "path,sea,sky\na.jpg,1,0\nb.jpg,1,1\n", "data.label_column=[sky,sea]")
    assert (hot.task, hot.class_names) == ("multilabel", ("sky", "sea"))
    assert targets(hot) == [[0, 1], [1, 1]]


def test_numbers_are_a_regression(tmp_path: Path) -> None:
    source = table(tmp_path / "s", "path,label\na.jpg,1.5\nb.jpg,-2e3\nc.jpg,7\n")
    assert (source.task, source.class_names) == ("regression", ("label",))
    assert source.splits["train"].targets.dtype == np.float64
    assert targets(source) == [[1.5], [-2000.0], [7.0]]
    two = table(tmp_path / "s", "path,age,size\na.jpg,1,0.5\nb.jpg,20,3\n", "data.label_column=[age,size]")
    assert (two.task, two.class_names) == ("regression", ("age", "size"))
    assert targets(two) == [[1.0, 0.5], [20.0, 3.0]]
    whole = table(tmp_path / "s", "path,label\na.jpg,1\nb.jpg,2\n", "data.task=regression")
    assert targets(whole) == [[1.0], [2.0]]
    classes = table(tmp_path / "s", "path,label\na.jpg,1.5\nb.jpg,2.5\n", "data.task=multiclass")
    assert classes.class_names == ("1.5", "2.5")


def test_two_classes_as_a_binary_task(tmp_path: Path) -> None:
    text = "path,label\na.jpg,sick\nb.jpg,healthy\n"
    source = table(tmp_path / "s", text, "data.task=binary")
    assert (source.task, source.class_names, targets(source)) == ("binary", ("healthy", "sick"), [1, 0])
    other = table(tmp_path / "s", text, "data.task=binary", "data.classes=[sick,healthy]")
    assert (other.class_names, targets(other)) == (("sick", "healthy"), [0, 1])
    with pytest.raises(ConfigError, match="there are 3 classes, not two"):
        table(tmp_path / "s", text + "c.jpg,dead\n", "data.task=binary")


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    text = "path,label,extra\na.jpg,3,\nb.jpg,1,x\nc.jpg,3,y\n"
    plain = table(tmp_path / "s", text)
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "label": [3, 1, 3], "extra": [None, "x", "y"]})
    for labels in (frame.label, frame.label.astype("float64"), frame.label.astype(str).astype("category")):
        frame.assign(label=labels).to_parquet(tmp_path / "s" / "table.parquet")
        source = opened(tmp_path / "s" / "table.parquet")
        assert source.class_names == plain.class_names == ("1", "3")
        assert targets(source) == targets(plain)


def test_images_lie_below_root(tmp_path: Path) -> None:
    images = make_photos(tmp_path / "images", per_class=2)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text("path,label\nred/00.jpg,r\nblue/01.jpg,b\n")
    source = opened(tmp_path / "tables" / "t.csv", f"data.root={images}")
    assert source.splits["train"].ids == ["red/00.jpg", "blue/01.jpg"]
    assert source.splits["train"].where(0) == str(images / "red" / "00.jpg")
    with pytest.raises(DataError, match=r"t\.csv, row 1, column path: 'red/00\.jpg' is not below .*tables"):
        opened(tmp_path / "tables" / "t.csv")


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("", [], "is empty"),
        ("path,label\n", [], "has a header and no rows"),
        ("path,label\na.jpg,x\nb.jpg\n", [], "row 2: has 1 cells, the header 2"),
        ("path,label\na.jpg,x\nb.jpg,\n", [], "row 2, column label: has no label"),
        ("path,label\na.jpg,x\nb.jpg,NaN\n", [], "row 2, column label: the label is NaN"),
        ("path,label\na.jpg,1.5\nb.jpg,nan\n", [], "row 2, column label: the label is nan"),
        ("path,label\na.jpg,1.5\nb.jpg,inf\n", [], "row 2, column label: must be a number, is 'inf'"),
        ("path,label\na.jpg,1.5\nb.jpg,2.5\nc.jpg,tall\n", [], "row 3, column label: 'tall' is no number"),
        ("path,label\na.jpg,x\n,y\n", [], "row 2, column path: names no image"),
        ("path,label\na.jpg,x\nnone.jpg,y\n", [], r"row 2, column path: 'none\.jpg' is not below .*No such file"),
        ("path,label\na.jpg,x\nsub\\\\b.jpg,y\n", [], "Write / in place of"),
        ("path,label\na.jpg,x\n.,y\n", [], r"row 2, column path: '\.' is no file but a folder"),
        ("path,label\na.jpg,x\n/dev/zero,y\n", [], "'/dev/zero' is no file but a pipe, socket or device"),
        ("path,label\na.jpg,x\nb.jpg,y\n./a.jpg,x\n", [], r"row 3, column path: './a\.jpg' is in row 1 as well and would"),
        ("path,label\na.jpg,x\na.jpg,y\n", [], "is in row 1 as well and has another label there"),
        ("path,label,split\na.jpg,x,train\na.jpg,x,test\n", [], "is in train there and in test here, which is a leak"),
        ("path,label,split\na.jpg,x,train\nb.jpg,y,train\nc.jpg,z,val\n", [], "row 3, column label: the label 'z' is in val"),
        ("path,label,split\na.jpg,x,train\nb.jpg,y,dev\n", [], "row 2, column split: must be train, val or test, is 'dev'"),
        ("path,label,split\na.jpg,x,train\nb.jpg,y,\n", [], "row 2, column split: must be train, val or test, is ''"),
        ("path,label,split\na.jpg,x,val\nb.jpg,y,test\n", [], "puts no row into train"),
        ("path,file,label\na.jpg,b.jpg,x\n", [], "path and file may both hold the images; set data.image_column"),
        ("photo,label\na.jpg,x\n", [], r"no column is known to hold the images.*\(columns: photo, label\)"),
        ("path,one,two\na.jpg,x,y\n", [], r"which column has the labels.*\(columns: one, two\)"),
        ("path,label,label\na.jpg,x,y\n", [], "two columns called 'label'"),
        ("path,label\na.jpg,x\n", ["data.label_column=lable"], "Did you mean 'label'"),
        ("path,x,y\na.jpg,1,2\nb.jpg,0,w\n", ["data.label_column=[x,y]"], "row 2, column y: must be a number, is 'w'"),
        (
            "path,x,y\na.jpg,1,2\n", ["data.label_column=[x,y]", "data.task=multilabel"],
            "row 1, column y: must be 0 or 1, is '2'",
        ),
        ("path,l\na.jpg,x||y\n", ["data.label_separator='|'"], "row 1, column l: has an empty label"),
        ("path,label,who\na.jpg,x,1\nb.jpg,y,\n", ["data.group_column=who", "data.label_column=label"], "row 2, column who: names no"),
        ("path,label\na.jpg,x\n", ["data.root=nowhere"], r"data\.root=.*nowhere: there is no such folder"),
        ('path,label\na.jpg,"x\n', [], "is no table"),
        ("path,label\na.jpg,\nb.jpg, \n", ["data.label_separator='|'"], "its column label has no label in any row"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, text: str, words: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        table(tmp_path / "s", text, *words)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    os.mkfifo(tmp_path / "s" / "a.jpg")
    with pytest.raises(DataError, match=r"'a\.jpg' is no file but a pipe"):
        table(tmp_path / "s", "path,label\na.jpg,x\nb.jpg,y\n")
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="is a pipe, socket or device, not a table"):
        opened(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"path,label\na.jpg,\xff\n", "t.csv", "is not UTF-8"),
        (b"PAR1 no", "t.parquet", "cannot be read as Parquet"),
        (b"x", "t.xlsx", "a table is a .csv or a .parquet file"),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        opened(tmp_path / name)
    with pytest.raises(DataError, match="is a folder, not a table"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.label_column=[a,a]"], "must be a column, or a list of columns"),
        (["data.label_column=[a,b]", "data.task=multiclass"], "has one label per image"),
        (["data.task=multilabel"], "set data.label_separator, or several columns"),
        (["data.label_separator=' '"], "must be a sign"),
        (["data.label_separator=x", "data.task=regression"], "an image may have several labels"),
        (["data.task=classes"], "must be one of auto"),
        (["data.group_column=a", "data.group_pattern='(x)'"], "are both set"),
    ],
)
def test_options_that_do_not_fit(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["data=csv", "data.path=t.csv", *words])


def test_a_run_on_a_table(run_tiny: RunTiny, photos: Path) -> None:
    rows = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.glob("*/*.jpg"))]
    (photos / "t.csv").write_text("\n".join(["path,label", *rows]))
    sizes = ["data.train_size=0.5", "data.test_size=0.3"]
    _, record = run_tiny("data=csv", f"data.path={photos / 't.csv'}", *sizes)
    _, folder = run_tiny("data=image_folder", f"data.path={photos}", *sizes)
    assert record.data["fingerprint"] == folder.data["fingerprint"]
    assert record.data["split_fingerprint"] == folder.data["split_fingerprint"]
    assert record.metrics == folder.metrics


def test_an_id_is_the_same_wherever_the_table_lies() -> None:
    from headstart.config.identity import config_hash

    def digest(*words: str) -> str:
        return config_hash(tiny_config("data=csv", *words))

    assert digest("data.path=a.csv", "data.root=x") == digest("data.path=b.csv", "data.root=y")
    assert digest("data.path=a.csv") != digest("data.path=a.csv", "data.label_column=age")
