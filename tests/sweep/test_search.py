"""A search in a sweep: what its trials see, what is best, what is stopped, and that it goes on where it stopped."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from filelock import FileLock
from tests.conftest import TINY

from headstart.cli import main
from headstart.compare.comparison import compare_results
from headstart.compare.results import result_of_run
from headstart.compare.trials import tried
from headstart.config.compose import compose
from headstart.config.plain import to_plain
from headstart.config.schema.search import GridConfig, RandomConfig, TpeConfig, TrialsConfig
from headstart.errors import ConfigError, RecordError
from headstart.records.index import note_run
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, find_runs, new_run_folder, now, read_record, write_record
from headstart.records.studies import Study
from headstart.records.sweeps import (
    PRUNE,
    JobState,
    Sweep,
    SweepJob,
    job_folder,
    read_state,
    read_sweep,
    states_of,
    write_state,
    write_sweep,
)
from headstart.records.tables import METRICS, write_rows
from headstart.sweep.executor import Ended
from headstart.sweep.expand import expand
from headstart.sweep.plan import Planned, open_sweep, plan_sweep
from headstart.sweep.queue import Policy, Queue
from headstart.sweep.search import Search
from headstart.sweep.studies import check_metric, check_search, probes, studies_of

TrialState = optuna.trial.TrialState
EPOCHS = 5


def quality(config: dict[str, Any], epoch: int) -> float:
    """What a pretended training reaches: best at a rate of 0.01; seeds differ."""
    return epoch / 10 - abs(math.log10(config["optimizer"]["lr"]) + 2) / 10 + 0.003 * config["seed"]


@dataclass
class Stepwise:
    """An executor whose jobs train an epoch each time it is waited for, and leave what runs leave."""

    divides = False
    folder: Path
    output_dir: Path
    slots: int = 2
    dies: Callable[[dict[str, Any]], str | None] = lambda config: None
    stop_after: int | None = None
    epochs: dict[str, int] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    most: int = 0

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(self.epochs)

    def room(self) -> int:
        return self.slots - len(self.epochs)

    def start(self, jobs: tuple[str, ...]) -> None:
        (job,) = jobs
        if self.stop_after is not None and len(self.started) >= self.stop_after:
            raise KeyboardInterrupt
        self.started.append(job)
        self.epochs[job] = 0
        self.most = max(self.most, len(self.epochs))
        config = yaml.safe_load((job_folder(self.folder, job) / CONFIG).read_text())
        run = new_run_folder(self.output_dir, words=[job], digest="0" * 8)
        row = next(row for row in read_sweep(self.folder).jobs if row.id == job)
        record = RunRecord(
            id=run.name, status="running", config_hash="", job_key=row.key, arm=str(config["trainer"]["test"]), seed=config["seed"],
            split_seed=0, command=[], started=now(), config=config, data={"task": "multiclass"},
        )  # fmt: skip
        write_record(run, record)
        note_run(self.output_dir, row.key, run.name)
        write_state(self.folder, job, JobState("running", run.name, attempts=1, started=now()))

    def wait(self, seconds: float) -> list[Ended]:
        return [ended for job in list(self.epochs) if (ended := self._epoch(job))]

    def _epoch(self, job: str) -> Ended | None:
        state = read_state(self.folder, job)
        run = self.output_dir / "runs" / str(state.run)
        record = read_record(run)
        self.epochs[job] += 1
        done = self.epochs[job]
        metric = "val/accuracy_micro"
        rows = [{"epoch": e, "step": e, metric: quality(record.config, e)} for e in range(1, done + 1)]
        write_rows(run / METRICS, rows)
        status = "running"
        if (job_folder(self.folder, job) / PRUNE).exists():
            status = "pruned"
        elif reason := self.dies(record.config):
            status, state.kind, state.error = "failed", "exception", reason
        elif done == EPOCHS:
            status = "completed"
            record.metrics = {metric: quality(record.config, done)}
            if record.config["trainer"]["test"]:
                record.metrics["test/accuracy_micro"] = 0.5
        if status == "running":
            return None
        record.status = state.status = status
        write_record(run, record)
        write_state(self.folder, job, state)
        del self.epochs[job]
        return Ended(job, status)

    def stop(self, *, now: bool) -> None:
        self.epochs.clear()

    def close(self) -> None:
        self.epochs.clear()


LR = {"optimizer.lr": {"low": 1e-5, "high": 1.0, "log": True}}


def study(name: str = "one", *, space: dict[str, Any] = LR, trials: int = 6, **more: Any) -> Study:
    config = to_plain(compose([*TINY, "trainer.monitor=val/accuracy_micro"]))
    config.pop("output_dir")
    config["optimizer"]["weight_decay"] = 0.0 if name == "one" else 0.1
    return Study(
        f"{name}-0", name, name, space, config, copy.deepcopy(config), trials, **{"seeds": (0, 1, 2), **more}
    )


@dataclass
class Bench:
    """A sweep folder in which searches are launched again and again."""

    folder: Path

    @property
    def output_dir(self) -> Path:
        return self.folder.parent.parent

    def run(self, search: TrialsConfig, *studies: Study, policy: Policy = Policy(), **executor: Any) -> Stepwise:  # noqa: B008
        before = read_sweep(self.folder) if (self.folder / "sweep.json").exists() else None
        sweep = before or Sweep("s", (), now(), ())
        sweep = replace(
            sweep, studies=studies, search={"name": search.name, "seeds": search.seeds}, tuned=tuple(LR)
        )
        write_sweep(self.folder, sweep)
        works = Stepwise(self.folder, self.output_dir, **executor)
        with Search(self.folder, sweep, search, output_dir=self.output_dir) as feed:
            queue = Queue(
                self.folder, replace(sweep, jobs=()), works, output_dir=self.output_dir, policy=policy, feed=feed
            )
            with contextlib.suppress(KeyboardInterrupt):
                self.states = queue.run()
        return works

    @property
    def sweep(self) -> Sweep:
        return read_sweep(self.folder)

    def trials(self, study: str = "one-0") -> list[optuna.trial.FrozenTrial]:
        storage = f"sqlite:///{self.folder / 'search.db'}"
        return optuna.load_study(study_name=study, storage=storage).get_trials()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    folder = tmp_path / "out" / "sweeps" / "s"
    folder.mkdir(parents=True)
    return Bench(folder)


def direct(rates: list[float], seeds: list[int]) -> list[float]:
    """Each trial's objective, computed from the rates alone."""
    configs = [{"optimizer": {"lr": rate}, "seed": 0} for rate in rates]
    return [statistics.mean(quality({**config, "seed": seed}, EPOCHS) for seed in seeds) for config in configs]


