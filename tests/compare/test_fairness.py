"""What should be equal, which arm is whose baseline, what is decided, and how often that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compare.test_compare import ARMS, compare_runs, made, three_arms

from headstart.cli import main
from headstart.compare.arms import short_list
from headstart.compare.comparison import Comparison, compare_results
from headstart.compare.fairness import check_strict
from headstart.compare.formats import render
from headstart.compare.results import Result, result_of_run
from headstart.errors import RecordError
from headstart.records.schema import RunRecord
from headstart.records.store import write_record
from headstart.records.studies import Chosen
from headstart.records.sweeps import JobState, Sweep, SweepJob, write_state, write_sweep


def with_config(record: RunRecord, key: str, value: Any, *, arm: str) -> RunRecord:
    group, _, name = key.partition(".")
    record.config[group][name] = value
    record.arm = arm
    return record


def changed(key: str, value: Any) -> list[RunRecord]:
    """Three arms, of which the first differs in one more key."""
    runs = three_arms()
    first = runs[0].arm
    return [with_config(run, key, value, arm="changed") if run.arm == first else run for run in runs]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_size", 64),
        ("data.augment", "light"),
        ("data.image_size", 32),
        ("data.val_size", 0.3),
        ("trainer.max_epochs", 7),
        ("trainer.precision", "bf16-mixed"),
        ("trainer.checkpoint", "last"),
        ("loss.label_smoothing", 0.1),
    ],
)
def test_a_hidden_difference_is_named(key: str, value: Any) -> None:
    comparison = compare_runs(changed(key, value))
    assert [one.key for one in comparison.unequal] == [key]
    assert comparison.rows[0].gain is not None
    assert f"Not held equal with the baseline: {key}" in render(comparison, "table", width=200)
    with pytest.raises(RecordError, match=rf"--strict: .*{key} is {value},"):
        check_strict(comparison.unequal)


@pytest.mark.parametrize("key", ["optimizer.lr", "schedule.warmup_epochs", "trainer.progress", "trainer.threads"])
def test_what_is_tuned_or_has_no_part_may_differ(key: str) -> None:
    comparison = compare_runs(changed(key, 3))
    assert comparison.unequal == ()
    check_strict(comparison.unequal)


def test_a_solved_head_has_no_budget_to_hold_equal() -> None:
    runs = changed("trainer.max_epochs", None)
    for run in runs:
        if run.arm == "changed":
            run.config["head"]["solver"] = "lbfgs"
    assert compare_runs(runs).unequal == ()


def test_long_lists_are_shown_by_their_ends() -> None:
    assert short_list([0.5, *range(9), 1000000.0]) == "[0.5..1e+06:11]"
    assert short_list([1, 2, 3]) == short_list("text") == short_list([str(i) for i in range(20)]) == ""


def test_preprocessing_split_sizes_and_trials_should_be_equal() -> None:
    runs = three_arms()
    for run in runs:
        run.data |= {"transform": {"train": "a", "eval": "b"}, "split_fingerprint": f"split {run.seed}"}
    runs[0].data = {**runs[0].data, "transform": {"train": "a", "eval": "c"}, "sizes": {"test": 11}}
    runs[0].data["split_fingerprint"] = "other"
    results = [result_of_run(None, run) for run in runs]
    results = [replace(one, trials=8) if one.arm == results[0].arm else one for one in results]
    found = {one.key for one in compare_results(results).unequal if one.arm == " ".join(ARMS[0])}
    assert found == {"preprocessing (eval)", "number of images", "split of seed 0", "number of tuning trials"}


def test_what_a_sweep_compares_may_differ_and_finds_its_baseline() -> None:
    """Schedule lengths: each pretrained arm is measured against scratch of the same length."""
    runs = []
    for epochs, gain in ((5, 0.3), (10, 0.1)):
        for of, value in ((ARMS[0], 0.6 + gain), (ARMS[2], 0.6)):
            runs += [
                with_config(made(of, seed, value + 0.01 * seed * epochs), "trainer.max_epochs", epochs, arm=f"{of}{epochs}")
                for seed in range(2)
            ]  # fmt: skip
    results = [result_of_run(None, run) for run in runs]
    plain = compare_results(results)
    assert [row.gain.mean for row in plain.rows if row.gain] == pytest.approx([0.3, 0.1])
    declared = [replace(one, declared=frozenset({"weights", "trainer.max_epochs"})) for one in results]
    comparison = compare_results(declared)
    assert [row.gain.mean for row in comparison.rows if row.gain] == pytest.approx([0.3, 0.1])
    assert comparison.unequal == ()
    lone = [one for one in declared if one.arm != f"{ARMS[2]}10"]
    assert compare_results(lone).unequal == ()  # said to be compared, so it may differ


def test_what_a_sweep_says_of_its_runs_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = Path("outputs")
    records = changed("trainer.max_epochs", 7)
    for record in records:
        record.launched_by = "s"
        folder = outputs / "runs" / record.id
        folder.mkdir(parents=True)
        write_record(folder, record)
    tuned = records[0]
    job = SweepJob("a", "k", "", study="one", tuned={"optimizer.lr": 0.1})
    sweep = Sweep("s", (), "", (job,), compared=("trainer.max_epochs",))
    home = outputs / "sweeps" / "s"
    (home / "jobs" / "a").mkdir(parents=True)
    write_sweep(home, sweep)
    assert main(["compare", "--strict"]) == 0  # declared as compared
    chosen = Chosen(0, {"optimizer.lr": 0.1}, 0.5, "val/accuracy_micro", 12)
    from headstart.records.studies import Study

    study = Study("one", "", "", {"optimizer.lr": [0.01, 0.1]}, {"trainer": {}}, {"trainer": {}}, 12, (0,))
    write_sweep(home, replace(sweep, studies=(study,), chosen={"one": chosen}))
    write_state(home, "a", JobState("completed", tuned.id))
    capsys.readouterr()
    assert main(["compare", str(outputs), "--strict"]) == 2
    assert "number of tuning trials is 12, its baseline's 0" in capsys.readouterr().err
    assert main(["compare", str(outputs), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["trials"] for row in rows] == [12, None, None]
    assert main(["compare", str(outputs), "--details"]) == 0
    assert "optimizer.lr=0.1 of [0.01,0.1]; 12 trials" in " ".join(capsys.readouterr().out.split())


def test_another_baseline_by_label_digest_and_overrides() -> None:
    for named in (" ".join(ARMS[1]), "strategy=linear_probe", "strategy.name=linear_probe weights=pretrained"):
        comparison = compare_runs(three_arms(), baseline=named)
        assert [row.is_baseline for row in comparison.rows] == [False, True, False]
        assert comparison.rows[0].gain is not None
        assert comparison.rows[0].gain.mean == pytest.approx(0.92 - 0.82666667)
        assert comparison.rows[2].gain is not None
    assert "gain over baseline" in render(comparison, "table", width=140)
    key = three_arms()[0].arm
    assert compare_runs(three_arms(), baseline=key[:8]).rows[0].is_baseline


def test_a_baseline_that_is_not_there_is_answered_with_the_arms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        RecordError, match=r"--baseline strategy=lora: no arm matches it\. There are: weights=pretr"
    ):
        compare_runs(three_arms(), baseline="strategy=lora")
    with pytest.raises(RecordError, match="no arm matches"):
        compare_runs(three_arms(), baseline="lora")


def test_failed_and_diverged_runs_are_counted() -> None:
    lost = made(ARMS[0], 5, 0.0, status="failed", metrics={}, error="the loss was not finite at step 3, learning")
    other = made(ARMS[0], 6, 0.0, status="interrupted", metrics={})
    comparison = compare_runs([*three_arms(), lost, other])
    assert (comparison.rows[0].failed, comparison.rows[0].diverged, comparison.rows[0].n) == (2, 1, 3)
    assert "1 failed, 1 interrupted, 1 of them diverged (not in its mean)" in "\n".join(comparison.notes)


def test_what_an_interval_varies_is_said() -> None:
    runs = three_arms()
    for run in runs:
        run.split_seed = run.seed
    assert compare_runs(runs).varies == "seeds and splits"
    for run in runs:
        run.seed = 0
    assert compare_runs(runs).varies == "splits"
    assert "over splits" in render(compare_runs(runs), "table", width=140)
    assert compare_runs(three_arms()).varies == "seeds"
    assert "one seed: nothing is known of the spread" in render(compare_runs(three_arms(1)), "table", width=140)


def test_an_arm_at_chance_and_data_of_imagenet_are_said() -> None:
    runs = [*three_arms(), *(made(("weights=scratch", "strategy=linear_probe"), s, 0.55) for s in range(3))]
    for run in runs:
        run.config["data"] |= {"source": "image_folder", "path": "/data/imagenette2-160"}
    comparison = compare_runs(runs)
    notes = "\n".join(comparison.notes)
    assert "weights=scratch strategy=linear_probe: no better than chance" in notes
    assert "weights=pretrained strategy=full: no better" not in notes
    assert "imagenette2-160: images or classes overlap with ImageNet's" in notes
    assert "random features 0.550" in render(comparison, "table", width=140)
    assert "random features not run" in render(compare_runs(three_arms()), "table", width=140)


def test_metrics_that_only_some_have() -> None:
    runs = three_arms()
    for run in runs:
        run.metrics = {"test/accuracy_micro": 0.5} if run.arm == runs[0].arm else {"test/auroc": 0.5}
    with pytest.raises(RecordError, match=r"none of these runs has it\. They have test/accuracy_micro, test/auroc"):
        compare_runs(runs, metric="test/f1_macro")
    comparison = compare_runs(runs)
    assert [row.n for row in comparison.rows] == [3, 0, 0]
    assert f"{' '.join(ARMS[1])}: 3 completed runs lack test/accuracy_micro." in comparison.notes


def simulated(count: int, n: int, draw: Any) -> dict[str, int]:
    """Verdicts over comparisons of arms that differ in name alone."""
    said: dict[str, int] = {}
    base = three_arms(1)
    for _ in range(count):
        results: list[Result] = []
        for arm in (0, 2):
            one = result_of_run(None, base[arm])
            results += [replace(one, seed=s, metrics={"test/accuracy_micro": float(draw())}) for s in range(n)]
        verdict = compare_results(results).rows[0].paired.verdict  # type: ignore[union-attr]
        said[verdict] = said.get(verdict, 0) + 1
    return said


@pytest.mark.parametrize(
    ("n", "kind"),
    [
        (3, "normal"),
        (3, "coarse"),
        *(pytest.param(n, kind, marks=pytest.mark.slow) for n in (2, 5, 10) for kind in ("normal", "coarse")),
    ],
)
def test_where_there_is_nothing_to_find_better_is_said_rarely(n: int, kind: str) -> None:
    """1,000 comparisons each: in at most 5 % `better`, and as rarely `worse`; test sets of 40 images are coarse."""
    generator = np.random.default_rng(n)
    draw = {"normal": lambda: generator.normal(0.8, 0.02), "coarse": lambda: generator.binomial(40, 0.85) / 40}
    said = simulated(1_000, n, draw[kind])
    assert said.get("better", 0) <= 50
    assert said.get("worse", 0) <= 50
    assert said["not decided"] > 900


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(100):
        runs = [
            made(of, s, float(generator.normal(mean, 0.02))) for of, mean in ((ARMS[0], 0.9), (ARMS[2], 0.8)) for s in range(4)
        ]  # fmt: skip
        found += compare_runs(runs).rows[0].paired.verdict == "better"  # type: ignore[union-attr]
    assert found >= 85


def test_a_thousand_runs_in_three_seconds_without_torch() -> None:
    records = three_arms()
    for i in range(1_000):
        record = records[i % 3 * 3]
        record = replace(record, id=f"r{i:04d}", seed=i // 60, arm=f"{record.arm}{i % 60}")
        record.config = {**record.config, "seed": record.seed}
        record.config["data"] = {**record.config["data"], "train_size": 10 * (i % 60 // 3 + 1)}
        folder = Path("outputs/runs") / record.id
        folder.mkdir(parents=True)
        write_record(folder, record)
    code = (
        "import sys, time; began = time.monotonic()\n"
        "from headstart.cli import main\n"
        "assert main(['compare', 'outputs', '--format', 'csv']) == 0\n"
        "print(time.monotonic() - began, 'torch' in sys.modules, file=sys.stderr)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch = done.stderr.split()
    assert torch == "False"
    assert float(seconds) < 3.0
    assert len(done.stdout.splitlines()) == 61
    assert time.monotonic() - began < 10


def test_against_another_baseline_worse_is_no_negative_transfer() -> None:
    runs = three_arms()
    comparison = compare_runs(runs, baseline=" ".join(ARMS[0]))
    assert comparison.rows[2].paired is not None
    assert comparison.rows[2].paired.verdict == "worse"
    assert not comparison.rows[2].is_negative_transfer
    shown = render(comparison, "table", width=160)
    assert "worse" in shown
    assert "egative transfer" not in shown


def test_a_whole_group_as_an_axis_finds_its_baseline() -> None:
    runs = []
    for optimizer in ("adamw", "sgd"):
        for of, value in ((ARMS[0], 0.9), (ARMS[2], 0.5 if optimizer == "sgd" else 0.6)):
            runs += [made((*of, f"optimizer={optimizer}"), seed, value + seed / 50) for seed in range(2)]
    results = [replace(result_of_run(None, run), declared=frozenset({"weights", "optimizer"})) for run in runs]
    comparison = compare_results(results)
    assert sorted(round(row.gain.mean, 6) for row in comparison.rows if row.gain) == [0.3, 0.4]


def test_a_named_baseline_is_the_one_of_the_same_backbone() -> None:
    probe = ("weights=pretrained", "strategy=linear_probe")
    other = ("backbone=resnet18", "weights.origin=hub")
    arms = [ARMS[0], probe, (*ARMS[0], *other), (*probe, *other)]
    runs = [made(of, s, 0.5 + 0.1 * i + s / 99) for i, of in enumerate(arms) for s in range(2)]
    comparison = compare_runs(runs, baseline="strategy=linear_probe")
    assert [round(row.gain.mean, 6) for row in comparison.rows if row.gain] == [-0.1, -0.1]
    assert compare_runs(runs, baseline="strategy=linear_probe backbone=resnet18").rows[3].is_baseline


def test_gains_say_what_their_pairs_vary() -> None:
    runs = three_arms()
    extra = [made(ARMS[0], s, 0.9 + s / 99, id=f"x{s}", split_seed=1) for s in range(3)]
    row = compare_runs([*runs, *extra]).rows[0]
    assert (row.varies, row.pairs_vary) == ("seeds and splits", "seeds")


def test_random_features_of_a_loss_are_the_lowest() -> None:
    controls = [("weights=scratch", "strategy=linear_probe", f"optimizer.lr={lr}") for lr in (0.1, 0.2)]
    runs = [made(of, 0, 0.5, metrics={"test/log_loss": 2.3 + i}) for i, of in enumerate(controls)]
    (found,) = compare_runs(runs, metric="test/log_loss").references.values()
    assert found == {"random features": 2.3}


def test_data_sets_in_folders_are_named() -> None:
    runs = []
    for i, name in enumerate(("cats", "dogs")):
        run = made(ARMS[0], 0, 0.5, arm=f"arm{i}", data={**three_arms()[0].data, "fingerprint": name})
        run.config["data"] = {**run.config["data"], "source": "image_folder", "path": f"/data/{name}"}
        runs.append(run)
    assert [row.arm for row in compare_runs(runs).rows] == ["the same config on cats", "the same config on dogs"]


def test_comparison_is_plain_data() -> None:
    comparison: Comparison = compare_runs(three_arms())
    loaded = json.loads(render(comparison, "json"))
    assert loaded["rows"][0]["paired"]["verdict"] == "better"
    assert loaded["lower_is_better"] is False
    frame = comparison.arms
    assert list(frame["verdict"].fillna("")) == ["better", "better", ""]
