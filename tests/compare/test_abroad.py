"""Evaluations in a comparison: columns, gains there, and who wins abroad but not at home."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from scipy import stats
from tests.compare.test_compare import ARMS, compare_runs, made, three_arms

from headstart.compare.abroad import summed_up
from headstart.compare.abroad_sheets import winners
from headstart.compare.comparison import compare_results
from headstart.compare.csv_results import read_csv_results
from headstart.compare.details import details_of
from headstart.compare.formats import render
from headstart.compare.report.page import render_page
from headstart.compare.sheets import MOST_ABROAD
from headstart.errors import RecordError
from headstart.records.evaluations import CORRUPTIONS, spoilt_name
from headstart.records.schema import RunRecord

STL10 = {ARMS[0]: (0.5, 0.56, 0.53), ARMS[1]: (0.62, 0.66, 0.7), ARMS[2]: (0.4, 0.44, 0.45)}
"""A linear probe that wins elsewhere; at home fine-tuning does (see `three_arms`)."""


def entry(value: float, **data: Any) -> dict[str, Any]:
    return {"metrics": {"accuracy_micro": value}, "data": {"examples": 20, "class_counts": [12, 8], **data}}


def spoilt(value: float) -> dict[str, Any]:
    """All corruptions at all strengths, their mean `value`."""
    return {
        spoilt_name(name, severity): entry(value + (3 - severity) / 100, corruption=name, severity=severity)
        for name in CORRUPTIONS
        for severity in range(1, 6)
    }


def abroad(*, corrupted: bool = False, only: tuple[tuple[str, ...], ...] = ARMS) -> list[RunRecord]:
    records = three_arms()
    for i, record in enumerate(records):
        arm, seed = ARMS[i // 3], i % 3
        if arm in only:
            record.evaluations = {"stl10": entry(STL10[arm][seed])}
            if corrupted:
                record.evaluations |= spoilt(STL10[arm][seed] - 0.1)
    return records


def test_values_and_gains_are_those_of_the_evaluation() -> None:
    comparison = compare_runs(abroad())
    (column,) = comparison.abroad
    assert (column.name, column.metric) == ("stl10", "test@stl10/accuracy_micro")
    full, probe, scratch = comparison.rows
    value = column.values[probe.key]
    low, high = stats.t.interval(0.95, 2, loc=value.mean, scale=stats.sem(STL10[ARMS[1]]))
    assert value.mean == pytest.approx(0.66)
    assert (value.low, value.high) == pytest.approx((low, high))
    gains = [a - b for a, b in zip(STL10[ARMS[1]], STL10[ARMS[2]], strict=True)]
    gain = column.paired[probe.key].difference
    assert gain.mean == pytest.approx(sum(gains) / 3)
    low, high = stats.t.interval(0.95, 2, loc=gain.mean, scale=stats.sem(gains))
    assert (gain.low, gain.high) == pytest.approx((low, high))
    p = [stats.ttest_rel(STL10[arm], STL10[ARMS[2]]).pvalue for arm in ARMS[:2]]
    assert column.paired[probe.key].p_holm == pytest.approx(min(1.0, max(p) if p[1] > p[0] else 2 * p[1]))
    assert scratch.key not in column.paired
    # nothing of it is in what is compared at home
    plain = compare_runs(three_arms())
    assert comparison.rows == plain.rows
    assert plain.abroad == ()
    assert "stl10" not in render(plain, "table")
    assert full.value is not None


def test_the_winner_abroad_is_told_where_it_is_another() -> None:
    lines = winners(compare_runs(abroad()))
    gaps = [a - b for a, b in zip(STL10[ARMS[1]], STL10[ARMS[0]], strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(gaps) / 3, scale=stats.sem(gaps))
    assert lines == [
        f"{' '.join(ARMS[0])} wins at home, {' '.join(ARMS[1])} on stl10: "
        f"{sum(gaps) / 3:+.3f} [{low:+.3f}, {high:+.3f}] there, 3 pairs."
    ]
    close = abroad()
    for seed, record in enumerate(close[3:6]):  # a probe that is better by a hair, on the mean
        record.evaluations["stl10"] = entry(STL10[ARMS[0]][seed] + (0.05, -0.04, 0.02)[seed])
    (line,) = winners(compare_runs(close))
    assert line.endswith("there, 3 pairs; not decided.")
    same = abroad(only=(ARMS[0], ARMS[2]))
    assert winners(compare_runs(same)) == []
    # the winner at home has no value there: nothing can be said of it
    assert winners(compare_runs(abroad(only=ARMS[1:]))) == []


def test_less_is_better_abroad_as_well() -> None:
    records = abroad()
    for record in records:
        record.metrics = {"test/log_loss": 1 - record.metrics["test/accuracy_micro"]}
        record.evaluations["stl10"]["metrics"] = {
            "log_loss": 1 - record.evaluations["stl10"]["metrics"]["accuracy_micro"]
        }
    comparison = compare_runs(records, metric="test/log_loss")
    assert winners(comparison)[0].startswith(f"{' '.join(ARMS[0])} wins at home, {' '.join(ARMS[1])} on stl10: -0.")
    assert comparison.abroad[0].paired[comparison.rows[1].key].verdict == "better"


def test_corruptions_are_summed_up_unless_details_are_asked_for() -> None:
    comparison = compare_runs(abroad(corrupted=True))
    assert [column.name for column in summed_up(comparison.abroad)] == ["stl10", "corrupted"]
    assert len(comparison.abroad) == 2 + len(CORRUPTIONS) * 6
    probe = comparison.rows[1]
    corrupted = next(column for column in comparison.abroad if column.name == "corrupted")
    assert corrupted.values[probe.key].mean == pytest.approx(0.56)
    table = render(comparison, "table", width=160)
    assert "corrupted" in table
    assert "By corruption" not in table
    assert "on corrupted copies" in table
    detailed = render(comparison, "table", width=160, details=details_of(comparison))
    (line,) = [line for line in detailed.splitlines() if line.lstrip().startswith("fog") and "linear_probe" in line]
    assert line.split()[-6:] == ["0.560", "0.580", "0.570", "0.560", "0.550", "0.540"]
    # of one corruption alone its mean; of some strengths each by itself
    for record in (records := abroad(corrupted=True)):
        record.evaluations = {
            name: one
            for name, one in record.evaluations.items()
            if name.startswith("fog-") or name in ("contrast-1", "contrast-5")
        }
    comparison = compare_runs(records)
    assert [column.name for column in summed_up(comparison.abroad)] == ["fog", "contrast-1", "contrast-5"]
    assert any("under fog" in line for line in winners(comparison))


def test_the_table_stays_readable() -> None:
    records = abroad()
    for record in records:
        record.evaluations = {f"set{i}": record.evaluations["stl10"] for i in range(6)}
    comparison = compare_runs(records)
    table = render(comparison, "table", width=140)
    first = table.splitlines()[0:3]
    assert sum(f"set{i}" in "".join(first) for i in range(6)) == MOST_ABROAD
    assert max(map(len, table.splitlines())) <= 140
    assert all(f"set{i}" in table.partition("On further test sets")[2] for i in range(6))


def test_json_csv_and_the_report_have_them() -> None:
    comparison = compare_runs(abroad(corrupted=True))
    (row, *_) = csv.DictReader(io.StringIO(render(comparison, "csv")))
    assert float(row["test@stl10/accuracy_micro"]) == pytest.approx(0.53)
    assert float(row["gain@stl10"]) == pytest.approx(0.1)
    assert row["verdict@stl10"] == "better"
    assert "gain@corrupted" in row
    assert "gain@fog-3" not in row
    details = details_of(comparison)
    (row, *_) = csv.DictReader(io.StringIO(render(comparison, "csv", details=details)))
    assert float(row["test@fog-1/accuracy_micro"]) == pytest.approx(0.45)
    value = json.loads(render(comparison, "json"))
    assert [one["name"] for one in value["abroad"]][:2] == ["stl10", "corrupted"]
    assert comparison.arms["test@stl10/accuracy_micro"].tolist() == pytest.approx([0.53, 0.66, 0.43])
    page = render_page(comparison, details)
    assert "wins at home" in page
    assert "On further test sets" in page
    assert "By corruption" in page
    markdown = render(comparison, "md")
    assert "| stl10 | corrupted |" in markdown


def test_an_evaluation_can_be_compared_outright() -> None:
    comparison = compare_runs(abroad(corrupted=True), metric="test@stl10/accuracy_micro")
    assert [row.value.mean for row in comparison.rows if row.value] == pytest.approx([0.53, 0.66, 0.43])
    assert comparison.abroad == ()
    assert list(comparison.references.values()) == [{"chance": 0.5, "majority class": 0.6}]
    assert compare_runs(abroad(corrupted=True), metric="test@corrupted/accuracy_micro").rows[1].value is not None
    with pytest.raises(RecordError, match=r"Did you mean 'test@stl10/accuracy_micro'"):
        compare_runs(abroad(), metric="test@stl1/accuracy_micro")
    text = render(compare_runs(abroad(), metric="test@stl10/accuracy_micro"), "table")
    assert "Evaluated on stl10 with the weights of" in text
    assert "Tested once" not in text


def test_chance_is_that_of_the_other_data(tmp_path: Any) -> None:
    """Twenty images, twelve of the first class; and no class counts where a class is not there."""
    records = abroad()
    for record in records:
        record.evaluations["stl10"]["data"]["class_counts"] = [15, 5]
        record.evaluations["fewer"] = entry(0.5, class_counts=[20, 0])
    comparison = compare_runs(records, metric="test@stl10/accuracy_micro")
    assert list(comparison.references.values()) == [{"chance": 0.5, "majority class": 0.75}]
    assert any("no better than chance" in note for note in comparison.notes)
    assert compare_runs(records, metric="test@fewer/accuracy_micro").references == {}


def test_columns_of_a_table_of_ones_own(tmp_path: Any) -> None:
    rows = ["arm,seed,test/accuracy_micro,test@stl10/accuracy_micro"]
    rows += [f"a,{seed},0.{90 + seed},0.{50 + seed}" for seed in range(3)]
    rows += [f"b,{seed},0.{80 + seed},0.{60 + seed}" for seed in range(3)]
    (tmp_path / "results.csv").write_text("\n".join(rows) + "\n")
    comparison = compare_results(read_csv_results(tmp_path / "results.csv"))
    assert [column.name for column in comparison.abroad] == ["stl10"]
    assert winners(comparison)[0].startswith("a wins at home, b on stl10")


@pytest.mark.parametrize(
    ("evaluations", "said"),
    [
        ([], "evaluations that are no mapping"),
        ({"../x": entry(0.5)}, "a name that none has"),
        ({"a": 3}, "without metrics or data"),
        ({"a": {"metrics": {"accuracy_micro": "0.5"}, "data": {}}}, "accuracy_micro is no number"),
        ({"a": entry(0.5, class_counts="many")}, "class_counts are no counts"),
        ({"a": entry(0.5, examples=1.5)}, "examples is no count"),
        ({"a": entry(0.5) | {"predictions": "x"}}, "predictions cannot be read"),
    ],
)
def test_evaluations_that_cannot_be_read_are_told(evaluations: Any, said: str) -> None:
    value = made(ARMS[0], 0, 0.9).to_dict() | {"evaluations": evaluations}
    with pytest.raises(RecordError, match=said):
        RunRecord.from_dict(value)


def test_different_data_under_one_name_is_no_column() -> None:
    records = abroad()
    for i, record in enumerate(records):
        record.evaluations["stl10"]["data"]["fingerprint"] = "a" if i else "b"
    comparison = compare_runs(records)
    assert comparison.abroad == ()
    said = "stl10: the runs were scored on different data under this name; it is left out."
    assert said in comparison.notes
    for record in records:
        record.evaluations["stl10"]["data"]["fingerprint"] = "a"
    assert [column.name for column in compare_runs(records).abroad] == ["stl10"]