@pytest.mark.parametrize("search", [RandomConfig(seeds=[3, 5]), GridConfig(seeds=[3, 5])], ids=lambda one: one.name)
def test_the_best_mean_over_the_seeds_is_run_with_all_seeds_and_tested(bench: Bench, search: TrialsConfig) -> None:
    space = {"optimizer.lr": [1e-4, 0.02, 0.5]} if search.name == "grid" else LR
    arms = [study(name, space=space, trials=3) for name in ("one", "two")]
    works = bench.run(search, *arms)
    sweep = bench.sweep
    for arm in arms:
        rows = [job for job in sweep.jobs if job.study == arm.id]
        trials, answers = [job for job in rows if job.trial is not None], [job for job in rows if job.trial is None]
        rates = [next(j.tuned["optimizer.lr"] for j in trials if j.trial == number) for number in range(3)]
        values = direct(rates, [3, 5])
        chosen = sweep.chosen[arm.id]
        assert chosen.trial == values.index(max(values))
        assert chosen.value == pytest.approx(max(values))
        assert (chosen.trials, chosen.failed, chosen.pruned) == (3, 0, 0)
        if search.name == "random":
            assert [trial.value for trial in bench.trials(arm.id)] == pytest.approx(values)
        assert len(trials) == 6
        assert [job.tuned for job in answers] == [chosen.tuned] * 3
        for job in rows:
            config = yaml.safe_load((job_folder(bench.folder, job.id) / CONFIG).read_text())
            assert config["trainer"]["test"] is (job.trial is None)
            assert config["optimizer"]["lr"] == job.tuned["optimizer.lr"]
            assert config["seed"] in ((3, 5) if job.trial is not None else (0, 1, 2))
    assert sweep.answers == tuple(job for job in sweep.jobs if job.trial is None)
    assert works.most == 2
    # the arms take turns
    assert [sorted({job.partition("-")[0] for job in works.started[i : i + 4]}) for i in (0, 4, 8)] == [
        ["one", "two"]
    ] * 3
    assert sweep.to_come == 0
    # nothing is left to do; more trials are more of the same, and what they find is what is compared
    assert bench.run(search, *arms).started == []
    if search.name == "random":
        before = {job.id for job in sweep.jobs}
        bench.run(search, *(replace(arm, trials=8) for arm in arms))
        for arm in arms:
            rates = [t.params["optimizer.lr"] for t in bench.trials(arm.id)]
            values = direct([float(f"{rate:.6g}") for rate in rates], [3, 5])
            assert bench.sweep.chosen[arm.id].trial == values.index(max(values))
            assert bench.sweep.chosen[arm.id].trials == 8
        assert before < {job.id for job in bench.sweep.jobs}
        assert len([job for job in bench.sweep.answers if job.study == "one-0"]) == 3


