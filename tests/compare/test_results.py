"""Results from CSV files and from sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.compare.test_compare import ARMS, made, three_arms

from headstart.cli import main
from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.formats import render
from headstart.compare.sources import find_results
from headstart.compare.summary import summarise
from headstart.errors import RecordError
from headstart.records.schema import RunRecord
from headstart.records.store import write_record

# published per-task accuracies of a ResNet-50 at 1,000 examples and in full (VTAB, results.csv), a part of its 19 tasks
VTAB = """dataset,train_examples,arm,test/accuracy_micro
CIFAR-100,1000,scratch,0.132
Pets,1000,scratch,0.121
sNORB-Elev,1000,scratch,0.376
CIFAR-100,full,scratch,0.644
Pets,full,scratch,0.238
sNORB-Elev,full,scratch,0.917
CIFAR-100,1000,pretrained,0.570
Pets,1000,pretrained,0.899
sNORB-Elev,1000,pretrained,0.354
CIFAR-100,full,pretrained,0.838
Pets,full,pretrained,0.919
sNORB-Elev,full,pretrained,0.977
"""
WHOLE = Path(__file__).parents[3] / "shared" / "reference" / "vtab_resnet50.csv"


def table(text: str, **options: str) -> Comparison:
    Path("results.csv").write_text(text)
    results, notes = find_results([Path("results.csv")])
    return compare_results(results, notes=notes, **options)


def test_a_table_of_results() -> None:
    comparison = table(VTAB)
    assert comparison.metric == "test/accuracy_micro"
    rows = {row.arm: row for row in comparison.rows}
    lower = rows["pretrained dataset=sNORB-Elev train_examples=1000"]
    assert lower.gain is not None
    assert lower.gain.mean == pytest.approx(-0.022)
    assert lower.paired is not None
    assert lower.paired.verdict == "not decided"
    assert rows["scratch dataset=Pets train_examples=full"].is_baseline
    few, many = (one for one in summarise(comparison) if one.method == "pretrained")
    assert (few.labels, many.labels) == ("1000", "full")
    assert few.mean.value == pytest.approx((0.570 + 0.899 + 0.354) / 3)
    assert few.lower == ("sNORB-Elev",)
    assert (few.rank, many.rank) == pytest.approx((4 / 3, 1.0))
    shown = " ".join(render(comparison, "table", width=160).split())
    assert "lower than training from scratch on sNORB-Elev" in shown
    assert "not decided: one pair" in shown
    assert "No intervals: one run per arm." in shown


@pytest.mark.skipif(not WHOLE.is_file(), reason="the published table lies beside the repository")
def test_the_published_table_gives_the_published_means() -> None:
    results, _ = find_results([WHOLE])
    found = {(one.method, one.labels): one for one in summarise(compare_results(results))}
    means = {key: round(one.mean.value, 3) for key, one in found.items()}
    assert means == {
        ("scratch", "1000"): 0.431,
        ("pretrained", "1000"): 0.664,
        ("scratch", "full"): 0.754,
        ("pretrained", "full"): 0.897,
    }
    assert found["pretrained", "1000"].lower == ("sNORB-Elev",)
    assert found["pretrained", "1000"].undecided == 19


def test_repeats_other_columns_budgets_and_another_baseline() -> None:
    lines = ["weights,strategy,steps,seed,status,accuracy_micro,note"]
    for seed in range(4):
        for strategy, value in (("probe", 0.6), ("full", 0.8)):
            lines += [f"pretrained,{strategy},{steps},{seed},,{value + 0.01 * seed + steps / 1e5},n" for steps in (100, 200)]  # fmt: skip
    lines += ["pretrained,full,100,9,failed,,n"]
    comparison = table("\n".join(lines), baseline="weights=pretrained strategy=probe")
    assert len(comparison.rows) == 4
    full = [row for row in comparison.rows if "strategy=full" in row.arm]
    assert [row.gain.mean for row in full if row.gain] == pytest.approx([0.2, 0.2])
    assert [row.failed for row in full] == [1, 0]
    assert [row.n for row in full] == [4, 4]
    assert {row.baseline for row in full} == {row.arm for row in comparison.rows if row.is_baseline}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("arm,test/x\n", "has no rows"),
        ("arm,seed\na,1\n", "has no column of results"),
        ("seed,test/x\n1,0.5\n", "has no column `arm`"),
        ("arm,test/x\na,high\n", "row 2: test/x is 'high', not a number"),
        ("arm,seed,test/x\na,one,0.5\n", "row 2: seed is 'one', not a whole number"),
        ("arm,test/x\na,0.5\na,0.6\n", "rows 2 and 3 are the same arm, data set, budget and seed"),
        ("arm,test/x\na,0.5,7\n", "row 2 has not 2 cells"),
        ("arm,test/x\na\n", "row 2 has not 2 cells"),
        ("arm,arm,test/x\na,a,1\n", "must name every column, each once"),
        ("arm,status,test/x\na,done,1\n", "row 2: status is 'done', not one of completed"),
        ("arm,test/x,test/y\na,1,1\n", "--metric: say which of test/x, test/y to compare"),
        ('arm,test/x\n"a,1\n', "cannot be read as CSV"),
    ],
)
def test_a_table_that_is_none(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.csv").write_text(text)
    assert main(["compare", "bad.csv"]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_table_that_is_not_text() -> None:
    Path("bad.csv").write_bytes(b"\xff\xfe\x00arm")
    with pytest.raises(RecordError, match=r"bad\.csv: cannot be read as CSV"):
        find_results([Path("bad.csv")])
    with pytest.raises(RecordError, match=r"none\.csv: there is no such file"):
        find_results([Path("none.csv")])


def test_several_backbones_each_have_their_own_baseline() -> None:
    rows = [
        f"{weights},{backbone},{seed},{value + add + seed / 99}"
        for weights, add in (("scratch", 0.0), ("pretrained", 0.2))
        for backbone, value in (("resnet18", 0.3), ("resnet50", 0.5 - add / 2))
        for seed in range(3)
    ]
    comparison = table("weights,backbone,seed,test/accuracy_micro\n" + "\n".join(rows))
    gains = {row.arm: round(row.gain.mean, 6) for row in comparison.rows if row.gain}
    assert gains == {"weights=pretrained backbone=resnet18": 0.2, "weights=pretrained backbone=resnet50": 0.1}


def test_scratch_is_found_beside_other_columns_and_a_frozen_one_is_a_control() -> None:
    lines = ["arm,strategy,seed,test/accuracy_micro"]
    lines += [f"{arm},{strategy},{s},{v + s * v / 99}" for arm, strategy, v in (("scratch", "full", 0.3), ("scratch", "linear_probe", 0.1), ("pretrained", "full", 0.6)) for s in range(3)]  # fmt: skip
    scratch, control, mine = table("\n".join(lines)).rows
    assert scratch.is_baseline
    assert control.paired is not None
    assert (control.paired.verdict, control.paired.p_holm) == ("control", None)
    assert mine.paired is not None
    assert mine.paired.verdict == "better"


def test_an_arm_that_lacks_data_sets_takes_nothing_from_the_others() -> None:
    text = VTAB + "Pets,1000,probe,0.5\n"
    comparison = table(text)
    assert {one.method for one in summarise(comparison)} == {"scratch", "pretrained"}
    assert "not over data sets, for want of some: probe." in render(comparison, "table", width=200)


BAD_FIELDS: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("config", "weights"), {}),
    (("config", "schedule"), {}),
    (("peak_memory",), None),
    (("data", "class_counts"), "x"),
    (("data", "sizes"), {"test": "x"}),
    (("confusion",), None),
    (("seed",), "0"),
    (("started",), None),
    (("seconds", "total"), "x"),
    (("epochs",), "x"),
    (("launched_by",), 5),
    (("arm",), [1]),
    (("metrics", "test/accuracy_micro"), "0.9"),
)


@pytest.mark.parametrize(
    ("path", "value"), BAD_FIELDS, ids=lambda one: "-".join(one) if isinstance(one, tuple) else ""
)
def test_one_strange_record_is_named_and_left_out(
    path: tuple[str, ...], value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in three_arms():
        folder = Path("outputs/runs") / record.id
        folder.mkdir(parents=True)
        write_record(folder, record)
    bad = folder / "run.json"
    loaded = json.loads(bad.read_text())
    node = loaded
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    bad.write_text(json.dumps(loaded))
    assert main(["compare", "outputs", "--details"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"left out: {bad.resolve()}: has" in shown


def test_many_damaged_records_are_counted() -> None:
    for i in range(9):
        folder = Path(f"outputs/runs/r{i}")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{")
    with pytest.raises(RecordError, match=r"no record can be read: .*run\.json: is damaged"):
        find_results([Path("outputs")])
    good = made(ARMS[0], 0, 0.5)
    Path("outputs/runs/good").mkdir()
    write_record(Path("outputs/runs/good"), good)
    results, notes = find_results([Path("outputs")])
    assert len(results) == 1
    assert len(notes) == 6
    assert notes[-1] == "left out: 4 more records that cannot be read."


def test_a_metric_that_is_not_a_number_is_none() -> None:
    record = made(ARMS[0], 0, float("nan")).to_dict()
    assert RunRecord.from_dict(record).metrics["test/accuracy_micro"] is None
