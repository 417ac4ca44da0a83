"""Tables and split files that lie, leak or are no tables: the row, the column or the key is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from tests.faults.hostile_input import ids_of, loaded, refused, snapshot, untouched

from headstart.cli import main

Content = str | bytes | Callable[[Path], object]
LABELS = "rgb" * 6
ROWS = [(f"{i:02d}.jpg", label) for i, label in enumerate(LABELS)]


def images(folder: Path) -> None:
    folder.mkdir()
    for name, label in ROWS:
        colour = tuple(200 * (label == own) + int(name[:2]) for own in "rgb")
        Image.new("RGB", (16, 16), colour).save(folder / name)


def text(*more: str, header: str = "path,label", tail: str = "", first: str = "") -> str:
    """A table of all images that is right, with further rows; `tail` is added to each row, `first` before them."""
    return "\n".join([header, *([first] if first else []), *(f"{n},{c}{tail}" for n, c in ROWS), *more, ""])


def with_label(cell: str) -> str:
    """The right table with another label in its third row."""
    return text().replace("02.jpg,b", f"02.jpg,{cell}")


def with_path(cell: str) -> str:
    """The right table with another path in its third row."""
    return text().replace("02.jpg,b", f"{cell},b")


def splits(*words: str) -> str:
    """The right table with a split column: these words, one after the other."""
    rows = [f"{n},{c},{words[i // 3 % len(words)]}" for i, (n, c) in enumerate(ROWS)]
    return "\n".join(["path,label,split", *rows, ""])


def frame(**columns: object) -> Callable[[Path], object]:
    """A Parquet table with these columns beside the paths."""
    return lambda p: pd.DataFrame({"path": [n for n, _ in ROWS], **columns}).to_parquet(p.with_suffix(".parquet"))


def arrow(kind: pa.DataType, value: object) -> Callable[[Path], object]:
    """A Parquet table whose labels are of some other kind."""
    table = pa.table({"path": [n for n, _ in ROWS], "label": pa.array([value] * len(ROWS), kind)})
    return lambda p: parquet.write_table(table, p.with_suffix(".parquet"))


def cut_parquet(path: Path) -> None:
    frame(label=list(LABELS))(path)
    whole = path.with_suffix(".parquet").read_bytes()
    path.with_suffix(".parquet").write_bytes(whole[: len(whole) // 2])


ROW3 = r"t\.csv, row 3, column"
REFUSED: dict[str, tuple[Content, list[str], str]] = {
    "an empty file": ("", [], "is empty"),
    "a header without rows": ("path,label\n", [], "has a header and no rows"),
    "no header": (text()[len("path,label\n"):], [], "no column is known to hold the images; set data.image_column"),
    "two columns of one name": (text(header="path,path"), [], "two columns called 'path'"),
    "a column without a name": (text(header="path,"), [], "has a column without a name"),
    "a hundred thousand columns": ("path," + ",".join(f"c{i}" for i in range(100_000)) + "\n", [], "has 100,001 columns"),
    "ten thousand columns": (
        "path," + ",".join(f"c{i}" for i in range(9_999)) + "\n" + "00.jpg" + ",1" * 9_999 + "\n", [],
        r"which column has the labels\? .*c0, c1, .* and 9,987 more",
    ),
    "a row that is too short": (text("x.jpg"), [], "row 19: has 1 cells, the header 2"),
    "a row that is too long": (text("x.jpg,r,r"), [], "row 19: has 3 cells, the header 2"),
    "a quote that does not end": (text('x.jpg,"r'), [], "is no table"),
    "a cell of a megabyte": (text("x.jpg," + "r" * 2**20), [], "is no table .*field limit"),
    "Latin-1": (with_label("grün").encode("latin-1"), [], "is not UTF-8 .* at byte"),
    "UTF-16": (text().encode("utf-16"), [], "is not UTF-8"),
    "a Parquet file called .csv": (b"PAR1\x15\x04\x15\xff" + bytes(range(256)), [], "is not UTF-8|is no table"),
    "zeros": (bytes(1000), [], "no column is known|is no table|and no rows"),
    "an empty label": (with_label(""), [], f"{ROW3} label: has no label"),
    "a blank label": (with_label("  "), [], f"{ROW3} label: has no label"),
    "NaN for a label": (with_label("NaN"), [], f"{ROW3} label: the label is NaN"),
    "a command for a label": (with_label("\x1b[31mb"), [], rf"{ROW3} label: the label '\\x1b\[31mb' is no line of text"),
    "a newline in a label": (with_label('"b\nb"'), [], rf"{ROW3} label: the label 'b\\nb' is no line of text"),
    "a zero in a label": (with_label("b\0"), [], rf"{ROW3} label: the label 'b\\x00' is no line|is no table"),
    "an endless number": (with_label("1e999"), ["data.task=regression"], "row 1, column label: must be a number, is 'r'"),
    "a missing file": (with_path("99.jpg"), [], rf"{ROW3} path: '99\.jpg' is not below .*No such file"),
    "a path on the web": (with_path("https://x.org/a.jpg"), [], f"{ROW3} path: 'https://x.org/a.jpg' is not below"),
    "a path of Windows": (with_path("a\\b.jpg"), [], "Write / in place of"),
    "a path of home": (with_path("~/02.jpg"), [], f"{ROW3} path: '~/02.jpg' is not below"),
    "a path that is too long": (with_path("x" * 5000), [], "name too long|" + ROW3),
    "a path with a zero": (with_path("0\0.jpg"), [], rf"{ROW3} path: '0\\x00\.jpg' is not below|is no table"),
    "a path to another's files": (with_path("/etc/hostname"), [], r"/etc/hostname: cannot be decoded|'/etc/hostname' is not"),
    "a path to endless zeros": (with_path("/dev/zero"), [], "'/dev/zero' is no file but a pipe, socket or device"),
    "a path to a folder": (with_path("."), [], r"'\.' is no file but a folder"),
    "a row twice": (text("00.jpg,r"), [], r"row 19, column path: '00\.jpg' is in row 1 as well and would count twice"),
    "a row twice by another path": (text("../s/00.jpg,r"), [], r"row 19, .*'\.\./s/00\.jpg' is in row 1 as well and would"),
    "two labels for one image": (text("00.jpg,b"), [], "is in row 1 as well and has another label there"),
    "one image in two splits": (
        splits("train", "train", "train", "test") + "00.jpg,r,test\n", [], "is in train there and in test here, which is a leak"
    ),
    "a label that is never trained on": (
        splits("train", "test").replace("05.jpg,b", "05.jpg,new"), [], "the label 'new' is in test and never in train"
    ),
    "labels off by one in test": (
        splits("train", "test").replace(",r,", ",0,").replace(",g,", ",1,").replace(",b,train", ",2,train").replace(",b,test", ",3,test"),
        [], "the label '3' is in test and never in train",
    ),
    "an unknown split": (splits("train", "dev"), [], "row 4, column split: must be train, val or test, is 'dev'"),
    "an empty split": (splits("train", ""), [], "column split: must be train, val or test, is ''"),
    "no train": (splits("val", "test"), [], "puts no row into train"),
    "0, 1 and a 2": (
        text(header="path,label,x", tail=",0", first="00.jpg,r,2"), ["data.label_column=[x,x2]"], r"label_column=x2: .* has no such column"
    ),
    "a 2 among 0 and 1": (
        "path,x,y\n00.jpg,0,1\n01.jpg,1,2\n", ["data.label_column=[x,y]", "data.task=multilabel"], "row 2, column y: must be 0 or 1, is '2'"
    ),
    "numbers and a word": (
        text().replace(",r", ",0.5").replace(",g", ",1.5").replace(",b", ",2.5").replace("02.jpg,2.5", "02.jpg,tall"),
        [], f"{ROW3} label: 'tall' is no number",
    ),
    "a number too large for a model": (
        text().replace(",r", ",0.5").replace(",g", ",1e300").replace(",b", ",2.5"), [], "label: .*3.4e"
    ),
    "one class": (text().replace(",g", ",r").replace(",b", ",r"), [], r"has one class only \(r\)"),
    "a class with one image": (
        with_label("rare"), [], "leaves out the class 'rare'; 1 image of it can be used, and train, val and test need one each"
    ),
    "a group in two splits": (
        "path,label,split,who\n" + "".join(
            f"{n},{c},{'test' if i % 6 > 2 else 'train'},{'p' if i in (0, 3) else i}\n" for i, (n, c) in enumerate(ROWS)
        ),
        ["data.group_column=who", "data.label_column=label"], "the group 'p' is in (train|val|test) .* and in (train|val|test)",
    ),
    "a class that is not there": (text(), ["data.classes=[r,violet]"], "there is no class 'violet'.* There are: b, g, r"),
    "a class beyond the last": (text(), ["data.classes=[0,7]"], "there is no class 7; there are 0 to 2"),
    "a fold beyond the last": (text(), ["data.num_folds=3", "data.fold=3"], r"data\.fold"),
    "labels in a struct": (arrow(pa.struct([("a", pa.int64())]), {"a": 1}), ["data.label_column=label"], "no text or numbers in it but struct<a: int64>"),
    "labels in lists": (arrow(pa.list_(pa.int64()), [1]), ["data.label_column=label"], "no text or numbers in it but list<"),
    "labels that are dates": (arrow(pa.date32(), 1), ["data.label_column=label"], r"no text or numbers in it but date32\[day\]"),
    "labels that are bytes": (arrow(pa.binary(), b"\xff"), ["data.label_column=label"], "no text or numbers in it but binary"),
    "labels that are nothing": (arrow(pa.null(), None), [], "row 1, column label: has no label"),
    "NaN in Parquet": (frame(label=[0.5, float("nan")] * 9), [], r"t\.parquet, row 2, column label: "),
    "Parquet cut in half": (cut_parquet, [], "cannot be read as Parquet"),
    "CSV called .parquet": (lambda p: p.with_suffix(".parquet").write_text(text()), [], "cannot be read as Parquet"),
}  # fmt: skip


def made(folder: Path, content: Content) -> list[str]:
    """Write a table beside images; returns the overrides that name it."""
    images(folder)
    path = folder / "t.csv"
    if callable(content):
        content(path)
        path = path.with_suffix(".parquet")
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return ["data=csv", f"data.path={path}"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, words, said = REFUSED[name]
    words = [*made(tmp_path / "s", content), *words]
    with untouched(tmp_path / "s"):
        assert "\x1b" not in refused(words, said)


SORTED = ("b", "g", "r")
ACCEPTED: dict[str, tuple[Content, list[str], int, tuple[str, ...]]] = {
    "a byte order mark": ("\ufeff" + text(), [], 18, SORTED),
    "lines of Windows": (text().replace("\n", "\r\n"), [], 18, SORTED),
    "semicolons": (text().replace(",", ";"), [], 18, SORTED),
    "tabs": (text().replace(",", "\t"), [], 18, SORTED),
    "empty lines": (text().replace("\n", "\n\n"), [], 18, SORTED),
    "no line at the end": (text().rstrip("\n"), [], 18, SORTED),
    "a newline in a cell that is not used": (text(header="path,label,note", tail=',"a\nb"'), [], 18, SORTED),
    "blanks around labels": (text().replace(",b", ", b "), [], 18, SORTED),
    "formulas": (text().replace(",b", ",=cmd('calc')!A1"), [], 18, ("=cmd('calc')!A1", "g", "r")),
    "labels with references": (text().replace(",b", ",${oops}"), [], 18, ("${oops}", "g", "r")),
    "another alphabet": (text().replace(",b", ",猫 🍓"), [], 18, ("g", "r", "猫 🍓")),
    "labels that differ in case": (text().replace(",b", ",R"), [], 18, ("R", "g", "r")),
    "labels that look like nothing": (text().replace(",b", ",None").replace(",g", ",null"), [], 18, ("None", "null", "r")),
    "truths": (text().replace(",b", ",True").replace(",g", ",False").replace(",r", ",False"), [], 18, ("False", "True")),
    "dates": (text().replace(",b", ",2024-01-01").replace(",g", ",2023-01-01"), [], 18, ("2023-01-01", "2024-01-01", "r")),
    "numbers and words": (text().replace(",b", ",1"), [], 18, ("1", "g", "r")),
    "numbers that double precision takes for one": (
        text().replace(",b", ",9007199254740993").replace(",g", ",9007199254740992"), [], 18,
        ("9007199254740992", "9007199254740993", "r"),
    ),
    "a number of four hundred digits": (text().replace(",b", "," + "9" * 400), [], 18, ("9" * 400, "g", "r")),
    "labels from one on": (text().replace(",r", ",1").replace(",g", ",2").replace(",b", ",3"), [], 18, ("1", "2", "3")),
    "absolute paths": (lambda p: frame(path=[str(p.parent / n) for n, _ in ROWS], label=list(LABELS))(p), [], 18, SORTED),
    "paths by way of the folder above": ("\n".join(["path,label", *(f"../s/{n},{c}" for n, c in ROWS)]), [], 18, SORTED),
    "only train": (splits("train"), [], 18, SORTED),
    "two columns of 0 and 1, and a 2": (
        "path,x,y\n" + "".join(f"{n},{i % 2},{i % 3}\n" for i, (n, _) in enumerate(ROWS)), ["data.label_column=[x,y]"], 18, ("x", "y")
    ),
    "categories": (frame(label=pd.Categorical(list(LABELS))), [], 18, SORTED),
    "whole numbers of 64 bits": (frame(label=np.array([2**64 - 1, 0, 1] * 6, dtype=np.uint64)), [], 18, ("0", "1", str(2**64 - 1))),
    "a struct beside the labels": (frame(label=list(LABELS), box=[{"x": 1}] * 18), [], 18, SORTED),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_table_that_is_used(tmp_path: Path, name: str) -> None:
    content, words, count, names = ACCEPTED[name]
    words = [*made(tmp_path / "s", content), *words]
    with untouched(tmp_path / "s"):
        data = loaded(words)
    assert len(ids_of(data)) == count
    assert data.facts.class_names == names


GOOD = ["id,split", *(f"{n},{('train', 'val', 'test')[i // 3 % 3]}" for i, (n, _) in enumerate(ROWS))]
SPLIT_FILES: dict[str, tuple[str, str]] = {
    "empty": ("", "data.split_file=.*is empty"),
    "a header alone": ("id,split\n", "names no example of train"),
    "an unknown id": ("\n".join([*GOOD, "99.jpg,train"]), r"'99\.jpg' is not in the data"),
    "an id twice": ("\n".join([*GOOD, "00.jpg,train"]), r"row 19, column id: '00\.jpg' is named twice"),
    "an id in two splits": ("\n".join([*GOOD, "00.jpg,test"]), "is named in train and in test"),
    "an id in two splits at once": ("\n".join([*GOOD[:-1], '17.jpg,"train,test"']), "must be train, val or test"),
    "an unknown split": ("\n".join([*GOOD[:-1], "17.jpg,dev"]), "row 18, column split: must be train"),
    "no test": ("\n".join(row for row in GOOD if "test" not in row), "names no example of test"),
    "no id": ("\n".join([*GOOD, ",train"]), "row 19, column id: is empty"),
    "no column of splits": ("id,part\n00.jpg,train\n", "data.split_file=split: .*no such column"),
    "a class left out": ("\n".join(row for row in GOOD if row[:2] not in ("02", "11")), "the class 'b'"),
}


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_split_file_that_is_refused(tmp_path: Path, name: str) -> None:
    content, said = SPLIT_FILES[name]
    words = [*made(tmp_path / "s", text()), f"data.split_file={tmp_path / 's' / 'split.csv'}"]
    (tmp_path / "s" / "split.csv").write_text(content)
    with untouched(tmp_path / "s"):
        refused(words, said)


@pytest.mark.parametrize("key", ["path", "root", "split_file"])
@pytest.mark.parametrize("kind", ["nowhere", "too long", "a pipe", "endless", "a ring"])
def test_what_is_no_table_and_no_folder(tmp_path: Path, key: str, kind: str) -> None:
    words = made(tmp_path / "s", text())
    path = tmp_path / "s" / ("x" * 300 if kind == "too long" else "x.csv")
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind in ("endless", "a ring"):
        path.symlink_to("/dev/zero" if kind == "endless" else path)
    words = [word for word in words if key != "path" or "path" not in word]
    with untouched(tmp_path / "s"):
        said = (
            "is a pipe, socket or device, not a table"
            if kind in ("a pipe", "endless") and key != "root"
            else "there is no such f"
        )
        refused([*words, f"data.{key}={path}"], rf"data\.{key}=.*: {said}")


def test_a_table_is_looked_at_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*made(tmp_path / "s", text(header="path,label")), "backbone.name=test_resnet"]
    before = snapshot(tmp_path / "s")
    assert main(["data", *words]) == 0
    assert main(["data", words[0], f"data.path={tmp_path / 's'}"]) == 2
    assert "is a folder, not a table" in capsys.readouterr().err
    assert snapshot(tmp_path / "s") == before