def test_trials_that_are_to_be_trained_on_all_later_are_judged_by_their_last_weights(bench: Bench) -> None:
    config = to_plain(compose([*TINY, "trainer.monitor=val/accuracy_micro", "data.refit_on_val=true"]))
    config.pop("output_dir")
    one = study(space={"optimizer.lr": [0.1, 0.01]}, trials=2)
    bench.run(GridConfig(), replace(one, config=config, trial_config=config))
    found = {}
    for job in bench.sweep.jobs:
        config = yaml.safe_load((job_folder(bench.folder, job.id) / CONFIG).read_text())
        found[job.trial is not None] = (
            config["data"]["refit_on_val"],
            config["trainer"]["checkpoint"],
            config["trainer"]["test"],
        )
    assert found[True] == (False, "last", False)
    assert found[False][0] is True
    assert found[False][2] is True


def test_a_crashed_trial_is_failed_and_tried_again_by_the_next_launch(bench: Bench) -> None:
    search = RandomConfig(pruner="median", prune_after_trials=1)
    probe = Bench(bench.output_dir / "other" / "sweeps" / "s")
    probe.folder.mkdir(parents=True)
    probe.run(RandomConfig(), study())
    rates = [float(f"{trial.params['optimizer.lr']:.6g}") for trial in probe.trials()]
    best = max(range(6), key=lambda i: direct(rates, [0])[i])

    def dies(config: dict[str, Any]) -> str | None:
        return "planted" if not config["trainer"]["test"] and config["optimizer"]["lr"] == rates[best] else None

    bench.run(search, study(), dies=dies)
    states = {int(t.user_attrs["trial"]): t.state for t in bench.trials()}
    assert states[best] == TrialState.FAIL
    assert bench.sweep.chosen["one-0"].failed == 1
    assert not bench.sweep.is_answered, "exit status 3"
    assert bench.sweep.chosen["one-0"].trial != best
    assert [state.status for state in bench.states.values()].count("failed") == 1
    works = bench.run(search, study())
    assert [name for name in works.started if "trial" in name] == [f"one-trial{best}-s0-{name_key(bench, best)}"]
    assert bench.sweep.chosen["one-0"].trial == best
    assert bench.sweep.chosen["one-0"].failed == 0
    assert {job.tuned["optimizer.lr"] for job in bench.sweep.answers} == {rates[best]}, (
        "the old answer is no answer now"
    )


def name_key(bench: Bench, trial: int) -> str:
    return next(job.key[:8] for job in bench.sweep.jobs if job.trial == trial)


def test_a_retried_job_is_no_failed_trial(bench: Bench) -> None:
    tries: list[float] = []

    def dies(config: dict[str, Any]) -> str | None:
        tries.append(config["optimizer"]["lr"])
        return "planted" if len(tries) == 1 else None

    class Kills(Stepwise):
        def wait(self, seconds: float) -> list[Ended]:
            found = super().wait(seconds)
            for ended in found:
                if ended.result == "failed":
                    state = read_state(self.folder, ended.job)
                    state.kind = "killed"
                    write_state(self.folder, ended.job, state)
            return found

    search, one = RandomConfig(), study(trials=2)
    sweep = Sweep("s", (), now(), (), studies=(one,), search={"name": "random", "seeds": [0]})
    write_sweep(bench.folder, sweep)
    works = Kills(bench.folder, bench.output_dir, dies=dies)
    with Search(bench.folder, sweep, search, output_dir=bench.output_dir) as feed:
        Queue(bench.folder, sweep, works, output_dir=bench.output_dir, policy=Policy(retries=1), feed=feed).run()
    assert [trial.state for trial in bench.trials()] == [TrialState.COMPLETE] * 2
    assert bench.sweep.chosen["one-0"].failed == 0


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_pruned_trials_stop_early_and_are_never_chosen(bench: Bench, seeds: list[int]) -> None:
    search = RandomConfig(seeds=seeds, pruner="median", prune_after_trials=2, prune_after_epochs=2)
    bench.run(search, study(trials=12), slots=1)
    by_number = {int(t.user_attrs["trial"]): t for t in bench.trials()}
    pruned = {number for number, t in by_number.items() if t.state == TrialState.PRUNED}
    assert 2 <= len(pruned) <= 10
    assert bench.sweep.chosen["one-0"].pruned == len(pruned)
    states = states_of(bench.folder, bench.sweep.jobs)
    for job in bench.sweep.jobs:
        if job.trial in pruned:
            first = f"-s{seeds[0]}-" in job.id
            assert states[job.id].status == "pruned"
            assert (states[job.id].run is not None) == first, "the seeds that waited are dropped"
            if first:
                rows = (bench.output_dir / "runs" / str(states[job.id].run) / METRICS).read_text().splitlines()
                assert 2 <= len(rows) - 1 < EPOCHS
        else:
            assert states[job.id].status == "completed"
    values = [t.value for t in by_number.values() if t.state == TrialState.COMPLETE]
    assert bench.sweep.chosen["one-0"].value == pytest.approx(max(value for value in values if value is not None))
    # completed and pruned alike are over
    assert bench.run(search, study(trials=12)).started == []


