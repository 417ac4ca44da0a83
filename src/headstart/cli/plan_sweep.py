"""The plan of a sweep, for `headstart plan -m`: its jobs, all of them checked, and what they will cost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headstart.config.schema.launcher import LocalConfig

if TYPE_CHECKING:
    from headstart.records.studies import Study
    from headstart.sweep.expand import Jobs
    from headstart.sweep.launch import Prepared
    from headstart.sweep.preflight import Checked

MEASURE = 5.0
"""Seconds to spend on timing a training step of each model."""
SHOWN = 100
"""Jobs that are listed."""
SHOWN_SETS = 8
"""Sets of jobs that are fitted together, of which each has a line."""


def plan(overrides: Sequence[str], config_dirs: tuple[str, ...]) -> int:
    """Expand, check, and print; raises ConfigError that lists every job that cannot run."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from headstart.config.schema.root import Config
    from headstart.records.index import completed_run, completed_runs
    from headstart.records.sweeps import SWEEP
    from headstart.sweep.expand import expand
    from headstart.sweep.forecast import job_seconds
    from headstart.sweep.launch import prepare_sweep, slots_for

    jobs = expand(overrides, config_dirs=config_dirs)
    prepared = prepare_sweep(jobs, command=["headstart", "plan", *overrides], measure=MEASURE)
    planned, checked = prepared.planned, prepared.checked
    configs: list[Config] = [job.config for job in jobs.jobs]
    slots = slots_for(jobs.launcher, configs, gpus=prepared.machine.gpus)
    if planned.sweep.studies:
        return _plan_search(prepared, jobs, slots=slots)
    done = completed_runs(planned.output_dir)
    there = [bool(done.get(job.key) or completed_run(planned.output_dir, job.key)) for job in planned.sweep.jobs]
    again = f", {jobs.duplicates} duplicates left out" if jobs.duplicates else ""
    print(f"sweep      {planned.sweep.name}{' (is there already)' if (planned.folder / SWEEP).exists() else ''}")
    print(f"jobs       {len(checked)}{again}; {sum(there)} done already")
    print(f"axes       {', '.join(planned.sweep.axes) or 'none'}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("job")
    for name in ("trainable", "steps", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    numbers = _numbers(checked)
    if numbers:
        table.add_column("together", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for job, found, is_done in list(zip(planned.sweep.jobs, checked, there, strict=True))[:SHOWN]:
        seconds = "-" if found.step_seconds is None else f"{job_seconds(found):.0f}"
        after = f"after {job.needs.rpartition('-')[0]}" if job.needs else ""
        state = "done" if is_done else after
        number = [numbers.get(found.together, "")] if numbers else []
        table.add_row(job.varied or "one run", f"{found.trainable:,}", f"{found.steps:,}", seconds, *number, state)
    if len(checked) > SHOWN:
        table.add_row(f"... and {len(checked) - SHOWN} more; `headstart train -m --cfg job` lists all")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    todo = [found for found, is_done in zip(checked, there, strict=True) if not is_done]
    local = isinstance(jobs.launcher, LocalConfig)
    _show_together(todo, numbers, slots=len(slots), divides=local)
    _show_cost(todo, slots=slots, divides=local)
    return 0


def _numbers(checked: Sequence[Checked]) -> dict[str, str]:
    """A number for each set of several jobs that are fitted together, in their order."""
    counts = Counter(found.together for found in checked if found.together)
    shared = [together for together, count in counts.items() if count > 1]
    return {together: str(number) for number, together in enumerate(shared, start=1)}


def _show_together(todo: Sequence[Checked], numbers: Mapping[str, str], *, slots: int, divides: bool) -> None:
    """A line for each set of jobs that share frozen features: how many, in how many processes."""
    from headstart.records.progress import clock
    from headstart.sweep.forecast import unit_seconds, units_of

    units = units_of(todo, slots=slots, divides=divides)
    shown = [together for together in numbers if any(found.together == together for found in todo)]
    for together in shown[:SHOWN_SETS]:
        number, mine = numbers[together], [unit for unit in units if unit[0].together == together]
        measured = all(job.step_seconds is not None for unit in mine for job in unit)
        took = f", about {clock(sum(map(unit_seconds, mine)))} in all" if measured else ""
        processes = f"{len(mine)} process{'es' * (len(mine) != 1)}"
        print(
            f"together   {number}: {sum(map(len, mine))} jobs in {processes}, their frozen features computed "
            f"once{took}"
        )
    if len(shown) > SHOWN_SETS:
        print(f"           ... and {len(shown) - SHOWN_SETS} more such sets")


def _show_cost(todo: Sequence[Checked], *, slots: Sequence[str | None], divides: bool) -> None:
    from headstart.records.progress import clock
    from headstart.sweep.forecast import forecast, size_in_words

    cost = forecast(todo, slots=len(slots), divides=divides)
    place = f"{len(slots)} at a time" + (f" on GPUs {', '.join(map(str, slots))}" if slots[0] is not None else "")
    time = "unknown" if cost.seconds is None else f"about {clock(cost.seconds)}, {place}"
    rough = f"; {cost.unmeasured} jobs by the mean step of the others" if cost.unmeasured else ""
    print(f"time       {'none: all is done' if not cost.jobs else time + rough}")
    print(f"disk       about {size_in_words(cost.kept)}, and {size_in_words(cost.beside)} more while jobs run")


def _plan_search(prepared: Prepared, jobs: Jobs, *, slots: Sequence[str | None]) -> int:
    """What a search will do: its studies, what each may choose from, and what it costs at most."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from headstart.records.sweeps import DONE, SWEEP, read_sweep, states_of
    from headstart.sweep.space import read_space, said

    planned, search = prepared.planned, prepared.planned.sweep.search
    sweep, seeds = planned.sweep, planned.sweep.search["seeds"]
    is_there = (planned.folder / SWEEP).exists()
    before = read_sweep(planned.folder).current if is_there else ()
    states = states_of(planned.folder, before)
    done = [job for job in before if states[job.id].status in DONE]
    trials = sum(study.trials for study in sweep.studies) * len(seeds)
    answers = sum(len(study.seeds) for study in sweep.studies)
    print(f"sweep      {sweep.name}{' (is there already)' if is_there else ''}")
    again = f", {jobs.duplicates} duplicates left out" if jobs.duplicates else ""
    print(
        f"jobs       {trials + answers}{again}: {trials} of trials, then {answers} that run and test what was "
        f"found; {len(done)} done already"
    )
    metric = prepared.checked[0].config["trainer"]["monitor"] if search["metric"] == "auto" else search["metric"]
    pruned = f", stopped early by the {search['pruner']}" if search.get("pruner", "none") != "none" else ""
    print(f"search     {search['name']}: best {metric}, mean over seeds {', '.join(map(str, seeds))}{pruned}")
    print(f"compared   {', '.join(sweep.compared) or 'nothing'}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm")
    for name in ("trials", "runs", "trainable", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tuned")
    for study in sweep.studies:
        space = "\n".join(said(tuned) for tuned in read_space(study.space, where=study.id))
        table.add_row(
            Text(study.varied or "one arm"),
            str(study.trials),
            str(len(study.seeds)),
            f"{study.trainable:,}",
            f"{study.steps:,}",
            Text(space),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    counts = {study.trials for study in sweep.studies}
    if len(counts) > 1:
        print("note       the arms have different numbers of trials: one that is tuned more has the better odds")
    plain = {id(found): {k: v for k, v in found.config.items() if k != "output_dir"} for found in prepared.checked}
    todo = []
    for study in sweep.studies:
        found = next(found for found in prepared.checked if plain[id(found)] == study.config)
        trial = replace(found, parameters=0 if not search["keep_weights"] else found.parameters, test_images=0)
        left = {True: study.trials * len(seeds), False: len(study.seeds)}
        for job in done:
            left[job.trial is not None] -= job.study == study.id
        todo += _trials(trial, study, search, left=left[True])
        todo += [replace(found, together=study.together)] * left[False]
    local = isinstance(jobs.launcher, LocalConfig)
    _show_together(todo, _numbers(todo), slots=len(slots), divides=local)
    _show_cost(todo, slots=slots, divides=local)
    return 0


def _trials(trial: Checked, study: Study, search: Mapping[str, Any], *, left: int) -> list[Checked]:
    """The trials that are left; those that wait for what has become of others are fitted one after another."""
    seeds = len(search["seeds"])
    at_once = search.get("startup_trials", study.trials) * seeds
    shared = study.trials_together
    first = [replace(trial, together=f"{shared} trials" if shared else "")] * min(left, at_once)
    rest = [replace(trial, together=f"{shared} {i // seeds}" if shared else "") for i in range(left - len(first))]
    return first + rest
