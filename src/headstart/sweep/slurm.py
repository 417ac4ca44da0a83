"""The jobs of a sweep as SLURM jobs, through submitit: job arrays, and requeueing where one is preempted."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from headstart.config.schema.launcher import SlurmConfig
from headstart.errors import ConfigError
from headstart.sweep.executor import Ended

_FOLDER = "slurm"


class SlurmExecutor:
    """What is started at the same time is one array; a preempted job goes on from its checkpoint."""

    divides = False

    def __init__(self, sweep: Path, *, output_dir: Path, config: SlurmConfig, threads: int, devices: int) -> None:
        self.sweep, self.output_dir = sweep, output_dir
        self._limit = config.at_once
        self._executor = connect(config, folder=sweep / _FOLDER, threads=threads, devices=devices)
        self._waiting: list[tuple[str, ...]] = []
        self._jobs: dict[tuple[str, ...], Any] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that SLURM has, or is about to have."""
        return tuple(job for jobs in (*self._jobs, *self._waiting) for job in jobs)

    def room(self) -> int:
        """How many more may be submitted."""
        return self._limit - len(self._jobs) - len(self._waiting)

    def start(self, jobs: tuple[str, ...]) -> None:
        """Put the jobs into the next array, as one of its members."""
        self._waiting.append(jobs)

    def wait(self, seconds: float) -> list[Ended]:
        """Submit what has been put together, and see which jobs have ended."""
        import time

        if self._waiting:
            with self._executor.batch():
                submitted = [
                    self._executor.submit(Task(str(self.sweep), jobs, str(self.output_dir)))
                    for jobs in self._waiting
                ]
            self._jobs |= dict(zip(self._waiting, submitted, strict=True))
            self._waiting = []
        end = time.monotonic() + seconds
        while True:
            done = [jobs for jobs, submitted in self._jobs.items() if submitted.done()]
            if done or time.monotonic() > end:
                return [ended for jobs in done for ended in self._ended(jobs)]
            time.sleep(0.2)

    def _ended(self, jobs: tuple[str, ...]) -> list[Ended]:
        submitted = self._jobs.pop(jobs)
        try:
            return [Ended(job, str(result)) for job, result in zip(jobs, submitted.result(), strict=True)]
        except Exception as error:
            state = str(submitted.state).upper()
            kind = "timeout" if "TIMEOUT" in state else "memory" if "MEMORY" in state else "lost"
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), state)
            how = f"SLURM job {submitted.job_id} {state}: {reason.strip()[:200]}"
            return [Ended(job, None, how, kind) for job in jobs]

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
    """Jobs of a process as submitit pickles them; when SLURM takes their machine away, they are submitted again."""

    def __init__(self, sweep: str, jobs: tuple[str, ...], output_dir: str) -> None:
        self.sweep, self.jobs, self.output_dir = sweep, jobs, output_dir

    def __call__(self) -> list[str]:
        """Do the jobs."""
        from headstart.sweep.job import perform_in
        from headstart.sweep.local import log_to

        log_to(Path(self.sweep), self.jobs)
        return perform_in(self.sweep, self.jobs, self.output_dir)

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
