"""Launching a sweep: plan it, open its folder, and let the queue run what is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

from headstart.config.paths import output_dir_of
from headstart.config.plain import from_plain, read_config
from headstart.config.schema.launcher import OPTIONS, LauncherConfig, LocalConfig, RayConfig, SlurmConfig
from headstart.config.schema.root import Config
from headstart.config.schema.search import OPTIONS as SEARCHES
from headstart.config.schema.search import TrialsConfig
from headstart.errors import ConfigError, RecordError
from headstart.machine import usable_cores
from headstart.progress import counted
from headstart.records.store import CONFIG
from headstart.records.sweeps import JobState, Sweep, job_folder, read_sweep
from headstart.sweep.executor import Executor
from headstart.sweep.expand import Jobs
from headstart.sweep.live import View
from headstart.sweep.local import LocalExecutor, Work, forkserver
from headstart.sweep.plan import Planned, open_sweep, plan_sweep, take_over
from headstart.sweep.preflight import Checked, Machine, check_jobs
from headstart.sweep.queue import Policy, Queue
from headstart.sweep.search import Search, check_free
from headstart.sweep.studies import check_metric, check_resolved, check_search, probes, studies_of


@dataclass(frozen=True)
class Prepared:
    """A sweep that has been checked, and the machine it was checked on."""

    planned: Planned
    checked: tuple[Checked, ...]
    machine: Machine
    context: ForkServerContext


@dataclass(frozen=True)
class Launched:
    """What became of a launch."""

    folder: Path
    sweep: Sweep
    states: dict[str, JobState]


def prepare_sweep(jobs: Jobs, *, command: Sequence[str], measure: float = 0.0) -> Prepared:
    """Check every job and plan the sweep; nothing is written.

    Up to `measure` seconds are spent on timing steps. Raises ConfigError that lists every job that could not start.
    """
    check_search(jobs)
    further = probes(jobs)
    context = forkserver()
    launcher = jobs.launcher
    elsewhere = isinstance(launcher, RayConfig | SlurmConfig) and launcher.gpus_per_job > 0
    if isinstance(launcher, RayConfig | SlurmConfig):
        check_reachable(launcher)
    asked = (*jobs.jobs, *(probe.job for probe in further))
    with counted(len(asked), what="checking the jobs") as progress:
        checked, machine = check_jobs(asked, context, measure=measure, gpu_elsewhere=elsewhere, progress=progress)
    checked, of_probes = checked[: len(jobs.jobs)], checked[len(jobs.jobs) :]
    check_resolved(further, of_probes)
    for found in checked:
        check_metric(
            jobs.search, task=found.task, classes=found.classes, monitor=found.config["trainer"]["monitor"]
        )
    planned = plan_sweep(
        jobs,
        checked,
        command=command,
        output_dir=output_dir_of(jobs.jobs[0].config).absolute(),
        studies=studies_of(jobs, checked, further, of_probes),
    )
    return Prepared(planned, tuple(checked), machine, context)


def launch(jobs: Jobs, *, command: Sequence[str], force_new: bool = False) -> Launched:
    """Check all jobs, then run those that are not done; one that fails does not touch the others.

    Raises ConfigError where a job could not start, and KeyboardInterrupt where it was stopped: what was running
    is then marked as interrupted, and the same command goes on from there.
    """
    return open_and_run(jobs, prepare_sweep(jobs, command=command), force_new=force_new)


def open_and_run(jobs: Jobs, prepared: Prepared, *, force_new: bool = False, work: Work | None = None) -> Launched:
    """The part of `launch` that comes after the checks; `work` is what a job does, in its own process."""
    planned = prepared.planned
    configs = [job.config for job in jobs.jobs]
    slots = slots_for(jobs.launcher, configs, gpus=prepared.machine.gpus)
    if planned.sweep.studies and not force_new:
        check_free(planned.folder, planned.sweep.name)
    folder, sweep = open_sweep(planned, force_new=force_new)
    wanted = {(job.key, job.name) for job in planned.sweep.jobs}
    # an axis that has become shorter leaves its other jobs alone
    sweep = replace(sweep, jobs=tuple(job for job in sweep.jobs if (job.key, job.name) in wanted))
    sweep = replace(sweep, studies=planned.sweep.studies)
    states = _run(folder, sweep, jobs.launcher, configs, slots, planned.output_dir, prepared.context, work)
    return Launched(folder, _after(folder, sweep, states), states)


def relaunch(folder: Path, *, workers: int | None = None) -> Launched:
    """Go on with a sweep from its folder alone: its frozen configs say all there is to know.

    It is launched as it was the last time, but for the number of `workers`.
    """
    sweep = read_sweep(folder)
    output_dir = folder.absolute().parent.parent
    take_over(folder, output_dir, sweep)
    launcher = launcher_of(sweep)
    if workers is not None and isinstance(launcher, LocalConfig):
        launcher = replace(launcher, workers=workers)
    if isinstance(launcher, RayConfig | SlurmConfig):
        check_reachable(launcher)
    plain = [job for job in sweep.jobs if job.study is None]
    configs = [read_config(job_folder(folder, job.id) / CONFIG) for job in plain]
    configs += [from_plain(study.config) for study in sweep.studies]
    if not configs:
        raise RecordError(f"{folder}: this sweep has no jobs.")
    slots = slots_for(launcher, configs, gpus=_seen_gpus() if configs[0].trainer.accelerator == "gpu" else 0)
    sweep = replace(sweep, jobs=tuple(plain))
    states = _run(folder, sweep, launcher, configs, slots, output_dir, forkserver(), None)
    return Launched(folder, _after(folder, sweep, states), states)


def _after(folder: Path, sweep: Sweep, states: Mapping[str, JobState]) -> Sweep:
    """The sweep with the jobs that this launch was about, those that its search has asked for among them."""
    there = read_sweep(folder)
    return replace(there, jobs=tuple(job for job in there.jobs if job.id in states), studies=sweep.studies)


def _run(
    folder: Path,
    sweep: Sweep,
    launcher: LauncherConfig,
    configs: Sequence[Config],
    slots: Sequence[str | None],
    output_dir: Path,
    context: ForkServerContext,
    work: Work | None,
) -> dict[str, JobState]:
    search = search_of(folder, sweep, output_dir=output_dir)
    with ExitStack() as stack:
        feed = stack.enter_context(search) if search else None
        executor = executor_for(
            folder, launcher, configs, output_dir=output_dir, slots=slots, context=context, work=work
        )
        queue = Queue(
            folder,
            sweep,
            executor,
            output_dir=output_dir,
            policy=Policy(launcher.retries, launcher.on_error == "stop"),
            watch=stack.enter_context(View(slots=len(slots), output_dir=output_dir)),
            feed=feed,
        )
        return queue.run()


def search_of(folder: Path, sweep: Sweep, *, output_dir: Path) -> Search | None:
    """What feeds the queue of a sweep that searches; raises RecordError where what is written of it is damaged."""
    if not sweep.studies:
        return None
    kind = SEARCHES.get(str(sweep.search.get("name")))
    try:
        config = kind(**sweep.search)  # type: ignore[misc]
        if not isinstance(config, TrialsConfig):
            raise TypeError("it searches nothing")
    except TypeError as error:
        raise RecordError(f"sweep {sweep.name}: its search is damaged ({error}).") from error
    return Search(folder, sweep, config, output_dir=output_dir)


def launcher_of(sweep: Sweep) -> LauncherConfig:
    """How a sweep was launched last; raises RecordError where that cannot be."""
    kind = OPTIONS.get(str(sweep.launcher.get("name", "local")))
    try:
        return LocalConfig() if not sweep.launcher else kind(**sweep.launcher)  # type: ignore[misc]
    except TypeError as error:
        raise RecordError(f"sweep {sweep.name}: its launcher is damaged ({error}).") from error


def check_reachable(launcher: RayConfig | SlurmConfig) -> None:
    """Raise ConfigError where the cluster, or what it needs here, is not there."""
    if isinstance(launcher, RayConfig):
        from headstart.sweep.ray_cluster import check
    else:
        from headstart.sweep.slurm import check  # type: ignore[assignment]

    check(launcher)  # type: ignore[arg-type]


def executor_for(
    folder: Path,
    launcher: LauncherConfig,
    configs: Sequence[Config],
    *,
    output_dir: Path,
    slots: Sequence[str | None],
    context: ForkServerContext,
    work: Work | None,
) -> Executor:
    """What runs the jobs, as the config chooses."""
    timeout = seconds_of(launcher.job_timeout) if launcher.job_timeout else None
    threads = max(config.trainer.threads or usable_cores() for config in configs)
    if isinstance(launcher, RayConfig):
        from headstart.sweep.ray_cluster import RayExecutor

        return RayExecutor(folder, output_dir=output_dir, config=launcher, threads=threads, timeout=timeout)
    if isinstance(launcher, SlurmConfig):
        from headstart.sweep.slurm import SlurmExecutor

        devices = max(config.trainer.devices for config in configs)
        return SlurmExecutor(folder, output_dir=output_dir, config=launcher, threads=threads, devices=devices)
    return LocalExecutor(folder, output_dir=output_dir, slots=slots, timeout=timeout, context=context, work=work)


def slots_for(launcher: LauncherConfig, configs: Sequence[Config], *, gpus: int) -> list[str | None]:
    """The worker slots: for each the GPUs that its jobs see, or None on a CPU.

    Raises ConfigError for GPUs that are not there, or too few for a job.
    """
    if not isinstance(launcher, LocalConfig):
        return [None]  # the cluster has the slots
    if launcher.gpus is not None:
        missing = [number for number in launcher.gpus if number >= gpus]
        if missing:
            raise ConfigError(f"launcher.gpus={launcher.gpus}: there are {gpus} GPUs here, numbered from 0.")
    each = max(config.trainer.devices for config in configs)
    if gpus and any(config.trainer.accelerator != "cpu" for config in configs):
        seen = (
            os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else []
        )
        numbers = launcher.gpus if launcher.gpus is not None else list(range(gpus))
        names = [seen[number] if number < len(seen) else str(number) for number in numbers]
        groups = [",".join(names[i : i + each]) for i in range(0, len(names) - each + 1, each)]
        if not groups:
            raise ConfigError(f"trainer.devices={each}: the sweep may use {len(names)} GPUs.")
        slots: list[str | None] = [group for _ in range(launcher.jobs_per_gpu) for group in groups]
        return slots[: launcher.workers] if launcher.workers else slots
    cores = usable_cores()
    threads = max(config.trainer.threads or cores for config in configs)
    return [None] * (launcher.workers or max(1, cores // threads))


def _seen_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def seconds_of(text: str) -> float:
    """DD:HH:MM:SS in seconds."""
    days, hours, minutes, seconds = (int(part) for part in text.split(":"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
