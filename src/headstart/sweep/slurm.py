"""The jobs of a sweep as SLURM jobs, through submitit: job arrays, and requeueing where one is preempted."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from headstart.config.schema.launcher import SlurmConfig
from headstart.errors import ConfigError
from headstart.records.sweeps import LOG, job_folder
from headstart.sweep.executor import Ended

_FOLDER = "slurm"


class SlurmExecutor:
    """Jobs that are started together are one array; a preempted job goes on from its checkpoint."""

    def __init__(self, sweep: Path, *, output_dir: Path, config: SlurmConfig, threads: int, devices: int) -> None:
        self.sweep, self.output_dir = sweep, output_dir
        self._limit = config.at_once
        self._executor = connect(config, folder=sweep / _FOLDER, threads=threads, devices=devices)
        self._waiting: list[str] = []
        self._jobs: dict[str, Any] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that SLURM has, or is about to have."""
        return (*self._jobs, *self._waiting)

    def has_room(self) -> bool:
        """Whether more may be submitted."""
        return len(self.running) < self._limit

    def start(self, job: str) -> None:
        """Put the job into the next array."""
        self._waiting.append(job)

    def wait(self, seconds: float) -> list[Ended]:
        """Submit what has been put together, and see which jobs have ended."""
        import time

        if self._waiting:
            with self._executor.batch():
                submitted = [
                    self._executor.submit(Task(str(self.sweep), job, str(self.output_dir))) for job in self._waiting
                ]
            self._jobs |= dict(zip(self._waiting, submitted, strict=True))
            self._waiting = []
        end = time.monotonic() + seconds
        while True:
            done = [job for job, submitted in self._jobs.items() if submitted.done()]
            if done or time.monotonic() > end:
                return [self._ended(job) for job in done]
            time.sleep(0.2)

    def _ended(self, job: str) -> Ended:
        submitted = self._jobs.pop(job)
        try:
            return Ended(job, str(submitted.result()))
        except Exception as error:
            state = str(submitted.state).upper()
            kind = "timeout" if "TIMEOUT" in state else "memory" if "MEMORY" in state else "lost"
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), state)
            return Ended(job, None, f"SLURM job {submitted.job_id} {state}: {reason.strip()[:200]}", kind)

    def stop(self, *, now: bool) -> None:
        """Cancel what SLURM has."""
        for submitted in self._jobs.values():
            submitted.cancel(check=False)
        self._waiting = []

    def close(self) -> None:
        """Cancel what is left."""
        self.stop(now=True)
        self._jobs = {}


class Task:
    """A job as submitit pickles it; when SLURM takes its machine away, it is submitted again."""

    def __init__(self, sweep: str, job: str, output_dir: str) -> None:
        self.sweep, self.job, self.output_dir = sweep, job, output_dir

    def __call__(self) -> str:
        """Do the job."""
        from headstart.sweep.job import perform_in
        from headstart.sweep.local import log_to

        log_to(job_folder(Path(self.sweep), self.job) / LOG)
        return perform_in(self.sweep, self.job, self.output_dir)

    def checkpoint(self, *arguments: Any, **more: Any) -> Any:
        """What submitit submits in its place after a preemption: itself, which resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def check(config: SlurmConfig) -> None:
    """Raise ConfigError where submitit or SLURM is not there."""
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError('launcher=slurm: needs submitit: pip install "headstart[slurm]".')
    if config.cluster == "slurm" and shutil.which("srun") is None:
        raise ConfigError("launcher=slurm: this machine has no srun; launch from a login node of the cluster.")


def connect(config: SlurmConfig, *, folder: Path, threads: int, devices: int) -> Any:
    """An executor of submitit with the options of one job."""
    import submitit

    executor = submitit.AutoExecutor(folder=folder, cluster=config.cluster)
    common: dict[str, Any] = {"name": "headstart", "timeout_min": config.minutes, "cpus_per_task": threads}
    if config.memory_gb is not None:
        common["mem_gb"] = config.memory_gb
    if config.gpus_per_job:
        common["gpus_per_node"] = max(config.gpus_per_job, devices)
    slurm = {"partition": config.partition, "account": config.account, "qos": config.qos}
    executor.update_parameters(
        **common,
        slurm_array_parallelism=config.at_once,
        **{f"slurm_{key}": value for key, value in slurm.items() if value is not None},
        **({"slurm_additional_parameters": dict(config.extra)} if config.extra else {}),
    )
    return executor