@pytest.mark.parametrize(
    "search",
    [
        pytest.param(RandomConfig(seeds=[0, 1]), marks=pytest.mark.slow),
        TpeConfig(startup_trials=2),
        pytest.param(GridConfig(), marks=pytest.mark.slow),
    ],
    ids=lambda one: one.name,
)
def test_interrupted_anywhere_it_ends_as_if_it_had_not_been(tmp_path: Path, search: TrialsConfig) -> None:
    space = {"optimizer.lr": [1e-4, 0.02, 0.5, 0.1, 1e-3, 0.7]} if search.name == "grid" else LR
    whole = Bench(tmp_path / "whole" / "sweeps" / "s")
    whole.folder.mkdir(parents=True)
    whole.run(search, study(space=space), slots=1)
    for stop in (1, 4, 7):
        broken = Bench(tmp_path / f"broken{stop}" / "sweeps" / "s")
        broken.folder.mkdir(parents=True)
        broken.run(search, study(space=space), slots=1, stop_after=stop)
        broken.run(search, study(space=space), slots=1)
        assert broken.sweep.chosen == whole.sweep.chosen
        assert [(job.id, job.trial) for job in broken.sweep.jobs] == [
            (job.id, job.trial) for job in whole.sweep.jobs
        ]
        assert {state.status for state in states_of(broken.folder, broken.sweep.jobs).values()} == {"completed"}


def test_values_that_do_not_go_together_are_a_failed_trial(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"trainer.max_epochs": [None, 3], "trainer.max_steps": [None, 7]}
    bench.run(RandomConfig(), study(space=space, trials=8))
    said = capsys.readouterr().err
    failed = bench.sweep.chosen["one-0"].failed
    assert failed
    assert said.count("cannot be: trainer.max_epochs and trainer.max_steps are both set") == failed
    assert "one trial" in said


def test_a_trial_of_which_a_seed_failed_is_no_dot_in_the_picture(bench: Bench) -> None:
    def dies(config: dict[str, Any]) -> str | None:
        return "planted" if config["optimizer"]["lr"] == 0.1 and config["seed"] == 4 else None

    search = GridConfig(seeds=[3, 4])
    bench.run(search, study(space={"optimizer.lr": [0.1, 0.01]}, trials=2), dies=dies)
    (dot,) = tried(bench.folder)["one-0"]
    assert dot.tuned == {"optimizer.lr": 0.01}
    assert dot.value == pytest.approx(direct([0.01], [3, 4])[0])


def test_another_space_is_another_sweep_and_more_trials_are_not(tmp_path: Path) -> None:
    def planned(*words: str) -> Planned:
        found = jobs("search=random", "sweep.name=mine", *words)
        tried = probes(found)
        own, of_probes = (
            [_checked(job.config) for job in found.jobs],
            [_checked(probe.job.config) for probe in tried],
        )
        studies = studies_of(found, own, tried, of_probes)
        return plan_sweep(found, own, command=[], output_dir=tmp_path, studies=studies)

    open_sweep(planned("optimizer.lr=interval(0.1,0.2)", "seed=0,1"))
    _, grown = open_sweep(planned("optimizer.lr=interval(0.1,0.2)", "search.trials=30", "seed=0,2"))
    assert [(one.trials, one.seeds) for one in grown.studies] == [(30, (0, 1, 2))]
    for words in (["optimizer.lr=interval(0.1,0.3)"], ["optimizer.lr=interval(0.1,0.2)", "search.seeds=[7]"]):
        with pytest.raises(ConfigError, match="another fixed part"):
            open_sweep(planned(*words, "seed=0,1"))


