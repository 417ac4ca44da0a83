"""A search inside a sweep: asks for trials, turns them into jobs, chooses the best, and has it run and tested."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from headstart.config.checks import lower_is_better
from headstart.config.schema.search import DrawnConfig, TrialsConfig
from headstart.errors import ConfigError
from headstart.records.index import completed_run
from headstart.records.store import metric_of, now
from headstart.records.studies import Study
from headstart.records.sweeps import (
    DONE,
    ENDED,
    PRUNE,
    JobState,
    Sweep,
    SweepJob,
    job_folder,
    read_state,
    read_sweep,
    with_jobs,
    write_state,
    write_sweep,
)
from headstart.records.tables import METRICS, read_rows
from headstart.sweep.plan import freeze, settle
from headstart.sweep.space import Space, applied, read_space
from headstart.sweep.studies import answer_rows, searched_metric, trial_rows
from headstart.sweep.trials import GridTrials, Told, Trial, Trials, best_of

States = dict[str, JobState]
_LOCK = ".search"


@dataclass
class _Study:
    """A study at work."""

    study: Study
    space: Space
    trials: Trials
    metric: str
    open: dict[int, tuple[Mapping[str, Any], list[str]]] = field(default_factory=dict)
    """Trials that are not over: what was drawn, and their jobs, one per seed."""
    asked_all: bool = False
    sent: dict[int, int] = field(default_factory=dict)
    """How many epochs of each trial have been reported."""
    left_open: bool = False
    """Whether a trial was stopped and is for the next launch."""


class Search:
    """Feeds the queue of a sweep. One launch at a time is at a search; `with` holds the place."""

    def __init__(self, folder: Path, sweep: Sweep, config: TrialsConfig, *, output_dir: Path) -> None:
        self.folder, self.output_dir, self.config = folder, output_dir, config
        self.sweep = sweep
        self._lock = FileLock(folder / _LOCK, timeout=0)
        self._studies: list[_Study] = []
        self._answers: list[str] = []
        """Jobs that test what was found, and that the queue has not been given yet."""

    def __enter__(self) -> Search:
        try:
            self._lock.acquire()
        except Timeout:
            raise _taken(self.sweep.name) from None
        try:
            self._reopen()
            self._studies = [self._begin(study) for study in self.sweep.studies]
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def done(self) -> bool:
        """Whether nothing more will be asked for."""
        return not self._answers and all(one.asked_all and not one.open for one in self._studies)

    def ask(self, states: States, busy: Set[str], *, most: int) -> list[SweepJob]:
        """More jobs for the queue; none where trials must end first, or all has been asked for.

        Studies take turns, so that all arms get on. Trials that may be fitted together are asked for at once, up to
        `most` jobs, as far as none depends on what becomes of the others. `states` gets those of the new jobs.
        """
        rows = self._ask(states, busy, lambda one: True)
        while rows and len(rows) < most and all(row.together and row.trial is not None for row in rows):
            more = self._ask(states, busy | {row.id for row in rows}, _is_ahead)
            if not more:
                break
            rows += more
        return rows

    def _ask(self, states: States, busy: Set[str], may: Callable[[_Study], bool]) -> list[SweepJob]:
        """The jobs of the next trial of a study that `may` go on, or those that test what was found."""
        while True:
            if self._answers:
                rows = [job for job in self.sweep.jobs if job.id in self._answers]
                self._answers = []
                return self._given(rows, states)
            waiting = [one for one in self._studies if not one.asked_all and may(one)]
            if not waiting:
                return []
            one = min(waiting, key=lambda study: len(study.open) + len(study.trials.told()))
            trial = one.trials.ask()
            if trial is None:
                one.asked_all = True
                self._close(one)
                continue
            rows = self._begun(one, trial, states)
            fresh = {job.id for job in rows if job.id not in busy and states[job.id].status not in DONE}
            self.watch(states, busy | fresh)
            if fresh:
                return rows

    def resumed(self, states: States) -> list[SweepJob]:
        """Jobs of trials that earlier launches have finished or begun."""
        rows = []
        for one in self._studies:
            told = one.trials.told()
            before = [job for job in self.sweep.jobs if job.study == one.study.id and job.trial in told]
            rows += self._given([job for job in before if read_state(self.folder, job.id).status in DONE], states)
            for trial in one.trials.open():
                rows += self._begun(one, trial, states)
        return rows

    def watch(self, states: States, busy: Set[str]) -> None:
        """Look at the trials that run: stop those that are no good, and take down those that are over."""
        for one in self._studies:
            for number, (drawn, jobs) in list(one.open.items()):
                if isinstance(self.config, DrawnConfig) and self.config.pruner != "none":
                    self._prune(one, number, jobs, states)
                statuses = {states[job].status for job in jobs}
                if any(job in busy and states[job].status not in DONE for job in jobs):
                    continue  # what failed and is busy is tried again
                if not statuses <= set(ENDED):  # stopped by somebody: the next launch goes on with it
                    del one.open[number]
                    one.left_open = True
                    continue
                one.trials.tell(number, self._told(one, drawn, [states[job] for job in jobs]))
                del one.open[number]
                self._close(one)

    def _reopen(self) -> None:
        """Forget what was found where there are to be more trials now."""
        with FileLock(self.folder / ".lock"):
            sweep = read_sweep(self.folder)
            wanted = {study.id: study.trials for study in self.sweep.studies}
            kept = {
                id: one
                for id, one in sweep.chosen.items()
                if one.trial is not None and one.trials >= wanted.get(id, 0)
            }
            if kept != sweep.chosen:
                write_sweep(self.folder, replace(sweep, chosen=kept))
            self._now_on_disk(replace(sweep, chosen=kept))

    def _now_on_disk(self, sweep: Sweep) -> None:
        """Take over what the folder has by now; the studies stay those that this launch is about."""
        self.sweep = replace(sweep, studies=self.sweep.studies)

    def _begin(self, study: Study) -> _Study:
        space = read_space(study.space, where=f"study {study.id}")
        metric = searched_metric(self.config, str(study.config["trainer"]["monitor"]))
        if isinstance(self.config, DrawnConfig):
            from headstart.sweep.optuna_trials import OptunaTrials

            trials: Trials = OptunaTrials(
                self.folder,
                study=study.id,
                space=space,
                search=self.config,
                trials=study.trials,
                minimize=lower_is_better(metric),
            )
        else:
            trials = GridTrials(space)
        return _Study(study, space, trials, metric)

    def _begun(self, one: _Study, trial: Trial, states: States) -> list[SweepJob]:
        """The jobs of a trial, their configs frozen; there already where another trial had the same values.

        There are none where the values do not go together: that is a failed trial.
        """
        tuned = applied(one.space, trial.drawn)
        try:
            rows = trial_rows(
                one.study, trial.number, tuned, seeds=self.config.seeds, output_dir=str(self.output_dir)
            )
        except ConfigError as error:
            print(
                f"{one.study.varied} trial {trial.number} cannot be: {error}".strip(), file=sys.stderr, flush=True
            )
            one.trials.tell(trial.number, Told(trial.drawn, "failed"))
            return []
        jobs = self._frozen(rows)
        one.open[trial.number] = (trial.drawn, [job.id for job in jobs])
        for job in jobs:
            if read_state(self.folder, job.id).status == "failed":  # once more, and from its first epoch
                (job_folder(self.folder, job.id) / PRUNE).unlink(missing_ok=True)
        return self._given(jobs, states)

    def _frozen(self, rows: Sequence[tuple[SweepJob, dict[str, Any]]]) -> list[SweepJob]:
        """The jobs as the sweep has them, on disk before they are given to anybody."""
        with FileLock(self.folder / ".lock"):
            sweep = with_jobs(read_sweep(self.folder), [row for row, _ in rows])
            by_key = {(job.key, job.name): job for job in sweep.jobs}
            jobs = [by_key[row.key, row.name] for row, _ in rows]
            for job, (_, config) in zip(jobs, rows, strict=True):
                freeze(self.folder, job.id, config)
            if sweep.jobs != self.sweep.jobs:
                write_sweep(self.folder, sweep)
            self._now_on_disk(sweep)
        return jobs

    def _given(self, rows: Sequence[SweepJob], states: States) -> list[SweepJob]:
        """The same jobs; what became of them before, by whichever sweep, is in `states` then."""
        for job in rows:
            if job.id not in states:
                states[job.id] = settle(self.folder, job.id, completed_run(self.output_dir, job.key))
        return list(rows)

    def _prune(self, one: _Study, number: int, jobs: Sequence[str], states: States) -> None:
        """Report the curve of the trial's first seed; where Optuna says so, stop what runs and drop what waits."""
        state = states[jobs[0]] if states[jobs[0]].status != "running" else read_state(self.folder, jobs[0])
        if state.run is None or any(states[job].status == "pruned" for job in jobs):
            return
        path = self.output_dir / "runs" / state.run / METRICS
        with suppress(OSError, ValueError):
            rows = read_rows(path) if path.is_file() else []
            known = ((int(row["epoch"]), row.get(one.metric)) for row in rows)
            curve = {epoch: value for epoch, value in known if value is not None and math.isfinite(value)}
            if len(curve) == one.sent.get(number, 0):
                return
            one.sent[number] = len(curve)
            if not one.trials.report(number, curve):
                return
            for job in jobs:
                if states[job].status == "running":
                    (job_folder(self.folder, job) / PRUNE).touch()
                elif states[job].status not in ENDED:
                    states[job] = JobState("pruned", finished=now())
                    write_state(self.folder, job, states[job])

    def _told(self, one: _Study, drawn: Mapping[str, Any], states: Sequence[JobState]) -> Told:
        statuses = {state.status for state in states}
        if statuses == {"completed"}:
            runs = [self.output_dir / "runs" / str(state.run) for state in states]
            values = [value for run in runs if (value := metric_of(run, one.metric)) is not None]
            if len(values) == len(runs):
                return Told(drawn, "completed", sum(values) / len(values))
        return Told(drawn, "pruned" if "pruned" in statuses and "failed" not in statuses else "failed")

    def _close(self, one: _Study) -> None:
        """Where all trials of a study are over: choose the best, and have it run with every seed."""
        if one.open or one.left_open or not one.asked_all:
            return
        chosen = best_of(one.trials.told(), space=one.space, metric=one.metric)
        jobs: list[SweepJob] = []
        if chosen.trial is not None:
            jobs = self._frozen(answer_rows(one.study, chosen.tuned, output_dir=str(self.output_dir)))
        with FileLock(self.folder / ".lock"):
            before = read_sweep(self.folder)
            sweep = replace(before, chosen={**before.chosen, one.study.id: chosen})
            write_sweep(self.folder, sweep)
            self._now_on_disk(sweep)
        self._answers += [job.id for job in jobs]


def _is_ahead(one: _Study) -> bool:
    return bool(one.study.trials_together) and one.trials.ahead()


def check_free(folder: Path, name: str) -> None:
    """Raise ConfigError where another launch is at the search, before anything of the sweep is changed."""
    if (folder / _LOCK).exists():
        try:
            with FileLock(folder / _LOCK, timeout=0):
                pass
        except Timeout:
            raise _taken(name) from None


def _taken(name: str) -> ConfigError:
    return ConfigError(f"sweep {name}: another launch is at this search; `headstart status {name}` shows it.")
