"""The baseline that ignores the data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import RecordError
from headstart.transferability.agreement import Measured
from headstart.transferability.published import Table
from headstart.transferability.ranking import Ranked
from headstart.transferability.static import check_elsewhere, leave_one_out, mean_elsewhere, static_scores


def candidate(backbone: str, parameters: int, *, source: str = "pretrained", name: str = "") -> Ranked:
    return Ranked(
        name=name or backbone,
        overrides=(),
        backbone=backbone,
        library="timm",
        weights={"source": source, "name": "w", "sha256": "a" * 64, "seed": None},
        parameters=parameters,
        images_per_second=1.0,
        memory=1,
        seconds={},
        scores={},
    )


THREE = (candidate("resnet18.a1_in1k", 11), candidate("resnet50.a1_in1k", 25), candidate("vit_small.augreg", 22))
TABLE = (
    "dataset,model,accuracy\n"
    "pets,resnet18,0.5\npets,resnet50.a1_in1k,0.7\npets,vit_small,0.9\n"
    "cars,resnet18,50\ncars,resnet50.a1_in1k,90\ncars,other,10\n"
)


def write(path: Path, text: str = TABLE) -> Path:
    path.write_text(text)
    return path


def test_without_results_it_is_the_number_of_parameters() -> None:
    assert static_scores(THREE, []) == (
        "number of parameters",
        {"resnet18.a1_in1k": 11.0, "resnet50.a1_in1k": 25.0, "vit_small.augreg": 22.0},
    )


def test_mean_of_scaled_results_elsewhere(tmp_path: Path) -> None:
    words, scores = static_scores(THREE, [write(tmp_path / "a.csv")])
    assert words == "mean over 2 other data sets"
    pets = (np.array([0.5, 0.7, 0.9]) - 0.7) / np.std([0.5, 0.7, 0.9])
    assert scores == pytest.approx(
        {
            "resnet18.a1_in1k": (pets[0] - 1) / 2,
            "resnet50.a1_in1k": (pets[1] + 1) / 2,
            "vit_small.augreg": pets[2],
        }
    )


@pytest.mark.parametrize("name", ["Pets", "PE-TS", "p e_t.s"])
def test_the_own_data_set_is_left_out(tmp_path: Path, name: str) -> None:
    words, scores = static_scores(THREE, [write(tmp_path / "a.csv")], dataset=name)
    assert words == "mean over 1 other data set (covers 2 of 3 candidates)"
    assert scores == {"resnet18.a1_in1k": -1.0, "resnet50.a1_in1k": 1.0}


@pytest.mark.parametrize("nameless", ["model,accuracy\nresnet18,0.5\n", TABLE + ",resnet18,0.3\n"])
def test_rows_that_may_be_on_the_own_data_set_are_refused(tmp_path: Path, nameless: str) -> None:
    path = write(tmp_path / "a.csv", nameless)
    for asked in (lambda: static_scores(THREE, [path], dataset="pets"), lambda: check_elsewhere([path])):
        with pytest.raises(RecordError, match=r"--elsewhere: not all rows say in a column `dataset`"):
            asked()


def test_a_set_is_never_its_own_baseline() -> None:
    one, other = (
        Table(name, tuple(Measured(m, {0: v}) for m, v in values.items()), {}, None)
        for name, values in (("CIFAR-10", {"a": 1.0, "b": 2.0}), ("cifar10", {"a": 1.0, "b": 2.0}))
    )
    assert leave_one_out([one, other], lower=False) == {"CIFAR-10": (None, None), "cifar10": (None, None)}


def test_less_may_be_better(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "dataset,model,test/log_loss\npets,resnet18,0.5\npets,resnet50,0.7\n")
    assert static_scores(THREE, [path])[1] == {"resnet18.a1_in1k": 1.0, "resnet50.a1_in1k": -1.0}


def test_results_that_cover_one_candidate_are_no_baseline(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "dataset,model,accuracy\npets,resnet18,0.5\npets,other,0.9\n")
    words, scores = static_scores(THREE, [path])
    assert words == "number of parameters (the results elsewhere cover 1 of 3 candidates)"
    assert scores["resnet50.a1_in1k"] == 25.0


def test_a_name_that_may_be_either_of_two_is_neither(tmp_path: Path) -> None:
    both = (*THREE, candidate("resnet50.tv_in1k", 25))
    path = write(tmp_path / "a.csv", TABLE.replace("resnet50.a1_in1k", "resnet50"))
    assert sorted(static_scores(both, [path])[1]) == ["resnet18.a1_in1k", "vit_small.augreg"]
    exact = static_scores(both, [write(tmp_path / "b.csv")])[1]
    assert sorted(exact) == ["resnet18.a1_in1k", "resnet50.a1_in1k", "vit_small.augreg"]


def test_random_weights_and_own_files_are_not_what_a_table_calls_by_their_backbone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE + "pets,mine,0.1\ncars,mine,20\n")
    mixed = (
        candidate("resnet18", 11, source="scratch", name="resnet18 scratch"),
        candidate("resnet50", 25, source="run", name="mine"),
        THREE[0],
    )
    assert sorted(static_scores(mixed, [path])[1]) == ["mine", "resnet18.a1_in1k"]


def test_a_set_on_which_all_are_alike_says_nothing() -> None:
    assert mean_elsewhere([{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 3.0}]) == {"a": -1.0, "b": 1.0}
    assert mean_elsewhere([{"a": 1.0}]) == {}


@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_are_scaled_as_others_are() -> None:
    assert mean_elsewhere([{"a": 0.2e308, "b": 1.0e308, "c": 0.6e308}]) == pytest.approx(
        {"a": -math.sqrt(1.5), "b": math.sqrt(1.5), "c": 0.0}, abs=1e-12
    )
    assert mean_elsewhere([{"a": 1.0, "b": 3.0, "c": math.inf, "d": math.nan}]) == {"a": -1.0, "b": 1.0}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no such file"):
        static_scores(THREE, [tmp_path / "no.csv"])
    with pytest.raises(RecordError, match="there is no such folder"):
        static_scores(THREE, [tmp_path / "no"])
