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

import yaml
from filelock import FileLock, Timeout

from headstart.config.schema.search import DrawnConfig, TrialsConfig
from headstart.errors import ConfigError, RecordError
from headstart.records.atomic import write_text
from headstart.records.index import completed_run
from headstart.records.store import CONFIG, now, read_record
from headstart.records.studies import Chosen, Study
from headstart.records.sweeps import (
    DONE,
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
from headstart.sweep.space import Space, applied, read_space
from headstart.sweep.studies import answer_rows, lower_is_better, metric_of, trial_rows
from headstart.sweep.trials import GridTrials, Told, Trial, Trials

States = dict[str, JobState]
_OVER = (*DONE, "failed")


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


class Search:
    """Feeds the queue of a sweep. One launch at a time is at a search; `with` holds the place."""

    def __init__(self, folder: Path, sweep: Sweep, config: TrialsConfig, *, output_dir: Path) -> None:
        self.folder, self.output_dir, self.config = folder, output_dir, config
        self.sweep = sweep
        self._lock = FileLock(folder / ".search", timeout=0)
        self._studies: list[_Study] = []
        self._answers: list[str] = []
        """Jobs that test what was found, and that the queue has not been given yet."""

    def __enter__(self) -> Search:
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"sweep {self.sweep.name}: another launch is at this search; `headstart status {self.sweep.name}` "
                "shows it."
            ) from None
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

    def ask(self, states: States, busy: Set[str]) -> list[SweepJob]:
        """More jobs for the queue; none where trials must end first, or all has been asked for.

        Studies take turns, so that all arms get on. `states` gets those of the new jobs.
        """
        while True:
            if self._answers:
                rows = [job for job in self.sweep.jobs if job.id in self._answers]
                self._answers = []
                return self._given(rows, states)
            waiting = [one for one in self._studies if not one.asked_all]
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
            before = [
                job for job in self.sweep.jobs if job.study == one.study.id and job.trial in one.trials.told()
            ]
            rows += self._given(before, states)
            for trial in one.trials.open():
                rows += self._begun(one, trial, states)
        return rows

    def watch(self, states: States, busy: Set[str]) -> None:
        """Look at the trials that run: stop those that are no good, and take down those that are over."""
        for one in self._studies:
            for number, (drawn, jobs) in list(one.open.items()):
                if isinstance(self.config, DrawnConfig) and self.config.pruner != "none":
                    self._prune(one, number, jobs, states)
                statuses = [states[job].status for job in jobs if job not in busy or states[job].status != "failed"]
                if len(statuses) < len(jobs) or any(status not in _OVER for status in statuses):
                    continue  # what failed and is busy is tried again
                one.trials.tell(number, self._told(one, drawn, [states[job] for job in jobs]))
                del one.open[number]
                self._close(one)

    def _reopen(self) -> None:
        """Forget what was found where there are to be more trials now."""
        with FileLock(self.folder / ".lock"):
            sweep = read_sweep(self.folder)
            wanted = {study.id: study.trials for study in self.sweep.studies}
            kept = {id: one for id, one in sweep.chosen.items() if one.trials >= wanted.get(id, 0)}
            if kept != sweep.chosen:
                write_sweep(self.folder, replace(sweep, chosen=kept))

    def _begin(self, study: Study) -> _Study:
        space = read_space(study.space, where=f"study {study.id}")
        metric = metric_of(self.config, str(study.config["trainer"]["monitor"]))
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

        None where the values do not go together: that is a failed trial.
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
        return self._given(jobs, states)

    def _frozen(self, rows: Sequence[tuple[SweepJob, dict[str, Any]]]) -> list[SweepJob]:
        """The jobs as the sweep has them, on disk before they are given to anybody."""
        with FileLock(self.folder / ".lock"):
            sweep = with_jobs(read_sweep(self.folder), [row for row, _ in rows])
            by_key = {(job.key, job.name): job for job in sweep.jobs}
            jobs = [by_key[row.key, row.name] for row, _ in rows]
            for job, (_, config) in zip(jobs, rows, strict=True):
                place = job_folder(self.folder, job.id) / CONFIG
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    write_text(place, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            if sweep.jobs != self.sweep.jobs:
                write_sweep(self.folder, sweep)
            self.sweep = sweep
        return jobs

    def _given(self, rows: Sequence[SweepJob], states: States) -> list[SweepJob]:
        """The same jobs; what became of them before, by whichever sweep, is in `states` then."""
        for job in rows:
            if job.id in states:
                continue
            state = read_state(self.folder, job.id)
            run = completed_run(self.output_dir, job.key)
            if run and state.status != "completed":
                state = JobState("completed", run, attempts=state.attempts, reused=run != state.run, finished=now())
                write_state(self.folder, job.id, state)
            elif not run and state.status == "completed":
                state = JobState()
            states[job.id] = state
        return list(rows)

    def _prune(self, one: _Study, number: int, jobs: Sequence[str], states: States) -> None:
        """Report the curve of the trial's first seed; where Optuna says so, stop what runs and drop what waits."""
        run = states[jobs[0]].run or read_state(self.folder, jobs[0]).run
        if run is None or any(states[job].status == "pruned" for job in jobs):
            return
        path = self.output_dir / "runs" / run / METRICS
        with suppress(OSError, ValueError):
            for row in read_rows(path) if path.is_file() else ():
                value = row.get(one.metric)
                if (
                    value is not None
                    and math.isfinite(value)
                    and one.trials.report(number, int(row["epoch"]), value)
                ):
                    for job in jobs:
                        if states[job].status == "running":
                            (job_folder(self.folder, job) / PRUNE).touch()
                        elif states[job].status not in _OVER:
                            states[job] = JobState("pruned", finished=now())
                            write_state(self.folder, job, states[job])
                    return

    def _told(self, one: _Study, drawn: Mapping[str, Any], states: Sequence[JobState]) -> Told:
        statuses = {state.status for state in states}
        if statuses == {"completed"}:
            values = [self._value(one, state) for state in states]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                return Told(drawn, "completed", sum(known) / len(known))
        return Told(drawn, "pruned" if "pruned" in statuses and "failed" not in statuses else "failed")

    def _value(self, one: _Study, state: JobState) -> float | None:
        with suppress(RecordError):
            value = read_record(self.output_dir / "runs" / str(state.run)).metrics.get(one.metric)
            if value is not None and math.isfinite(value):
                return value
        return None

    def _close(self, one: _Study) -> None:
        """Where all trials of a study are over: choose the best, and have it run with every seed."""
        if one.open or not one.asked_all:
            return
        told = one.trials.told()
        values = {number: result.value for number, result in sorted(told.items()) if result.value is not None}
        if not values:
            return  # every trial came to nothing; the failures are listed
        pick: Callable[..., int] = min if lower_is_better(one.metric) else max
        best = pick(values, key=lambda number: values[number])
        tuned = applied(one.space, told[best].drawn)
        rows = answer_rows(one.study, tuned, output_dir=str(self.output_dir))
        jobs = self._frozen(rows)
        chosen = Chosen(
            trial=best,
            tuned=tuned,
            value=float(values[best]),
            metric=one.metric,
            trials=len(told),
            failed=sum(result.status == "failed" for result in told.values()),
            pruned=sum(result.status == "pruned" for result in told.values()),
            at_edge=at_edge(one.space, told[best].drawn),
        )
        with FileLock(self.folder / ".lock"):
            sweep = read_sweep(self.folder)
            self.sweep = replace(sweep, chosen={**sweep.chosen, one.study.id: chosen})
            write_sweep(self.folder, self.sweep)
        self._answers += [job.id for job in jobs]


def at_edge(space: Space, drawn: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys whose value is the smallest or largest number there was, or within a twentieth of a range's end."""
    found = []
    for tuned in space:
        value = drawn[tuned.key]
        ends = [end for end in tuned.ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if value == 0 or len(ends) < len(tuned.ends) or (len(set(ends)) < 3 and tuned.values):
            continue
        low, high = min(ends), max(ends)
        share = math.log(value / low) / math.log(high / low) if tuned.log else (value - low) / (high - low)
        margin = 0.0 if tuned.values else 0.05
        if not margin < share < 1 - margin:
            found.append(tuned.key)
    return tuple(found)
