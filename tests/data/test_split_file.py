"""A split that is saved and passed back in: the same bits, told apart by what it says and not by where it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import RunTiny, make_photos, tiny_config

from headstart.cli import main
from headstart.config.identity import config_hash
from headstart.data.fingerprint import split_fingerprint
from headstart.data.load import load_data
from headstart.data.split_file import read_split, split_digest, write_split
from headstart.errors import ConfigError, DataError
from headstart.records.examples import read_examples
from headstart.resolve import resolve, spec_of

NONE = ("data.train_size=null", "data.test_size=null")


def data_of(*words: str):  # type: ignore[no-untyped-def]
    config = resolve(tiny_config(*words))
    return load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)


def saved(path: Path, *words: str) -> Path:
    """The split of some options, written down."""
    table = data_of(*words).examples()
    write_split(path, table)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = saved(tmp_path / "split.csv")
    before = data_of()
    again = data_of(f"data.split_file={path}", *NONE)
    assert {name: part.ids for name, part in again.splits.items()} == {
        name: part.ids for name, part in before.splits.items()
    }
    assert again.facts == before.facts
    assert split_digest(str(path)) == before.facts.split_fingerprint
    assert path.read_text().startswith("id,split,label\n")
    assert len(path.read_text().splitlines()) == 1 + sum(before.facts.sizes.values())


def test_a_run_is_the_same_by_its_own_table(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder, record = run_tiny("data.refit_on_val=true")
    assert "train,val" in read_examples(folder / "examples.parquet").splits
    _, again = run_tiny("data.refit_on_val=true", f"data.split_file={folder / 'examples.parquet'}", *NONE)
    assert again.data["split_fingerprint"] == record.data["split_fingerprint"]
    assert again.final_weights == record.final_weights
    assert again.metrics == record.metrics


def test_what_it_says_is_the_identity_and_not_where_it_lies(tmp_path: Path, run_tiny: RunTiny) -> None:
    first = saved(tmp_path / "a.csv")
    shutil.copy(first, tmp_path / "b.csv")
    lines = first.read_text().splitlines()
    (tmp_path / "sorted.csv").write_text(
        "\n".join(["split,id", *sorted(",".join(reversed(x.split(",")[:2])) for x in lines[1:])])
    )
    saved(tmp_path / "other.csv", "data.split_seed=1")
    hashes = [
        config_hash(resolve(tiny_config(f"data.split_file={tmp_path / name}.csv", *NONE)))
        for name in ("a", "b", "sorted", "other")
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
    records = [run_tiny(f"data.split_file={tmp_path / name}.csv", *NONE)[1] for name in ("a", "other")]
    assert records[0].job_key != records[1].job_key
    assert records[0].arm != records[1].arm


def test_it_is_reproduced_though_the_file_is_gone(
    tmp_path: Path, run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "a.csv")
    folder, _ = run_tiny(f"data.split_file={path}", *NONE)
    given = f"data.split_file={folder / 'examples.parquet'}"
    assert main(["reproduce", str(folder), given]) == 0
    assert "identical" in capsys.readouterr().out
    path.unlink()
    assert main(["reproduce", str(folder), "--check-only"]) == 0
    other = saved(tmp_path / "other.csv", "data.split_seed=1")
    capsys.readouterr()
    assert main(["reproduce", str(folder), f"data.split_file={other}", "--check-only"]) == 3
    assert "in another split" in capsys.readouterr().out


def test_what_is_not_named_is_left_out_and_own_splits_may_be_mixed(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make_photos(tmp_path / "set" / split, per_class=4)
    rows = ["id,split"]
    for colour in ("red", "green", "blue"):
        rows += [f"train/{colour}/00.jpg,Train", f"test/{colour}/01.jpg,training"]
        rows += [f"test/{colour}/00.jpg,valid", f"train/{colour}/02.jpg,test", f"train/{colour}/03.jpg,"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    words = (
        "data=image_folder",
        f"data.path={tmp_path / 'set'}",
        f"data.split_file={tmp_path / 'split.csv'}",
        *NONE,
    )
    data = data_of(*words)
    assert sorted(data.splits["train"].ids) == sorted(
        f"{place}.jpg" for c in ("red", "green", "blue") for place in (f"train/{c}/00", f"test/{c}/01")
    )
    assert data.facts.sizes == {"train": 6, "val": 3, "test": 3}
    refit = data_of(*words, "data.refit_on_val=true")
    assert refit.facts.sizes == {"train": 9, "val": 3, "test": 3}
    places = dict(zip(refit.examples().ids, refit.examples().splits, strict=True))
    assert places["test/red/00.jpg"] == "train,val"
    assert places["train/red/03.jpg"] == ""
    batch = next(iter(refit.train_dataloader()))
    assert batch["image"].shape[0] == 9


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("digits/0000,train\ndigits/0001,val\ndigits/9999,test", "'digits/9999' is not in the data"),
        ("digits/0000,train\ndigits/0001,val\nx,test\ny,test", "'x' is not in the data, like 1 more"),
        (
            "digits/0000,train\ndigits/0001,val\ndigits/0000,test",
            "row 3, column id: 'digits/0000' is named in train and in test",
        ),
        ("digits/0000,train\ndigits/0001,val\ndigits/0000,train", "is named twice"),
        ("digits/0000,train\ndigits/0000,", "is named in train and in no split"),
        ("digits/0000,train\ndigits/0001,val", "names no example of test"),
        ("digits/0000,val\ndigits/0001,test", "names no example of train"),
        ("digits/0000,dev", r"row 1, column split: must be train, val or test, or empty; is 'dev'"),
        ("digits/0000,'train,test'", "has 3 cells"),
        ('digits/0000,"train,test"', "must be train, val or test"),
        (",train", "row 1, column id: is empty"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "s.csv").write_text(f"id,split\n{rows}\n")
    with pytest.raises(DataError, match=said):
        data_of(f"data.split_file={tmp_path / 's.csv'}", *NONE)


def test_a_file_without_the_columns_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("name,split\na,train\n")
    with pytest.raises(DataError, match="has no such column"):
        data_of(f"data.split_file={tmp_path / 's.csv'}", *NONE)
    with pytest.raises(DataError, match=r"data\.split_file=.*nowhere\.csv: there is no such file"):
        data_of("data.split_file=nowhere.csv", *NONE)


@pytest.mark.parametrize("key", ["train_size=5", "val_size=5", "test_size=5", "shots=2", "fold=0"])
def test_sizes_beside_a_file(key: str) -> None:
    words = [*(word for word in NONE if word.split("=")[0] != f"data.{key.split('=')[0]}"), f"data.{key}"]
    words += ["data.num_folds=3"] if "fold" in key else []
    with pytest.raises(ConfigError, match="split_file says which example goes where"):
        tiny_config("data.split_file=s.csv", *words)


def test_an_image_that_is_skipped_cannot_be_named(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "set")
    words = ("data=image_folder", f"data.path={photos}")
    path = saved(tmp_path / "s.csv", *words, "data.train_size=null", "data.test_size=null")
    name = next(iter(read_split(str(path))))
    (photos / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name!r} cannot be decoded"):
        data_of(*words, f"data.split_file={path}", "data.on_bad_image=skip", *NONE)


def test_the_digest_is_the_split_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,split\na,train\nb,val\nc,test\nd,train\n")
    expected = split_fingerprint({"train": ["a", "d"], "val": ["b"], "test": ["c"]})
    assert split_digest(str(tmp_path / "s.csv")) == expected
