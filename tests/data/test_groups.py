"""Groups: patients and scenes are never torn apart, wherever the splits come from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import RunTiny
from tests.faults.test_fuzz import Numbers

from headstart.config.checks import check
from headstart.config.compose import compose
from headstart.config.schema.data import CsvConfig, DigitsConfig
from headstart.data.opening import chosen_source
from headstart.data.pool import pooled
from headstart.data.source import Source
from headstart.data.splitting import split_source
from headstart.data.subset import Split
from headstart.errors import ConfigError, DataError


def source_of(labels: list[int], groups: list[str], *, classes: int = 3) -> Source:
    examples = Numbers([f"i{i:04d}" for i in range(len(labels))], np.array(labels, dtype=np.int64))
    return Source(tuple("abcdef"[:classes]), "multiclass", {"train": examples}, {"train": groups})  # type: ignore[dict-item]


def split(source: Source, **options: Any) -> dict[str, Split]:
    usable = {name: list(range(len(examples.ids))) for name, examples in source.splits.items()}
    return split_source(source, DigitsConfig(**options), usable)


def groups_of(source: Source, found: dict[str, Split]) -> dict[str, set[str]]:
    return {name: {source.groups["train"][i] for i in part.indices} for name, part in found.items()}


def patients(count: int = 60, *, seed: int = 0) -> Source:
    """Patients with 1 to 9 images each; two thirds of a patient's images have one label."""
    random = np.random.default_rng(seed)
    labels, groups = [], []
    for patient in range(count):
        for i in range(int(random.integers(1, 10))):
            labels.append(patient % 3 if i % 3 < 2 else int(random.integers(3)))
            groups.append(f"p{patient}")
    return source_of(labels, groups)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_group_is_ever_in_two_splits(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 60))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.sampled_from("pqrstuvw"), min_size=count, max_size=count))
    options: dict[str, Any] = data.draw(
        st.sampled_from(
            [
                {},
                {"num_folds": 3, "fold": 1},
                {"test_size": "rest", "train_size": 0.5},
                {"test_size": 5, "val_size": 3},
            ]
        )
    )
    source = source_of(labels, groups)
    try:
        found = split(source, split_seed=data.draw(st.integers(0, 3)), **options)
    except DataError:
        return
    apart = groups_of(source, found)
    assert not apart["train"] & apart["val"]
    assert not apart["train"] & apart["test"]
    assert not apart["val"] & apart["test"]
    for name in ("test", "val"):  # whole, but for training, of which a part may be used
        have = Counter(source.groups["train"][i] for i in found[name].indices)
        assert all(have[group] == source.groups["train"].count(group) for group in have)


def test_sizes_are_met_as_nearly_as_whole_groups_allow() -> None:
    source = patients()
    total, largest = len(source.splits["train"].ids), max(Counter(source.groups["train"]).values())
    found = split(source, test_size=0.3, val_size=40)
    assert abs(len(found["test"].indices) - 0.3 * total) <= largest / 2
    assert abs(len(found["val"].indices) - 40) <= largest / 2
    assert sum(len(part.indices) for part in found.values()) == total


def test_groups_are_spread_by_their_commonest_class() -> None:
    source = source_of([0] * 200 + [1] * 100, [f"p{i // 5}" for i in range(300)], classes=2)
    counts = np.bincount(split(source, test_size=0.2)["test"].targets)
    assert counts.tolist() == [40, 20]


def test_training_takes_any_number_and_smaller_lies_in_larger() -> None:
    source = patients()
    parts = [split(source, train_size=size) for size in (20, 50, 100)]
    trained = [set(part["train"].ids) for part in parts]
    assert [len(one) for one in trained] == [20, 50, 100]
    assert trained[0] < trained[1] < trained[2]
    assert len({tuple(part["test"].ids) for part in parts}) == 1
    assert len(groups_of(source, parts[0])["train"]) > 10  # of many patients, not of the first few


def test_the_order_of_groups_follows_the_split_seed_and_nothing_else() -> None:
    source = patients()
    assert split(source)["test"].ids == split(source)["test"].ids
    assert split(source, split_seed=1)["test"].ids != split(source)["test"].ids
    examples = source.splits["train"]
    mixed = np.random.default_rng(1).permutation(len(examples.ids))
    other = Source(
        source.class_names,
        "multiclass",
        {"train": Numbers([examples.ids[i] for i in mixed], examples.targets[mixed])},  # type: ignore[dict-item]
        {"train": [source.groups["train"][i] for i in mixed]},
    )
    assert sorted(split(other)["test"].ids) == sorted(split(source)["test"].ids)


def test_a_group_in_two_splits_of_the_source_is_named() -> None:
    parts: Any = {
        "train": Numbers(["a/1", "a/2"], np.array([0, 1])),
        "val": Numbers(["v/1", "v/2"], np.array([0, 1])),
        "test": Numbers(["t/1", "t/2"], np.array([0, 1])),
    }
    groups = {"train": ["p", "q"], "val": ["r", "s"], "test": ["u", "q"]}
    with pytest.raises(DataError, match=r"the group 'q' is in (train|test) .* and in (train|test)"):
        split(Source(("x", "y"), "multiclass", parts, groups))


