"""Trials that share frozen features: asked for at once where none depends on the others, and fitted together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.test_search import LR, Bench, Stepwise, study

from headstart.config.schema.search import GridConfig, RandomConfig, TpeConfig, TrialsConfig
from headstart.sweep.preflight import shared_with


@dataclass
class Together(Stepwise):
    """One process at a time, with all the jobs that it is given."""

    units: list[tuple[str, ...]] = field(default_factory=list)

    def room(self) -> int:
        return 0 if self.epochs else 1

    def start(self, jobs: tuple[str, ...]) -> None:
        self.units.append(jobs)
        for job in jobs:
            super().start((job,))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "out" / "sweeps" / "s"
    folder.mkdir(parents=True)
    return Bench(folder)


def sizes(
    bench: Bench, search: TrialsConfig, monkeypatch: pytest.MonkeyPatch, *names: str, **more: Any
) -> list[int]:
    """How many jobs each process has had."""
    monkeypatch.setattr("tests.sweep.test_search.Stepwise", Together)
    arms = [study(name, together="x", trials_together="x", **more) for name in names or ("one",)]
    works = bench.run(search, *arms)
    assert isinstance(works, Together)
    assert all(bench.sweep.chosen[arm.id].trials == arm.trials for arm in arms)
    return [len(unit) for unit in works.units]


def test_a_grid_is_one_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"optimizer.lr": [0.1, 0.01, 0.001], "optimizer.weight_decay": [0.0, 0.1]}
    assert sizes(bench, GridConfig(seeds=[0, 1]), monkeypatch, "one", space=space) == [12, 3]


def test_arms_that_share_their_features_go_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes(bench, RandomConfig(), monkeypatch, "one", "two", trials=3) == [6, 6]


def test_tpe_draws_at_random_at_once_and_the_rest_one_after_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Bench(bench.output_dir / "other" / "sweeps" / "s")
    alone.folder.mkdir(parents=True)
    search = TpeConfig(startup_trials=4, seeds=[0, 1])
    alone.run(search, study(), slots=1)
    assert sizes(bench, search, monkeypatch) == [8, 2, 2, 3]
    assert [trial.params for trial in bench.trials()] == [trial.params for trial in alone.trials()]


def test_trials_that_may_be_stopped_wait_for_those_that_they_are_compared_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = RandomConfig(pruner="median", prune_after_trials=2)
    assert sizes(bench, search, monkeypatch) == [2, 4, 3]
    assert bench.sweep.chosen["one-0"].pruned > 0


def test_features_that_are_drawn_from_the_seed_are_shared_by_one_seed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sizes(
        bench, GridConfig(seeds=[0, 1]), monkeypatch, space={"optimizer.lr": [0.1, 0.01]}, trials=2, drawn=True
    )
    assert found == [2, 2, 1, 1, 1]
    assert len({job.together for job in bench.sweep.jobs}) == 3


def test_one_that_shares_nothing_is_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.sweep.test_search.Stepwise", Together)
    works = bench.run(RandomConfig(), replace(study(space=LR, trials=2)))
    assert isinstance(works, Together)
    assert {len(unit) for unit in works.units} == {1}


def test_what_jobs_share() -> None:
    assert shared_with("", True, 3, "k") == ""
    assert shared_with("x", False, 3) == shared_with("x", False, 4) == "x"
    assert shared_with("x", True, 3) == shared_with("x", True, 3)
    assert len({shared_with("x", True, 3), shared_with("x", True, 4), shared_with("x", False, 3, "k"), "x"}) == 4
