"""The plan of a sweep, for `headstart plan -m`: its jobs, all of them checked, and what they will cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence

MEASURE = 5.0
"""Seconds to spend on timing a training step of each model."""
SHOWN = 100
"""Jobs that are listed."""


def plan(overrides: Sequence[str], config_dirs: tuple[str, ...]) -> int:
    """Expand, check, and print; raises ConfigError that lists every job that cannot run."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from headstart.config.schema.root import Config
    from headstart.records.index import completed_run, completed_runs
    from headstart.records.progress import clock
    from headstart.records.sweeps import SWEEP
    from headstart.sweep.expand import expand
    from headstart.sweep.forecast import forecast, job_seconds, size_in_words
    from headstart.sweep.launch import prepare_sweep, slots_for

    jobs = expand(overrides, config_dirs=config_dirs)
    prepared = prepare_sweep(jobs, command=["headstart", "plan", *overrides], measure=MEASURE)
    planned, checked = prepared.planned, prepared.checked
    configs: list[Config] = [job.config for job in jobs.jobs]
    slots = slots_for(jobs.launcher, configs, gpus=prepared.machine.gpus)
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
    table.add_column("state", no_wrap=True)
    for job, found, is_done in list(zip(planned.sweep.jobs, checked, there, strict=True))[:SHOWN]:
        seconds = "-" if found.step_seconds is None else f"{job_seconds(found):.0f}"
        after = f"after {job.needs.rpartition('-')[0]}" if job.needs else ""
        state = "done" if is_done else after
        table.add_row(job.varied or "one run", f"{found.trainable:,}", f"{found.steps:,}", seconds, state)
    if len(checked) > SHOWN:
        table.add_row(f"... and {len(checked) - SHOWN} more; `headstart train -m --cfg job` lists all")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    cost = forecast([found for found, is_done in zip(checked, there, strict=True) if not is_done], slots=len(slots))
    place = f"{len(slots)} at a time" + (f" on GPUs {', '.join(map(str, slots))}" if slots[0] is not None else "")
    time = "unknown" if cost.seconds is None else f"about {clock(cost.seconds)}, {place}"
    rough = f"; {cost.unmeasured} jobs by the mean step of the others" if cost.unmeasured else ""
    print(f"time       {'none: all is done' if not cost.jobs else time + rough}")
    print(f"disk       about {size_in_words(cost.kept)}, and {size_in_words(cost.beside)} more while jobs run")
    return 0
