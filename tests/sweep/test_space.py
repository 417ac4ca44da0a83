"""What a search may choose from: read strictly, spaced as said, rounded as people write it."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import ConfigError
from headstart.sweep.expand import expand
from headstart.sweep.space import applied, at_edge, combinations, corners, read_space, to_plain


def test_the_grid_of_kornblith_is_the_published_one() -> None:
    """SimCLR B.8: 7 rates in [1e-4, 1e-1], 7 weight decays in [1e-6, 1e-3] and none, divided by the rate: 56."""
    space = read_space(
        {
            "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True, "count": 7},
            "optimizer.weight_decay": {
                "low": 1e-6, "high": 1e-3, "log": True, "count": 7, "also": [0], "divided_by": "optimizer.lr",
            },
        },
        where="here",
    )  # fmt: skip
    found = [applied(space, drawn) for drawn in combinations(space)]
    rates = [10 ** (-4 + 0.5 * i) for i in range(7)]
    decays = [*(10 ** (-6 + 0.5 * i) for i in range(7)), 0.0]
    wanted = [(rate, decay / rate) for rate in rates for decay in decays]
    assert len(found) == len(wanted) == 56
    for values, (rate, decay) in zip(found, wanted, strict=True):
        assert values["optimizer.lr"] == pytest.approx(rate, rel=1e-5)
        assert values["optimizer.weight_decay"] == pytest.approx(decay, rel=1e-5, abs=1e-12)
    assert [values["optimizer.lr"] for values in found[::8]] == [0.0001, 0.000316228, 0.001, 0.00316228, 0.01, 0.0316228, 0.1]  # fmt: skip
    assert read_space(to_plain(space), where="again") == space


def test_ranges_are_of_whole_numbers_where_both_ends_are() -> None:
    space = read_space(
        {"a.k": {"low": 1, "high": 9, "count": 3}, "a.x": {"low": 0.0, "high": 1, "count": 3}}, where=""
    )
    assert next(iter(combinations(space))) == {"a.k": 1, "a.x": 0.0}
    assert space[0].values == (1, 5, 9)
    assert space[1].values == (0.0, 0.5, 1.0)
    free = read_space({"a.k": {"low": 1, "high": 9}, "a.x": {"low": "1e-3", "high": 1, "log": True}}, where="")
    assert [tuned.whole for tuned in free] == [True, False]
    assert free[1].low == 0.001
    assert read_space(to_plain(free), where="again") == free


def test_corners_have_every_value_and_end_once() -> None:
    space = read_space({"a": ["x", "y", "z"], "b": {"low": 0.1, "high": 0.2}}, where="")
    assert [tuple(corner.values()) for corner in corners(space)] == [
        ("x", 0.1),
        ("y", 0.1),
        ("z", 0.1),
        ("x", 0.2),
    ]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"seed": [0, 1]}, "sweep.tune.seed: is never searched over; it is an axis of its own"),
        ({"data.split_seed": [0, 1]}, "sweep.tune.data.split_seed: is never searched over"),
        ({"data.val_size": [0.1, 0.2]}, "decides which images trials are told apart by"),
        ({"trainer.test": [True]}, "is off for trials"),
        ({"data.val_size.x": [1]}, "decides which images trials are told apart by"),
        ({"weights.path": ["a", "b"]}, "is compared, by list or grid"),
        ({"backbone.name": ["a", "b"]}, "is compared, by list or grid"),
        ({"strategy": ["full", "lora"]}, "only single values are tuned"),
        ({"logger.name": ["a"]}, "only single values are tuned"),
        ({"optimizer.lr": []}, "must have values in a list"),
        ({"optimizer.lr": 0.1}, "must be a list of values, or a range"),
        ({"optimizer.lr": {"low": 1, "hihg": 2}}, "sweep.tune.optimizer.lr.hihg: there is no such key. Did you mean 'high'?"),
        ({"optimizer.lr": {"low": 2, "high": 1}}, "low=2, high=1: must be numbers, low below high"),
        ({"optimizer.lr": {"low": math.nan, "high": 1}}, "must be numbers"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "true only where low is above zero"),
        ({"optimizer.lr": {"low": 1, "high": 2, "count": 1}}, "count=1: must be a whole number from 2"),
        ({"optimizer.lr": {"low": 1, "high": 2, "also": [0]}}, "beside a count"),
        ({"optimizer.lr": {"values": [1], "low": 2}}, "either values or a range"),
        ({"a.b": {"values": [1], "divided_by": "optimizer.lr"}}, "must be another tuned key whose values are above zero"),
        ({"a.b": {"values": [1], "divided_by": "a.c"}, "a.c": [0, 1]}, "whose values are above zero"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_said(node: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_space(node, where="here")
    assert said in str(error.value)


def test_a_best_value_at_the_end_of_its_range_is_known() -> None:
    space = read_space(
        {"lr": {"low": 1e-4, "high": 1.0, "log": True}, "decay": [0, 0.1, 0.2], "kind": ["a", "b", "c"]}, where=""
    )
    assert at_edge(space, {"lr": 0.9, "decay": 0.2, "kind": "c"}) == ("lr", "decay")
    assert at_edge(space, {"lr": 1e-2, "decay": 0, "kind": "a"}) == (), "nothing lies below a weight decay of 0"


def write(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "configs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# @package _global_\n" + textwrap.dedent(text))


TINY = ["backbone.name=test_resnet", "weights=scratch"]


def test_the_command_line_says_ranges_as_hydra_does(tmp_path: Path) -> None:
    jobs = expand([*TINY, "optimizer.lr=tag(log,interval(0.001,0.1))", "strategy=full,linear_probe", "search=tpe"])
    assert jobs.tuned == ("optimizer.lr",)
    assert [job.config.optimizer.lr for job in jobs.jobs] == [0.001, 0.001]
    assert jobs.jobs[0].space[0].log
    assert jobs.search.name == "tpe"
    write(
        tmp_path,
        "experiment/a.yaml",
        "hydra: {sweeper: {params: {optimizer.lr: 'interval(0.001,0.1)', seed: 'range(2)'}}}",
    )
    jobs = expand([*TINY, "experiment=a"], config_dirs=(str(tmp_path / "configs"),))
    assert (jobs.tuned, len(jobs.jobs)) == (("optimizer.lr",), 2)


def test_entries_may_tune_their_own_and_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sweep/a.yaml",
        """
        defaults: [override /search: grid]
        sweep:
          list:
            - {strategy: full, tune: {optimizer.lr: [0.1, 0.2]}}
            - {strategy: linear_probe}
          tune: {optimizer.lr: [0.3], optimizer.weight_decay: [0, 1]}
        """,
    )
    where = (str(tmp_path / "configs"),)
    jobs = expand([*TINY, "sweep=a"], config_dirs=where)
    assert [[tuned.values for tuned in job.space] for job in jobs.jobs] == [[(0.1, 0.2), (0, 1)], [(0.3,), (0, 1)]]
    assert [job.config.optimizer.lr for job in jobs.jobs] == [0.1, 0.3]
    assert all("lr" not in " ".join(job.varied) for job in jobs.jobs)
    jobs = expand([*TINY, "sweep=a", "optimizer.lr=0.5"], config_dirs=where)
    assert jobs.tuned == ("optimizer.weight_decay",)
    assert jobs.jobs[1].config.optimizer.lr == 0.5
    write(tmp_path, "sweep/b.yaml", "sweep: {tune: {optimizer.lr: [0.3]}, grid: {optimizer.lr: [0.1]}}")
    with pytest.raises(ConfigError, match=r"sweep\.tune\.optimizer\.lr: is given values elsewhere too"):
        expand([*TINY, "sweep=b"], config_dirs=where)