def test_groups_out_of_a_column_and_out_of_ids(tmp_path: Path) -> None:
    rows = ["path,label,who"]
    for i in range(24):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"p{i // 4}_{i}.jpg")
        rows.append(f"p{i // 4}_{i}.jpg,{'xy'[i % 2]},{i // 4}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    by_column = chosen_source(CsvConfig(path=str(tmp_path / "t.csv"), label_column="label", group_column="who"))
    by_id = chosen_source(CsvConfig(path=str(tmp_path / "t.csv"), label_column="label", group_pattern=r"p(\d+)_"))
    assert by_column.groups == by_id.groups == {"train": [str(i // 4) for i in range(24)]}
    some = CsvConfig(path=str(tmp_path / "t.csv"), label_column="label", group_column="who", classes=["y", "x"])
    assert chosen_source(some).groups == by_column.groups
    with pytest.raises(DataError, match=r"data\.group_pattern=q\(\.\): finds nothing in 'p0_0\.jpg'"):
        chosen_source(CsvConfig(path=str(tmp_path / "t.csv"), label_column="label", group_pattern="q(.)"))


def test_groups_of_a_hugging_face_column(tmp_path: Path) -> None:
    import datasets
    from tests.data.test_sources import dataset, label

    from headstart.config.schema.data import HuggingFaceConfig

    rows = dataset(
        label=([i % 2 for i in range(40)], label(["a", "b"])),
        who=([i // 4 for i in range(40)], datasets.Value("int64")),
    )
    rows.save_to_disk(tmp_path / "set")
    source = chosen_source(HuggingFaceConfig(path=str(tmp_path / "set"), group_column="who"))
    assert source.groups == {"train": [str(i // 4) for i in range(40)]}
    with pytest.raises(DataError, match=r"data\.group_column=whom: there is no such column\. Did you mean 'who'"):
        chosen_source(HuggingFaceConfig(path=str(tmp_path / "set"), group_column="whom"))


def test_a_run_by_groups(run_tiny: RunTiny) -> None:
    from headstart.records.examples import read_examples

    folder, _ = run_tiny(r"data.group_pattern='digits/(\d\d)'", "data.test_size=400")
    table = read_examples(folder / "examples.parquet")
    where: dict[str, set[str]] = {}
    for name, place in zip(table.ids, table.splits, strict=True):
        if place:
            where.setdefault(name[7:9], set()).add(place)
    assert all(len(places) == 1 for places in where.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.group_pattern='p(\\d'"], "is no regular expression"),
        (["data.group_pattern='p\\d'"], r"must have one group in \(\).* it has 0"),
        (["data.group_pattern='(p)(\\d)'"], "it has 2"),
        (
            ["data.group_pattern='(p)'", "data.test_size=rest", "data.shots=3"],
            "use data.train_size, not data.shots",
        ),
    ],
)
def test_patterns_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(compose(words))


def test_single_examples_are_ordered_as_ever() -> None:
    """A pool without groups has the order that `interleaved` gives, and so have groups of one each."""
    from headstart.data.split import interleaved

    labels = np.random.default_rng(0).integers(0, 3, 80)
    examples: Any = Numbers([f"i{i:04d}" for i in range(80)], labels)
    expected = interleaved(examples.ids, labels, split_seed=4).tolist()
    alone = pooled(examples, np.arange(80), groups=None, split_seed=4)
    assert alone.indices.tolist() == expected
    each = pooled(examples, np.arange(80), groups=examples.ids, split_seed=4)
    assert each.indices.tolist() == expected


def test_groups_of_a_column_are_part_of_what_the_data_is(tmp_path: Path, run_tiny: RunTiny) -> None:
    """Else a sweep would take a run on groups that were wrong for one on those that are right."""
    for i in range(24):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    keys = []
    for size in (2, 3):
        rows = [f"{i}.png,{'ab'[i % 2]},g{i // size}" for i in range(24)]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,who", *rows]))
        words = ("data=csv", f"data.path={tmp_path / 't.csv'}", "data.group_column=who", "data.image_size=32")
        _, record = run_tiny(*words, "data.train_size=null", "data.test_size=0.3", "data.batch_size=4")
        keys.append((record.data["fingerprint"], record.job_key, record.arm))
    assert all(a != b for a, b in zip(*keys, strict=True))


def test_the_commonest_class_of_a_group_is_counted() -> None:
    from headstart.data.pool import _commonest

    random = np.random.default_rng(0)
    member = np.concatenate([np.arange(40), random.integers(0, 40, 300)])
    classes = random.integers(0, 7, 340)
    votes = np.zeros((40, 7), dtype=int)
    np.add.at(votes, (member, classes), 1)
    assert _commonest(member, classes).tolist() == votes.argmax(axis=1).tolist()