def test_one_launch_at_a_time_is_at_a_search(bench: Bench) -> None:
    with FileLock(bench.folder / ".search"), pytest.raises(ConfigError, match="another launch is at this search"):
        bench.run(RandomConfig(), study())


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (RandomConfig(metric="val/acuracy_micro"), "there is no such metric of a multiclass task. Did you mean 'val/accuracy_micro'?"),
        (RandomConfig(metric="val/map_macro"), "there is no such metric of a multiclass task."),
        (RandomConfig(metric="test/accuracy_micro"), "trials are not tested."),
        (GridConfig(direction="minimize"), "search.direction=minimize: of val/accuracy_micro, more is better; say maximize, or auto."),
        (TpeConfig(metric="val/log_loss", direction="maximize"), "of val/log_loss, less is better; say minimize, or auto."),
    ],
)  # fmt: skip
def test_a_metric_or_direction_that_cannot_be_is_refused(search: TrialsConfig, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_metric(search, task="multiclass", classes=10, monitor="val/accuracy_micro")
    assert said in str(error.value)


def test_less_of_a_loss_is_better(bench: Bench) -> None:
    right = RandomConfig(metric="val/log_loss", direction="minimize")
    check_metric(right, task="multiclass", classes=10, monitor="val/accuracy_micro")
    with Search(bench.folder, _written(bench, right), right, output_dir=bench.output_dir):
        storage = f"sqlite:///{bench.folder / 'search.db'}"
        assert (
            optuna.load_study(study_name="one-0", storage=storage).direction == optuna.study.StudyDirection.MINIMIZE
        )


def _written(bench: Bench, search: TrialsConfig) -> Sweep:
    sweep = Sweep("s", (), now(), (), studies=(study(),), search={"name": search.name, "seeds": search.seeds})
    write_sweep(bench.folder, sweep)
    return sweep


def jobs(*words: str) -> Any:
    return expand([*TINY, *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search=tpe"], "search=tpe: there is nothing to tune; say what in sweep.tune"),
        (["optimizer.lr=interval(0.1,0.2)"], "optimizer.lr: is to be tuned, but nothing searches"),
    ],
)
def test_a_search_without_a_space_and_a_space_without_a_search_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_search(jobs(*words))
    assert said in str(error.value)


def words_of(*overrides: str) -> list[str]:
    keys = {text.partition("=")[0] for text in overrides}
    return [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]


def launch(*overrides: str, without: str = "") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    words = [word for word in words_of(*overrides) if not without or not word.startswith(without)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["train", "-m", *words])
    return status, out.getvalue(), err.getvalue()


SEARCH = ("search=random", "search.trials=2", "optimizer.lr=tag(log,interval(0.001,0.03))", "optimizer=sgd")


@pytest.mark.slow
def test_a_search_for_real(run_tiny: Any) -> None:
    """Trials have no test, their objective is what their records say, and what they find is tested once per seed."""
    status, out, err = launch(*SEARCH, "seed=0,1", "search.seeds=[0,1]", "strategy=full,linear_probe")
    assert status == 0, err
    (folder,) = Path("outputs/sweeps").iterdir()
    sweep = read_sweep(folder)
    assert (sweep.compared, sweep.tuned) == (("strategy",), ("optimizer.lr",))
    states = states_of(folder, sweep.jobs)
    assert [job.trial for job in sweep.jobs].count(None) == 4
    found: dict[tuple[str, int], list[float]] = {}
    for job in sweep.jobs:
        run = Path("outputs/runs") / str(states[job.id].run)
        record = read_record(run)
        tested = [key for key in record.metrics if key.startswith("test/")]
        if job.trial is None:
            assert tested
            assert record.predictions_sha256
            assert (run / "checkpoints" / "best.safetensors").exists()
        else:
            assert not tested
            assert record.predictions_sha256 is None
            assert not (run / "predictions.parquet").exists()
            assert not (run / "checkpoints").exists(), "its weights are of no use"
            found.setdefault((str(job.study), job.trial), []).append(
                float(record.metrics["val/accuracy_micro"] or 0)
            )
    assert len(found) == 4
    for arm in sweep.studies:
        chosen = sweep.chosen[arm.id]
        values = [statistics.mean(found[arm.id, number]) for number in range(2)]
        assert chosen.value == pytest.approx(max(values), abs=1e-12)
        assert chosen.trial == values.index(max(values))
        assert sorted(one.value for one in tried(folder)[arm.id]) == pytest.approx(sorted(values))
    assert "8 runs without a test left out" not in out, "a sweep's trials are no part of its answer"
    assert out.count("trials.png") == 1
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    # a plain run with what was found is the same run
    best = sweep.chosen[sweep.studies[0].id]
    _, record = run_tiny("optimizer=sgd", f"optimizer.lr={best.tuned['optimizer.lr']}", "strategy=full", "seed=1")
    mine = next(job for job in sweep.answers if job.study == sweep.studies[0].id and "seed=1" in job.varied)
    assert record.job_key == mine.key
    assert (
        record.predictions_sha256 == read_record(Path("outputs/runs") / str(states[mine.id].run)).predictions_sha256
    )
    # all runs together: the trials are left out, or scratch would have many baselines
    everything = [one for _, one in find_runs([Path("outputs")])[0]]
    notes = compare_results([result_of_run(None, record) for record in everything]).notes
    assert "8 runs without a test left out (trainer.test=false: trials)." in notes
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(["plan", "-m", *words_of(*SEARCH, "seed=0,1,2", "search.seeds=[0,1]", "strategy=full,linear_probe")])
    assert "jobs       14: 8 of trials, then 6 that run and test what was found; 12 done already" in out.getvalue()
    # again: nothing to do, and one more seed is one more run of each arm
    count = len(everything)
    status, _, _ = launch(
        *SEARCH, "seed=0,1,2", "search.seeds=[0,1]", "strategy=full,linear_probe", "search.keep_weights=true"
    )
    assert status == 0
    assert len(find_runs([Path("outputs")])[0]) == count + 2


@pytest.mark.slow
def test_a_trial_that_is_stopped_for_real_leaves_its_history_and_says_so() -> None:
    """Rates of which one half learns: the median rule stops the other, and the runs say `pruned`."""
    status, out, err = launch(
        "search=random", "search.trials=6", "search.pruner=median", "search.prune_after_trials=1", "optimizer=sgd",
        "optimizer.lr=tag(log,interval(1e-9,1.0))", "trainer.max_epochs=25", "launcher.workers=1", "search.keep_weights=true",
        "search.metric=val/log_loss",
    )  # fmt: skip
    assert status == 0, err
    (folder,) = Path("outputs/sweeps").iterdir()
    sweep = read_sweep(folder)
    states = states_of(folder, sweep.jobs)
    pruned = [job for job in sweep.jobs if states[job.id].status == "pruned"]
    assert sweep.chosen[sweep.studies[0].id].pruned == len(pruned) > 0
    for job in pruned:
        run = Path("outputs/runs") / str(states[job.id].run)
        record = read_record(run)
        assert record.status == "pruned"
        assert "other trials were better by then" in str(record.error)
        assert 1 <= len((run / METRICS).read_text().splitlines()) - 1 < 25
        assert not (run / "checkpoints" / "last.ckpt").exists()
    assert "pruned" in out
    done = next(job for job in sweep.jobs if job.trial is not None and job not in pruned)
    assert (Path("outputs/runs") / str(states[done.id].run) / "checkpoints" / "best.safetensors").exists()


def test_a_trial_that_diverges_is_failed_and_the_sweep_says_so() -> None:
    """A crash is no bad value and no pruning: the database says FAIL, the exit status 3."""
    Path("conf/sweep").mkdir(parents=True)
    Path("conf/sweep/hot.yaml").write_text(
        "# @package _global_\ndefaults: [override /search: random]\nsweep: {tune: {optimizer.lr: [0.01, 1.0e+13]}}\n"
    )
    words = ("sweep=hot", "optimizer=sgd", "trainer.max_epochs=2", "search.trials=5", "search.pruner=median")
    status, out, err = launch(*words)
    assert status == 3
    (folder,) = Path("outputs/sweeps").iterdir()
    trials = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'search.db'}").get_trials()
    assert {t.params["optimizer.lr"]: t.state for t in trials} == {0.01: TrialState.COMPLETE, 1e13: TrialState.FAIL}
    assert "not finite at step" in err
    assert "optimizer.lr=0.01" in out
    assert "test/accuracy_micro" in out


