"""Comparing: arms, pairs, intervals, labels; and what cannot be compared."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.formats import render
from headstart.compare.picture import draw
from headstart.compare.results import result_of_run
from headstart.config.compose import compose
from headstart.config.identity import arm_hash
from headstart.config.plain import to_plain
from headstart.errors import ConfigError, RecordError
from headstart.records.schema import RunRecord

ARMS = (
    ("weights=pretrained", "strategy=full"),
    ("weights=pretrained", "strategy=linear_probe"),
    ("weights=scratch", "strategy=full"),
)
_CONFIGS: dict[tuple[str, ...], dict[str, Any]] = {}


def made(of: tuple[str, ...], seed: int, value: float, **changes: Any) -> RunRecord:
    """A record of an arm, as a run would have left it."""
    if of not in _CONFIGS:
        config = compose(list(of))
        weights = "w" if config.weights.source == "pretrained" else ""
        _CONFIGS[of] = {
            "plain": to_plain(config),
            "arm": arm_hash(config, data_fingerprint="d", weights_identity=weights),
        }
    plain = copy.deepcopy(_CONFIGS[of]["plain"])
    plain["seed"] = seed
    base: dict[str, Any] = {
        "id": f"{'-'.join(of)}-{seed}", "status": "completed", "config_hash": "c", "job_key": "j",
        "arm": _CONFIGS[of]["arm"], "seed": seed, "split_seed": 0, "command": [],
        "started": "2026-01-01T00:00:00Z", "config": plain, "metrics": {"test/accuracy_micro": value},
        "seconds": {"total": 10.0 + seed}, "parameters": {"trainable": 1_500_000}, "epochs": 3,
        "best": {"epoch": 2}, "stopped_by": "budget",
        "data": {
            "task": "multiclass", "fingerprint": "d", "sizes": {"test": 10},
            "class_names": ["a", "b"], "class_counts": {"train": [3, 1], "test": [6, 4]},
        },
    }  # fmt: skip
    return RunRecord(**{**base, **changes})


def compare_runs(records: list[RunRecord], **options: Any) -> Comparison:
    return compare_results([result_of_run(None, record) for record in records], **options)


def three_arms(seeds: int = 3) -> list[RunRecord]:
    values = {ARMS[0]: (0.9, 0.94, 0.92), ARMS[1]: (0.8, 0.83, 0.85), ARMS[2]: (0.7, 0.76, 0.73)}
    return [made(arm, seed, values[arm][seed]) for arm in ARMS for seed in range(seeds)]


def test_gains_are_paired_by_seed() -> None:
    comparison = compare_runs(three_arms())
    full, probe, scratch = comparison.rows
    assert [row.arm for row in comparison.rows] == [" ".join(arm) for arm in ARMS]
    differences = [0.2, 0.18, 0.19]
    assert full.gain is not None
    assert full.gain.mean == pytest.approx(0.19)
    low, high = stats.t.interval(0.95, 2, loc=0.19, scale=stats.sem(differences))
    assert (full.gain.low, full.gain.high) == pytest.approx((low, high))
    assert scratch.is_baseline
    assert scratch.gain is None
    assert probe.baseline == "weights=scratch strategy=full"
    assert list(comparison.references.values()) == [{"chance": 0.5, "majority class": 0.6}]
    assert full.seconds == pytest.approx(11.0)


def test_a_run_without_partner_is_in_the_mean_and_not_in_the_gain() -> None:
    comparison = compare_runs([*three_arms(), made(ARMS[0], 7, 0.1)])
    assert comparison.rows[0].n == 4
    assert comparison.rows[0].gain is not None
    assert comparison.rows[0].gain.n == 3
    assert any("3 of 4 runs have a partner" in note for note in comparison.notes)


def test_repeats_failures_and_late_bests_are_counted() -> None:
    runs = [
        *three_arms(),
        made(ARMS[0], 0, 0.5, started="2025-01-01T00:00:00Z", id="old"),
        made(ARMS[1], 5, 0.0, status="failed", metrics={}),
    ]
    for run in runs:
        if run.config["weights"]["source"] == "scratch":
            run.best = {"epoch": 3}
    comparison = compare_runs(runs)
    assert comparison.rows[0].value is not None
    assert comparison.rows[0].value.mean == pytest.approx(0.92)  # the older repeat does not count
    assert comparison.rows[1].failed == 1
    assert [row.improving for row in comparison.rows] == [False, False, True]
    notes = "\n".join(comparison.notes)
    assert "1 earlier runs of the same seeds left out" in notes
    assert "1 failed" in notes
    assert "still improving at the last epoch" in notes


def test_no_baseline_no_gain() -> None:
    comparison = compare_runs([run for run in three_arms() if run.config["weights"]["source"] != "scratch"])
    assert all(row.gain is None for row in comparison.rows)
    assert any("no baseline" in note for note in comparison.notes)


def test_a_random_features_control_is_no_baseline() -> None:
    control = ("weights=scratch", "strategy=linear_probe")
    comparison = compare_runs([*three_arms(), *(made(control, s, 0.3) for s in range(3))])
    assert [row.is_baseline for row in comparison.rows] == [False, False, True, False]
    assert comparison.rows[3].baseline == "weights=scratch strategy=full"


def test_a_baseline_of_another_backbone_head_or_data_is_none() -> None:
    others = [
        ("weights=pretrained", "strategy=full", more)
        for more in ("backbone=resnet18", "head=mlp", "data.train_size=50")
    ]
    comparison = compare_runs([*three_arms(), *(made(arm, s, 0.5) for arm in others for s in range(2))])
    assert [row.baseline for row in comparison.rows[3:]] == [None] * 3
    elsewhere = made(ARMS[0], 0, 0.5, arm="other", data={**three_arms()[0].data, "fingerprint": "e"})
    assert compare_runs([*three_arms(), elsewhere]).rows[3].gain is None


def test_several_candidates_for_the_baseline_are_an_error() -> None:
    tuned = ("weights=scratch", "strategy=full", "optimizer.lr=0.1")
    with pytest.raises(RecordError, match=r"several arms could be the baseline.*optimizer\.lr=0\.1"):
        compare_runs([*three_arms(), made(tuned, 0, 0.5)])


def test_labels_name_what_differs() -> None:
    arms = [("strategy=last_k", f"strategy.k={k}") for k in (1, 2)] + [("strategy=full",)]
    comparison = compare_runs([made(arm, 0, 0.5) for arm in arms])
    assert [row.arm for row in comparison.rows] == [
        "strategy=last_k strategy.k=1",
        "strategy=last_k strategy.k=2",
        "strategy=full",
    ]


def test_arms_bear_the_names_that_a_sweep_gave_them() -> None:
    arms = [("weights=scratch",), *(("weights=pretrained", f"data.train_size={n}") for n in (50, 100))]
    names = ("from scratch", "fine-tuned", "fine-tuned")
    results = [
        replace(result_of_run(None, made(arm, 0, 0.5)), job_name=name)
        for arm, name in zip(arms, names, strict=True)
    ]
    rows = compare_results(results).rows
    assert [row.arm for row in rows] == [
        "from scratch",
        "fine-tuned data.train_size=50",
        "fine-tuned data.train_size=100",
    ]
    assert [row.method for row in rows] == ["from scratch", "fine-tuned", "fine-tuned"]
    some = [results[0], replace(results[1], job_name=""), results[2]]
    assert compare_results(some).rows[0].arm == "weights=scratch"  # not all have a name


@pytest.mark.parametrize(
    ("runs", "metric", "said"),
    [
        (lambda: [made(ARMS[0], 0, 0.5, status="failed")], None, "no run has completed yet .1 runs: failed."),
        (three_arms, "test/accuracy", "there is no such metric. Did you mean 'test/accuracy_"),
        (
            lambda: [*three_arms(), made(ARMS[1], 9, 0.5, data={**three_arms()[0].data, "task": "multilabel"})],
            None,
            "different tasks .multiclass, multilabel.",
        ),
    ],
)
def test_what_cannot_be_compared(runs: Any, metric: str | None, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        compare_runs(runs(), metric=metric)


def test_formats() -> None:
    comparison = compare_runs(three_arms())
    table = render(comparison, "table", width=140)
    assert "0.920 [0.870, 0.970]" in table
    assert "+0.190 [+0.165, +0.215]" in table
    assert "1.5 M" in table
    assert "majority class 0.600" in table
    assert "Tested once per run, with the weights of the last step." in table  # these records name no monitor
    loaded = json.loads(render(comparison, "json"))
    assert loaded["rows"][0]["gain"]["mean"] == pytest.approx(0.19)
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert float(rows[1]["gain"]) == pytest.approx(0.09666666)
    lines = render(comparison, "md").splitlines()
    assert lines[0].startswith("| arm | n |")
    assert len(lines[2].split("|")) == len(lines[0].split("|"))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures(suffix: str) -> None:
    draw(compare_runs(three_arms()), Path(f"c{suffix}"))
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert Path(f"c{suffix}").read_bytes().startswith(start)


def test_a_picture_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"c\.gif: a picture must end in \.png"):
        draw(compare_runs(three_arms()), Path("c.gif"))
    with pytest.raises(ConfigError, match="there is no folder nowhere"):
        draw(compare_runs(three_arms()), Path("nowhere/c.png"))


def test_loss_is_better_lower() -> None:
    runs = [made(arm, s, 0.5, metrics={"test/log_loss": 1.0 + s}) for arm in ARMS for s in range(2)]
    comparison = compare_runs(runs, metric="test/log_loss")
    assert comparison.lower_is_better
    assert "Lower is better." in render(comparison, "table", width=140)
