"""Folds, the rest as test split, and numbers: complete, disjoint, stratified and nested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import RunTiny, tiny_config
from tests.data.test_groups import groups_of, patients, source_of, split
from tests.faults.test_fuzz import Numbers

from headstart.config.compose import compose
from headstart.config.identity import arm_hash, config_hash
from headstart.data.source import Source
from headstart.data.split import strata
from headstart.errors import ConfigError, DataError


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=30, max_size=90), st.integers(2, 6), st.integers(0, 3))
def test_folds_are_disjoint_complete_and_stratified(labels: list[int], count: int, split_seed: int) -> None:
    source = source_of(labels, [], classes=3)
    source = Source(source.class_names, "multiclass", source.splits)
    folds = [split(source, num_folds=count, fold=fold, split_seed=split_seed)["test"] for fold in range(count)]
    names = [name for part in folds for name in part.ids]
    assert sorted(names) == list(source.splits["train"].ids)
    counts = np.array([np.bincount(part.targets, minlength=3) for part in folds])
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()
    assert counts.sum(axis=1).max() - counts.sum(axis=1).min() <= 1


def test_folds_of_groups() -> None:
    source = patients()
    parts = [split(source, num_folds=5, fold=fold) for fold in range(5)]
    held = [groups_of(source, part)["test"] for part in parts]
    assert sum(map(len, held)) == len(set().union(*held)) == 60
    sizes = [len(part["test"].indices) for part in parts]
    assert max(sizes) - min(sizes) <= 9
    assert all(sum(len(one.indices) for one in part.values()) == len(source.splits["train"].ids) for part in parts)


def test_within_a_fold_smaller_training_lies_in_larger() -> None:
    source = patients()
    parts = [split(source, num_folds=4, fold=2, train_size=size) for size in (20, 60)]
    assert set(parts[0]["train"].ids) < set(parts[1]["train"].ids)
    assert parts[0]["test"].ids == parts[1]["test"].ids
    assert parts[0]["val"].ids == parts[1]["val"].ids


def several(*names: str) -> Source:
    parts: Any = {
        name: Numbers([f"{name}/{i:03d}" for i in range(30)], np.arange(30, dtype=np.int64) % 3) for name in names
    }
    return Source(("a", "b", "c"), "multiclass", parts)


def test_beside_a_test_split_the_fold_is_validation() -> None:
    source = several("train", "test")
    parts = [split(source, num_folds=3, fold=fold) for fold in range(3)]
    assert sorted(name for part in parts for name in part["val"].ids) == source.splits["train"].ids
    assert all(part["test"].ids == source.splits["test"].ids for part in parts)
    own = split(several("train", "val"), num_folds=3, fold=0)
    assert len(own["test"].ids) == 10
    assert all(name.startswith("val/") for name in own["val"].ids)


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("train", "val", "test"), {}, "none is left"),
        (("train",), {"test_size": 5}, r"data\.test_size=5: the test split is fold 0 of 3"),
        (("train", "test"), {"val_size": 5}, r"data\.val_size=5: the val split is fold 0 of 3"),
        (("train",), {"num_folds": 31}, "there are only 30 examples to make folds of"),
    ],
)
def test_folds_that_cannot_be(names: tuple[str, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        split(several(*names), **{"num_folds": 3, "fold": 0, **options})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.fold=1"], r"data\.fold=1: set data\.num_folds as well"),
        (["data.num_folds=3"], r"data\.num_folds=3: set data\.fold as well"),
        (["data.num_folds=3", "data.fold=3"], "of 3 folds the last is 2"),
        (["data.num_folds=1", "data.fold=0"], "must be at least 2"),
        (["data.test_size=rest"], r"Set data\.train_size or data\.shots"),
        (["data.test_size=rest", "data.shots=3", "data.num_folds=3", "data.fold=0"], "choose one"),
        (["data.test_size=some"], "must be a count, a share|must be a count, or a share below 1, or `rest`"),
        (["data.val_size=rest"], "must be a count"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(words)


def test_folds_are_repeats_of_one_arm_and_in_the_record(run_tiny: RunTiny) -> None:
    words = ["data.num_folds=3", "data.test_size=null"]
    records = [run_tiny(*words, f"data.fold={fold}")[1] for fold in (0, 1)]
    assert [record.fold for record in records] == [0, 1]
    assert records[0].arm == records[1].arm
    assert records[0].config_hash != records[1].config_hash
    assert records[0].job_key != records[1].job_key
    assert records[0].data["split_fingerprint"] != records[1].data["split_fingerprint"]
    assert [record.data["sizes"]["test"] for record in records] == [599, 599]
    assert (
        run_tiny(*words, "data.fold=0", "seed=5")[1].data["split_fingerprint"]
        == records[0].data["split_fingerprint"]
    )


def test_another_number_of_folds_is_another_arm() -> None:
    configs = [tiny_config(f"data.num_folds={count}", "data.fold=0", "data.test_size=null") for count in (3, 4)]
    arms = {arm_hash(config, data_fingerprint="x", weights_identity="y") for config in configs}
    assert len(arms) == 2
    assert len({config_hash(config) for config in configs}) == 2


# --- the rest as test split


def test_caltech_101s_protocol() -> None:
    """30 of each class, out of which validation is taken; all others are the test split."""
    labels = [i % 3 for i in range(300)] + [0] * 50
    source = Source(("a", "b", "c"), "multiclass", source_of(labels, []).splits)
    found = split(source, test_size="rest", shots=30)
    counts = {name: np.bincount(part.targets, minlength=3).tolist() for name, part in found.items()}
    assert counts == {"train": [27] * 3, "val": [3] * 3, "test": [120, 70, 70]}
    own = several("train", "val")
    assert {n: len(p.ids) for n, p in split(own, test_size="rest", shots=4).items()} == {
        "train": 12,
        "val": 30,
        "test": 18,
    }
    with pytest.raises(DataError, match="has a test split of its own"):
        split(several("train", "test"), test_size="rest", shots=4)


@pytest.mark.parametrize("val", [None, 0.2, 6])
@pytest.mark.parametrize("key", ["shots", "train_size"])
def test_of_the_rest_smaller_lies_in_larger(key: str, val: Any) -> None:
    source = Source(("a", "b", "c"), "multiclass", source_of([i % 3 for i in range(300)], []).splits)
    sizes = (5, 10, 20) if key == "shots" else (15, 30, 90)
    parts = [split(source, test_size="rest", val_size=val, **{key: size}) for size in sizes]
    trained, chosen = ([set(part[name].ids) for part in parts] for name in ("train", "val"))
    assert trained[0] < trained[1] < trained[2]
    assert chosen[0] <= chosen[1] <= chosen[2]
    assert not trained[2] & chosen[0]
    assert all(sum(len(one.ids) for one in part.values()) == 300 for part in parts)
    if val == 6:
        assert [len(one) for one in chosen] == [6, 6, 6]


def test_the_rest_of_groups() -> None:
    source = patients()
    found = split(source, test_size="rest", train_size=100)
    apart = groups_of(source, found)
    assert not (apart["train"] | apart["val"]) & apart["test"]
    assert abs(len(found["train"].ids) + len(found["val"].ids) - 100) <= 5


# --- numbers


def test_numbers_are_stratified_by_tenths() -> None:
    values = np.random.default_rng(0).exponential(size=(400, 2))
    deciles = np.quantile(values[:, 0], np.arange(1, 10) / 10)
    assert strata(values).tolist() == [int((value >= deciles).sum()) for value in values[:, 0]]
    examples: Any = Numbers([f"i{i:03d}" for i in range(400)], values)
    source = Source(("x", "y"), "regression", {"train": examples})
    found = split(source, test_size=40, train_size=100)
    assert np.bincount(strata(values)[found["test"].indices], minlength=10).tolist() == [4] * 10
    assert set(found["train"].ids) < set(split(source, test_size=40, train_size=200)["train"].ids)
    assert strata(np.full((5, 1), 2.0)).tolist() == [1] * 5
    with pytest.raises(DataError, match="numbers have none"):
        split(source, shots=3)