def test_what_a_trial_cannot_be_is_said_before_the_first() -> None:
    Path("conf/sweep").mkdir(parents=True)
    Path("conf/sweep/bad.yaml").write_text(
        "# @package _global_\ndefaults: [override /search: tpe]\n"
        "sweep: {tune: {data.batch_size: [10, 5], strategy.k: [1, 99]}, list: [{strategy: last_k}]}\n"
    )
    status, _, err = launch("sweep=bad")
    assert status == 2
    assert "strategy.k=99" in err
    assert not Path("outputs").exists()


def test_the_shipped_search_is_planned_with_equal_trials() -> None:
    found = jobs("sweep=tune_then_repeat")
    assert len(found.jobs) == 15
    tried = probes(found)
    arms = studies_of(
        found, [_checked(job.config) for job in found.jobs], tried, [_checked(probe.job.config) for probe in tried]
    )
    assert [(arm.name, arm.trials, len(arm.seeds)) for arm in arms] == [
        ("from scratch", 20, 5),
        ("fine-tuned", 20, 5),
        ("linear probe", 20, 5),
    ]


def _checked(config: Any) -> Any:
    from headstart.sweep.preflight import Checked

    return Checked(key="", config=to_plain(config))


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_a_key_that_decides_another_is_refused() -> None:
    """Milestones of gradual unfreezing follow the epochs: with other epochs they would be others, unsaid."""
    Path("conf/sweep").mkdir(parents=True)
    Path("conf/sweep/late.yaml").write_text(
        "# @package _global_\ndefaults: [override /search: grid]\n"
        "sweep: {tune: {trainer.max_epochs: [4, 20]}, list: [{strategy: gradual}]}\n"
    )
    status, _, err = launch("sweep=late", without="trainer.max_epochs")
    assert status == 2
    assert "sweep.tune.trainer.max_epochs: decides strategy.normalization, strategy.milestones, " in err


