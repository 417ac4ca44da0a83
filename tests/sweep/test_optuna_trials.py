"""Trials that Optuna draws: the same whenever they are asked for, kept, and told apart by how they ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from headstart.config.schema.search import DrawnConfig, RandomConfig, TpeConfig
from headstart.sweep.optuna_trials import STORAGE, OptunaTrials
from headstart.sweep.space import read_space
from headstart.sweep.trials import Told, Trial

SPACE = read_space(
    {
        "lr": {"low": 1e-5, "high": 1.0, "log": True},
        "k": {"low": 1, "high": 8},
        "betas": [[0.9, 0.99], None, True, "a"],
    },
    where="here",
)
LR = read_space({"lr": {"low": 1e-5, "high": 1.0, "log": True}}, where="here")
TrialState = optuna.trial.TrialState


def opened(folder: Path, search: DrawnConfig | None = None, **more: Any) -> OptunaTrials:
    folder.mkdir(exist_ok=True)
    options = {"study": "one", "space": SPACE, "trials": 8, "minimize": False, **more}
    return OptunaTrials(folder, search=search or RandomConfig(), **options)


def in_storage(folder: Path, study: str = "one") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=f"sqlite:///{folder / STORAGE}").get_trials()


def drawn(trial: Trial | None) -> dict[str, Any]:
    assert trial is not None
    return dict(trial.drawn)


def test_random_trials_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    whole = opened(tmp_path / "a")
    values = [drawn(whole.ask()) for _ in range(8)]
    assert whole.ask() is None
    assert len({str(value) for value in values}) == 8
    assert {type(value["k"]) for value in values} == {int}
    again = []
    for number in range(8):  # a new launch for each
        one = opened(tmp_path / "b")
        trial = one.ask()
        again.append(drawn(trial))
        one.tell(number, Told({}, "completed", 0.5))
    assert again == values
    assert drawn(opened(tmp_path / "c", study="another arm").ask()) == values[0], "arms have the same draws"
    assert drawn(opened(tmp_path / "d", RandomConfig(seed=1)).ask()) != values[0]


def test_a_crash_is_failed_never_pruned_and_is_tried_once_more(tmp_path: Path) -> None:
    first = opened(tmp_path)
    before = [drawn(first.ask()) for _ in range(4)]
    first.tell(0, Told(before[0], "completed", 0.25))
    first.tell(1, Told(before[1], "failed"))
    first.tell(2, Told(before[2], "pruned"))
    assert [trial.state for trial in in_storage(tmp_path)] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    second = opened(tmp_path)
    assert {number: (told.status, told.value) for number, told in second.told().items()} == {
        0: ("completed", 0.25),
        1: ("failed", None),
        2: ("pruned", None),
    }
    open_ = second.open()
    assert [(trial.number, dict(trial.drawn)) for trial in open_] == [(1, before[1]), (3, before[3])]
    second.tell(1, Told(before[1], "completed", 0.75))
    assert second.told()[1].value == 0.75
    fifth = drawn(second.ask())
    assert fifth not in before
    assert [trial.number for trial in opened(tmp_path).open()] == [3, 4]


@pytest.mark.parametrize("place", ["suggest", "set_trial_user_attr"])
def test_a_launch_killed_while_it_asks_loses_nothing(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(tmp_path / "whole")
    wanted = [drawn(whole.ask()) for _ in range(3)]
    broken = opened(tmp_path / "broken")
    broken.ask()

    def killed(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        method = {"suggest": "set_trial_param", "set_trial_user_attr": "set_trial_user_attr"}[place]
        patch.setattr(optuna.storages._CachedStorage, method, killed)
        with pytest.raises(KeyboardInterrupt):
            broken.ask()
    after = opened(tmp_path / "broken")
    found = after.open()
    numbers = {trial.number: dict(trial.drawn) for trial in found}
    while len(numbers) < 3:
        trial = after.ask()
        assert trial is not None
        numbers[trial.number] = dict(trial.drawn)
    assert [numbers[number] for number in range(3)] == wanted


def run_all(trials: OptunaTrials, curve: Callable[[float, int], float], *, epochs: int = 4) -> dict[int, int]:
    """Epochs that each trial had."""
    had = {}
    while (trial := trials.ask()) is not None:
        status = "completed"
        for epoch in range(1, epochs + 1):
            had[trial.number] = epoch
            if trials.report(trial.number, {e: curve(trial.drawn["lr"], e) for e in range(1, epoch + 1)}):
                status = "pruned"
                break
        value = curve(trial.drawn["lr"], epochs) if status == "completed" else None
        trials.tell(trial.number, Told(trial.drawn, status, value))
    return had


def peak(lr: float, epoch: int) -> float:
    """Best at a rate of 0.01, and better with every epoch."""
    return epoch - abs(math.log10(lr) + 2)


@pytest.mark.parametrize("after_epochs", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_median_rule_stops_as_computed_by_hand(tmp_path: Path, after_epochs: int) -> None:
    search = RandomConfig(pruner="median", prune_after_trials=3, prune_after_epochs=after_epochs)
    had = run_all(opened(tmp_path, search, space=LR, trials=15), peak)
    drawn = {int(t.user_attrs["trial"]): t.params["lr"] for t in in_storage(tmp_path)}
    completed: list[int] = []
    for number in range(15):
        stop = 4
        for epoch in range(after_epochs, 5):
            if len(completed) < 3:
                break
            if peak(drawn[number], epoch) < statistics.median(peak(drawn[other], epoch) for other in completed):
                stop = epoch
                break
        assert had[number] == stop, number
        pruned = in_storage(tmp_path)[number].state == TrialState.PRUNED
        if not pruned:
            completed.append(number)
    assert 3 < len(completed) < 15
    assert all(count >= after_epochs for count in had.values())


def test_without_a_pruner_every_trial_has_all_its_epochs(tmp_path: Path) -> None:
    assert set(run_all(opened(tmp_path, RandomConfig(), space=LR), peak).values()) == {4}


def test_an_epoch_that_was_reported_before_a_resume_is_not_reported_twice(tmp_path: Path) -> None:
    trials = opened(tmp_path, RandomConfig(pruner="median"))
    trials.ask()
    assert not trials.report(0, {1: 0.5})
    assert not opened(tmp_path).report(0, {1: 0.9})
    assert in_storage(tmp_path)[0].intermediate_values == {1: 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("minimize", [False, True])
def test_tpe_draws_at_random_first_then_near_what_was_good(tmp_path: Path, minimize: bool) -> None:
    def search(kind: DrawnConfig, name: str, count: int = 40) -> list[float]:
        trials = opened(tmp_path / name, kind, space=LR, trials=count, minimize=minimize)
        rates = []
        while (trial := trials.ask()) is not None:
            rates.append(float(trial.drawn["lr"]))
            value = peak(rates[-1], 0)
            trials.tell(trial.number, Told(trial.drawn, "completed", -value if minimize else value))
        return rates

    random, tpe = search(RandomConfig(), "random", 20), search(TpeConfig(startup_trials=8), "tpe")
    assert tpe[:8] == random[:8]
    by_chance = (3**2 + 2**2) / 2 / 5  # mean distance of a number between -5 and 0 from -2
    assert statistics.mean(abs(math.log10(rate) + 2) for rate in tpe[20:]) < 0.7 * by_chance
    assert search(TpeConfig(startup_trials=8), "again", 20) == tpe[:20]
    assert search(TpeConfig(startup_trials=20), "later", 20) == random


def test_folders_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b?#ü%20"
    opened(folder).ask()
    assert (folder / STORAGE).is_file()
