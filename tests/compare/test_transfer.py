"""Measures of transfer: areas, thresholds, labels, classes, rankings; and a whole comparison of real runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.compare.test_compare import ARMS, compare_runs, made, three_arms
from tests.conftest import RunTiny

from headstart.cli import main
from headstart.compare.classes import class_gains
from headstart.compare.comparison import compare_results
from headstart.compare.curves import Curve, curve_of
from headstart.compare.details import details_of
from headstart.compare.formats import render
from headstart.compare.labels import data_equivalence, label_efficiency
from headstart.compare.rankings import kendall_tau, rankings
from headstart.compare.results import result_of_run
from headstart.compare.sources import find_results
from headstart.compare.statistics.intervals import estimate
from headstart.compare.statistics.paired import holm
from headstart.compare.transfer import along_training, gain_area, odds_threshold
from headstart.records.schema import RunRecord
from headstart.records.tables import write_rows


def curve(steps: list[int], values: list[float]) -> Curve:
    at = np.array(steps, dtype=np.float64)
    return Curve(at, at / 10, at / 2, at * 32, np.array(values))


def test_the_gain_area_is_the_integral() -> None:
    """Against a fine sum over log10(steps), with curves known at different steps."""
    a, b = curve([10, 40, 90], [0.2, 0.6, 0.7]), curve([20, 50, 100], [0.1, 0.2, 0.6])
    u = np.linspace(np.log10(20), np.log10(90), 200_001)
    gap = np.interp(u, np.log10(a.steps), a.values) - np.interp(u, np.log10(b.steps), b.values)
    found = gain_area(a.steps, a.values, b.steps, b.values)
    assert found == pytest.approx(gap.mean(), abs=1e-5)
    assert gain_area(a.steps, a.values + 0.3, a.steps, a.values) == pytest.approx(0.3)
    assert gain_area(np.array([10.0]), np.array([0.5]), np.array([10.0]), np.array([0.5])) is None


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99))
def test_ninety_percent_of_the_odds(best: float) -> None:
    bound = odds_threshold(best)
    assert bound / (1 - bound) == pytest.approx(0.9 * best / (1 - best))
    assert odds_threshold(1.0) == 1.0


def with_curves(
    values: dict[tuple[str, ...], list[list[float]]],
) -> tuple[list[RunRecord], dict[str, Curve | None]]:
    records = [made(of, seed, curves[-1]) for of, several in values.items() for seed, curves in enumerate(several)]
    steps = [10, 20, 30, 40]
    curves = {
        f"{'-'.join(of)}-{seed}": curve(steps[: len(own)], own)
        for of, several in values.items()
        for seed, own in enumerate(several)
    }
    return records, dict(curves)


def test_start_speed_and_whole_of_training() -> None:
    records, curves = with_curves(
        {
            ARMS[0]: [[0.5, 0.8, 0.9, 0.9], [0.6, 0.8, 0.9, 0.92]],
            ARMS[2]: [[0.1, 0.3, 0.6, 0.7], [0.2, 0.3, 0.6, 0.8]],
        }
    )
    comparison = compare_runs(records)
    (found,) = along_training(comparison, curves)
    assert found.jumpstart is not None
    assert (found.jumpstart.n, found.jumpstart.mean) == (2, pytest.approx(0.4))
    assert found.jumpstart_step == 10
    areas = [
        gain_area(curves[a].steps, curves[a].values, curves[b].steps, curves[b].values)  # type: ignore[union-attr]
        for a, b in ((records[0].id, records[2].id), (records[1].id, records[3].id))
    ]
    assert found.area == estimate([float(area or 0) for area in areas])
    # 90 % of the odds of 0.9 is 0.890, of 0.92 is 0.912: after 30 and 40 steps
    assert found.own is not None
    assert (found.own.steps, found.own.epochs, found.own.seconds, found.own.images) == (35, 3.5, 17.5, 35 * 32)
    assert found.baseline_own is not None
    assert found.baseline_own.steps == 40
    half = next(level for level in found.levels if level.arm.threshold == pytest.approx(0.51, abs=0.01))
    assert (half.arm.steps, half.baseline.steps, half.speedup) == (15, 30, 2.0)
    never = found.levels[-1]
    assert (never.baseline.reached, never.baseline.of, never.speedup) == (0, 2, None)
    assert never.arm.reached == 1


def test_a_curve_is_read_from_the_runs_own_file() -> None:
    record = made(ARMS[0], 0, 0.5)
    write_rows(
        Path("metrics.csv"),
        [
            {"epoch": 1, "step": 13, "val/accuracy_micro": 0.25, "seconds": 1.5},
            {"epoch": 2, "step": 26, "val/accuracy_micro": 0.5, "seconds": 3.0},
        ],
    )
    result = replace(result_of_run(Path(), record))
    found = curve_of(result, "test/accuracy_micro")
    assert found is not None
    assert found.values.tolist() == [0.25, 0.5]
    assert found.images.tolist() == [13 * 32, 26 * 32]
    assert curve_of(result, "test/auroc") is None
    assert curve_of(result_of_run(None, record), "test/accuracy_micro") is None


def test_how_many_labels_scratch_would_need() -> None:
    sizes, values = np.array([100.0, 1000.0, 10_000.0]), np.array([0.2, 0.4, 0.8])
    half_way = data_equivalence(100, 0.6, sizes, values)
    assert half_way.times == pytest.approx(10**3.5 / 100)
    assert half_way.bound == "="
    assert data_equivalence(100, 0.9, sizes, values).bound == ">"
    assert data_equivalence(100, 0.9, sizes, values).times == pytest.approx(100)
    assert data_equivalence(1000, 0.1, sizes, values).bound == "<"
    assert data_equivalence(100, 0.2, sizes, values).times == 1
    assert data_equivalence(100, 0.3, sizes, np.array([0.2, 0.1, 0.8])).times > 10  # never falls


def test_label_efficiency_is_paired_over_seeds() -> None:
    records = []
    for size, gain in ((100, 0.3), (1000, 0.1)):
        for of, base in ((ARMS[0], 0.4 + gain), (ARMS[2], 0.4)):
            for seed in range(3):
                record = made(
                    of, seed, base + 0.05 * np.log10(size) + 0.01 * seed * (of == ARMS[0]), arm=f"{of}{size}"
                )
                record.config["data"]["train_size"] = size
                record.data = {**record.data, "sizes": {"train": size, "test": 10}}
                records.append(record)
    comparison = compare_runs(records)
    mine, scratch = label_efficiency(comparison)
    assert (mine.labels, mine.is_baseline, scratch.is_baseline) == ((100, 1000), False, True)
    assert mine.method == "weights=pretrained"
    areas = [0.2 + 0.01 * seed for seed in range(3)]
    assert mine.area is not None
    assert mine.area.mean == pytest.approx(np.mean(areas))
    assert mine.area.low == pytest.approx(stats.t.interval(0.95, 2, np.mean(areas), stats.sem(areas))[0])
    assert [one.bound for one in mine.equivalence] == [">", ">"]
    assert mine.equivalence[0].times == 10
    shown = render(comparison, "table", width=200, details=details_of(comparison))
    assert "more than 10.0 x" in shown


def test_per_class_gains_and_negative_transfer() -> None:
    records = three_arms()
    tables = {ARMS[0]: [[[9, 1], [6, 4]], [[8, 2], [5, 5]], [[9, 1], [6, 4]]], ARMS[2]: [[[5, 5], [2, 8]], [[5, 5], [2, 8]], [[6, 4], [1, 9]]]}  # fmt: skip
    for record in records:
        of = next(arm for arm in ARMS if record.id.startswith("-".join(arm)))
        if of in tables:
            record.confusion = {"counts": tables[of][record.seed]}
    comparison = compare_runs(records)
    first, second = class_gains(comparison, comparison.rows[0])
    assert (first.name, second.name) == ("a", "b")
    gaps = [0.4, 0.3, 0.3]
    low, high = stats.t.interval(0.95, 2, np.mean(gaps), stats.sem(gaps))
    assert (first.gain.low, first.gain.high) == pytest.approx((low, high))
    assert second.is_negative
    assert not first.is_negative
    losses = [-0.4, -0.3, -0.5]
    p_values = [stats.ttest_1samp(gaps, 0).pvalue, stats.ttest_1samp(losses, 0).pvalue]
    assert (first.p_holm, second.p_holm) == pytest.approx(tuple(holm(p_values)))
    assert class_gains(comparison, comparison.rows[1]) == []
    shown = render(comparison, "md", details=details_of(comparison))
    assert "negative transfer" in shown
    against = compare_runs(records, baseline="weights=scratch strategy=full")
    assert "negative transfer" in render(against, "md", details=details_of(against))
    turned = compare_runs(records, baseline=" ".join(ARMS[0]))
    assert class_gains(turned, turned.rows[2])[0].flag.startswith("worse")
    assert "negative transfer" not in render(turned, "md", details=details_of(turned))
    # overall too, where the arm is worse beyond doubt
    for record in records:
        record.metrics = {"test/accuracy_micro": 1 - (record.metrics["test/accuracy_micro"] or 0)}
    worse = compare_runs(records)
    assert worse.rows[0].is_negative_transfer
    assert "Negative transfer: weights=pretrained strategy=full is worse" in render(worse, "table", width=200)


def test_backbones_are_ranked_by_each_strategy() -> None:
    values = {("resnet18", "full"): 0.9, ("resnet50", "full"): 0.95, ("resnet18", "linear_probe"): 0.8, ("resnet50", "linear_probe"): 0.7}  # fmt: skip
    records = [
        made(("weights=pretrained", f"strategy={strategy}", f"backbone={name}", "weights.origin=hub"), 0, value)
        for (name, strategy), value in values.items()
    ]
    full, probe = rankings(compare_runs(records))
    assert [name.partition(".")[0] for name, _ in full.order] == ["resnet50", "resnet18"]
    assert [name.partition(".")[0] for name, _ in probe.order] == ["resnet18", "resnet50"]
    assert (full.agreement, probe.agreement) == (None, -1.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_kendalls_tau_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    found = kendall_tau(a, b)
    if found is None:
        assert len(set(a)) == 1 or len(set(b)) == 1
    else:
        assert found == pytest.approx(stats.kendalltau(a, b).statistic)


def test_real_runs_in_every_detail(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        for strategy in ("full", "linear_probe"):
            run_tiny(f"strategy={strategy}", f"seed={seed}", "trainer.max_epochs=2")
    assert main(["compare", "--details", "--format", "json"]) == 0
    loaded = json.loads(capsys.readouterr().out)
    results, _ = find_results([Path("outputs")])
    comparison = compare_results(results)
    (test,) = details_of(comparison).examples.values()
    gain = comparison.rows[1].gain
    assert gain is not None
    assert test.difference == pytest.approx(gain.mean, abs=1e-6)
    assert test.images == 100
    details = loaded["details"]
    assert details["examples"]["strategy=linear_probe"]["difference"] == pytest.approx(gain.mean, abs=1e-6)
    assert len(details["classes"]["strategy=linear_probe"]) == 10
    assert details["along_training"][0]["jumpstart"]["n"] == 2
    assert main(["compare", "--details"]) == 0
    shown = capsys.readouterr().out
    for title in ("Paired with the baseline", "Along training", "Until a value", "Classes that changed", "Cost"):
        assert title in shown