@pytest.mark.slow
def test_vtab1k_trains_on_all_what_it_found_on_800() -> None:
    """The shipped protocol with a tenth of the images and steps."""
    words = (
        "sweep=vtab1k", "data.train_size=80", "data.val_size=20", "data.test_size=50", "data.image_size=32",
        "trainer.max_steps=4", "schedule.milestones=[1,2,3]", "schedule.warmup_steps=1", "data.batch_size=20", "seed=0",
    )  # fmt: skip
    status, _, err = launch(*words, without="trainer.max_epochs")
    assert status == 0, err
    (folder,) = Path("outputs/sweeps").iterdir()
    sweep = read_sweep(folder)
    states = states_of(folder, sweep.jobs)
    sizes = {}
    for job in sweep.jobs:
        record = read_record(Path("outputs/runs") / str(states[job.id].run))
        sizes.setdefault(job.trial is not None, set()).add(
            (record.data["sizes"]["train"], record.data["sizes"]["val"])
        )
        assert record.steps == 4
        assert any(key.startswith("test/") for key in record.metrics) == (job.trial is None)
    assert sizes[True] == {(80, 20)}
    assert {train for train, _ in sizes[False]} == {100}
    assert [job.trial for job in sweep.jobs] == [0, 0, 1, 1, 2, 2, 3, 3, None, None]


@pytest.mark.slow
def test_kornblith_whole_with_two_steps_for_each_trial() -> None:
    """All 112 trials and six answers of two arms: the settings are the published ones, whichever ends best."""
    words = ("sweep=kornblith", "trainer.max_steps=2", "data.batch_size=25", "data.image_size=32", "seed=0,1")
    status, _, err = launch(*words, without="trainer.max_epochs")
    (folder,) = Path("outputs/sweeps").iterdir()
    sweep = read_sweep(folder)
    assert status == 0, err[-3000:]
    assert {chosen.trials for chosen in sweep.chosen.values()} == {56}
    tried_ = {
        study.name: {job.tuned["optimizer.lr"] for job in sweep.jobs if job.study == study.id}
        for study in sweep.studies
    }
    assert {name: (min(rates), max(rates), len(rates)) for name, rates in tried_.items()} == {
        "fine-tuned": (1e-4, 1e-1, 7), "linear probe": (1e-4, 1e-1, 7), "from scratch": (1e-3, 1.0, 7),
    }  # fmt: skip


