"""Splits: stratified, nested, and moved by nothing but ids and the split seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import tiny_config

from headstart.config.compose import compose
from headstart.data.load import load_data
from headstart.data.opening import open_source
from headstart.data.split import count_of, first_shots, interleaved, strata
from headstart.data.splitting import split_source
from headstart.errors import DataError
from headstart.resolve import resolve, spec_of


def names(n: int) -> list[str]:
    return [f"i{k:04d}" for k in range(n)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=120), st.integers(0, 3))
def test_every_beginning_is_stratified(labels: list[int], split_seed: int) -> None:
    targets = np.array(labels)
    order = interleaved(names(len(targets)), targets, split_seed=split_seed)
    assert sorted(order) == list(range(len(targets)))
    counts = np.bincount(targets, minlength=5)
    for n in range(1, len(targets) + 1):
        got = np.bincount(targets[order[:n]], minlength=5)
        # a class is never more than one example ahead of its share, nor two behind
        share = n * counts / len(targets)
        assert (got <= np.ceil(share) + 1).all()
        if n >= (counts > 0).sum():
            assert (got[counts > 0] >= 1).all()


def test_the_order_follows_ids_not_positions() -> None:
    targets = np.tile([0, 1, 2], 20)
    ids = np.array(names(60))
    order = ids[interleaved(list(ids), targets, split_seed=0)]
    mixed = np.random.default_rng(1).permutation(60)
    assert (ids[mixed][interleaved(list(ids[mixed]), targets[mixed], split_seed=0)] == order).all()
    other = ids[interleaved(list(ids), targets, split_seed=1)]
    assert not (other == order).all()


def test_subsets_are_nested_and_the_test_split_stays() -> None:
    def ids(*overrides: str) -> dict[str, list[str]]:
        config = resolve(tiny_config(*overrides))
        source = open_source(config.data)
        usable = {name: list(range(len(e.ids))) for name, e in source.splits.items()}
        return {name: split.ids for name, split in split_source(source, config.data, usable).items()}

    small, large = ids("data.train_size=100"), ids("data.train_size=300")
    assert set(small["train"]) < set(large["train"])
    assert small["test"] == large["test"]
    assert small["val"] == large["val"]
    assert not set(large["train"]) & (set(large["test"]) | set(large["val"]))
    assert not set(large["val"]) & set(large["test"])
    assert ids("seed=5") == ids("seed=6")
    assert ids("data.split_seed=1")["test"] != small["test"]


def data_of(*overrides: str) -> Any:
    config = resolve(tiny_config(*overrides))
    return load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)


def test_sizes_and_shares() -> None:
    facts = data_of("data.train_size=0.5", "data.val_size=50", "data.test_size=0.1").facts
    assert facts.sizes == {"train": round((1797 - 180 - 50) * 0.5), "val": 50, "test": 180}


def test_shots_take_k_of_each_class() -> None:
    config = compose(["data.shots=3", "data.image_size=16"])
    config = resolve(config)
    facts = load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0).facts
    assert facts.class_counts["train"] == (3,) * 10


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.train_size=5000"], r"data\.train_size=5000: there are only 1527 examples"),
        (["data.test_size=5000"], r"data\.test_size=5000: there are only 1797 examples"),
        (["data.test_size=5"], "the test split .5 examples. leaves out the class"),
        (["data.train_size=4"], "the train split .4 examples. leaves out the class"),
    ],
)
def test_sizes_that_cannot_be(overrides: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        data_of(*overrides)


def test_more_shots_than_a_class_has() -> None:
    with pytest.raises(DataError, match=r"data\.shots=3: the class 'b' has only 2 examples"):
        first_shots(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), 3, ["a", "b"])


def test_several_labels_are_stratified_by_the_rarest() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert strata(targets).tolist() == [0, 1, 1, 2, 3]


def test_a_share_is_at_least_one_of_each_class() -> None:
    assert count_of(0.1, of=20, classes=5, key="val_size") == 5
