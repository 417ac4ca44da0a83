"""Where and how the jobs of a sweep run; it changes nothing of what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option, required


@dataclass
class LauncherConfig:
    """Options that every launcher has."""

    name: str = required("Kind of launcher; choose it with `launcher=`.")
    on_error: str = option(
        "continue",
        "When a job fails: `continue` with the others, or `stop` after those that are running.",
        choices=("continue", "stop"),
    )
    retries: int = option(
        0,
        "How often a job is tried again that was killed, ran out of memory beside others, ran out of time or lost "
        "its machine. One that failed by itself is not.",
        least=0,
    )
    job_timeout: str | None = option(
        None, "Wall clock after which a job is stopped as hanging, as DD:HH:MM:SS.", auto="never"
    )


@dataclass
class LocalConfig(LauncherConfig):
    """Worker slots on this machine, each job in a fresh process."""

    name: str = "local"
    workers: int | None = option(
        None, "Jobs at the same time.", least=1, auto="cores // trainer.threads, or a job per GPU slot"
    )
    gpus: list[int] | None = option(
        None,
        "Numbers of the GPUs to use, such as [0,1]; each job sees its own alone.",
        least=0,
        auto="all there are",
    )
    jobs_per_gpu: int = option(1, "Jobs that share a GPU.", least=1)


@dataclass
class RayConfig(LauncherConfig):
    """A Ray cluster whose machines share the output folder; needs headstart[ray]."""

    name: str = "ray"
    retries: int = option(
        3,
        "How often Ray runs a job again whose machine or worker was lost; it goes on from its checkpoint.",
        least=0,
    )
    address: str | None = option(
        None, "Where the cluster's head is, as host:port.", auto="a cluster of this machine alone, on 127.0.0.1"
    )
    cpus_per_job: float | None = option(
        None, "Cores that Ray sets apart for a job.", above=0, auto="trainer.threads"
    )
    gpus_per_job: float = option(0.0, "GPUs that Ray sets apart for a job; 0.5 lets two share one.", least=0)


@dataclass
class SlurmConfig(LauncherConfig):
    """SLURM jobs, in arrays, from a login node; needs headstart[slurm]."""

    name: str = "slurm"
    cluster: str = option(
        "slurm", "`slurm`, or `local`: processes of this machine in its place.", choices=("slurm", "local")
    )
    at_once: int = option(100, "Jobs that SLURM has at the same time.", least=1)
    minutes: int = option(240, "Time limit of a job.", least=1)
    gpus_per_job: int = option(0, "GPUs of a job.", least=0)
    memory_gb: float | None = option(None, "Memory of a job.", above=0, auto="the cluster's default")
    partition: str | None = option(None, "SLURM partition.", auto="the cluster's default")
    account: str | None = option(None, "SLURM account.", auto="yours")
    qos: str | None = option(None, "SLURM quality of service.", auto="the cluster's default")
    extra: dict[str, Any] = option({}, "Further options of sbatch, such as {constraint: a100}.")


OPTIONS = {"local": LocalConfig, "ray": RayConfig, "slurm": SlurmConfig}