def test_a_trial_that_somebody_stops_is_for_the_next_launch(bench: Bench) -> None:
    """A SIGTERM to one job leaves it interrupted: the queue ends, nothing is told, and the next launch goes on."""

    class Stops(Stepwise):
        def wait(self, seconds: float) -> list[Ended]:
            if len(self.started) == 3 and self.epochs:
                job = self.running[-1]
                del self.epochs[job]
                state = read_state(self.folder, job)
                state.status = "interrupted"
                write_state(self.folder, job, state)
                self.started.append("")
                return [Ended(job, "interrupted")]
            return super().wait(seconds)

    search, one = RandomConfig(), study()
    sweep = Sweep("s", (), now(), (), studies=(one,), search={"name": "random", "seeds": [0]})
    write_sweep(bench.folder, sweep)
    works = Stops(bench.folder, bench.output_dir, slots=1)
    with Search(bench.folder, sweep, search, output_dir=bench.output_dir) as feed:
        Queue(bench.folder, sweep, works, output_dir=bench.output_dir, policy=Policy(), feed=feed).run()
    assert [trial.state for trial in bench.trials()].count(TrialState.RUNNING) == 1
    assert not bench.sweep.chosen
    bench.run(search, one)
    assert bench.sweep.chosen["one-0"].trials == 6


def test_where_no_trial_completes_nothing_is_chosen_and_nothing_is_to_come(bench: Bench) -> None:
    bench.run(GridConfig(), study(space={"optimizer.lr": [0.1, 0.2]}, trials=2), dies=lambda config: "planted")
    chosen = bench.sweep.chosen["one-0"]
    assert (chosen.trial, chosen.value, chosen.failed) == (None, None, 2)
    assert (bench.sweep.to_come, bench.sweep.is_answered, bench.sweep.answers) == (0, False, ())


def test_a_trial_that_ended_while_its_launch_was_gone_counts_for_what_is_drawn_next(
    bench: Bench, tmp_path: Path
) -> None:
    """The launcher is killed, its last job ends by itself: TPE draws on as if it had been there."""
    search, one = TpeConfig(startup_trials=2), study()
    whole = Bench(tmp_path / "whole" / "sweeps" / "s")
    whole.folder.mkdir(parents=True)
    whole.run(search, one, slots=1)
    works = bench.run(search, one, slots=1, stop_after=4)
    last = works.started[-1]
    # as after a kill between the job's end and the next look: Optuna does not know of it
    number = next(job.trial for job in bench.sweep.jobs if job.id == last)
    storage = optuna.storages.RDBStorage(f"sqlite:///{bench.folder / 'search.db'}")
    trial = next(t for t in bench.trials() if t.user_attrs.get("trial") == number)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"update trials set state='RUNNING' where trial_id={trial._trial_id}")
        connection.exec_driver_sql(f"delete from trial_values where trial_id={trial._trial_id}")
        connection.exec_driver_sql("delete from trials where number > " + str(trial.number))
    bench.run(search, one, slots=1)
    assert [t.params for t in bench.trials()] == [t.params for t in whole.trials()]


def test_another_sweeps_pruned_run_is_no_start_for_a_job(tmp_path: Path) -> None:
    from headstart.sweep.job import unfinished

    run = new_run_folder(tmp_path, words=["a"], digest="0" * 8)
    config = to_plain(compose(TINY))
    record = RunRecord(run.name, "pruned", "", "k" * 40, "", 0, 0, [], now(), config)
    for status, found in (("pruned", None), ("interrupted", run)):
        record.status = status
        write_record(run, record)
        note_run(tmp_path, "k" * 40, run.name)
        assert unfinished(tmp_path, SweepJob("a", "k" * 40, ""), JobState()) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search.seeds=[]"], "search.seeds=[]: must be seeds, each once."),
        (["search.seeds=[1,1]"], "search.seeds=[1, 1]: must be seeds, each once."),
        (["trainer.test=false"], "trainer.test=false: is for trials"),
    ],
)
def test_searches_that_would_measure_nothing_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_search(jobs("search=random", "optimizer.lr=interval(0.1,0.2)", *words))
    assert said in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"search": None},
        {"search": {"name": "random", "seeds": 3}},
        {"studies": [{"config": {}}]},
        {"jobs": [{"id": "..", "key": "k", "varied": ""}]},
        {"jobs": [{"id": "/etc", "key": "k", "varied": ""}]},
    ],
)
def test_a_damaged_or_hostile_definition_is_said(bench: Bench, change: dict[str, Any]) -> None:
    bench.run(GridConfig(), study(space={"optimizer.lr": [0.1, 0.2]}, trials=2))
    path = bench.folder / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RecordError, match=r"sweep\.json: is damaged"):
        read_sweep(bench.folder)


def test_a_damaged_storage_is_said(bench: Bench) -> None:
    bench.run(RandomConfig(), study(trials=1))
    (bench.folder / "search.db").write_bytes(b"no database" * 100)
    with pytest.raises(RecordError, match=r"search\.db: cannot be used"):
        bench.run(RandomConfig(), study(trials=1))
