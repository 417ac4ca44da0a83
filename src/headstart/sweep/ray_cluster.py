"""The jobs of a sweep on a Ray cluster: results and checkpoints on storage that all its machines share."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from pathlib import Path
from typing import Any

from headstart.config.schema.launcher import RayConfig
from headstart.errors import ConfigError
from headstart.sweep.executor import Ended
from headstart.sweep.local import log_to, timed_out

REACHABLE = 15.0
"""Seconds within which a cluster must answer."""


class RayExecutor:
    """Each process is a Ray task in a fresh worker; Ray runs it again where its machine is lost."""

    divides = False

    def __init__(
        self, sweep: Path, *, output_dir: Path, config: RayConfig, threads: int, timeout: float | None
    ) -> None:
        self.sweep, self.output_dir, self.timeout = sweep, output_dir, timeout
        self._ray = connect(config)
        cpus = config.cpus_per_job or threads
        self._cpus, self._gpus = cpus, config.gpus_per_job
        task = self._ray.remote(max_calls=1)(_task)
        self._task = task.options(num_cpus=cpus, num_gpus=config.gpus_per_job, max_retries=config.retries)
        self._refs: dict[Any, tuple[str, ...]] = {}

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that Ray has."""
        return tuple(job for jobs in self._refs.values() for job in jobs)

    def room(self) -> int:
        """For how many more the cluster has resources; Ray itself decides where they run."""
        whole = self._ray.cluster_resources()
        fits = int(whole.get("CPU", 0) // self._cpus)
        if self._gpus:
            fits = min(fits, int(whole.get("GPU", 0) / self._gpus))
        return max(1, fits) - len(self._refs)

    def start(self, jobs: tuple[str, ...]) -> None:
        """Hand the jobs to Ray as one task; each brings its own time to it."""
        seconds = None if self.timeout is None else self.timeout * len(jobs)
        self._refs[self._task.remote(str(self.sweep), jobs, str(self.output_dir), seconds)] = jobs

    def wait(self, seconds: float) -> list[Ended]:
        """Jobs that Ray is done with."""
        if not self._refs:
            return []
        done, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=seconds)
        return [ended for ref in done for ended in self._ended(ref)]

    def _ended(self, ref: Any) -> list[Ended]:
        jobs = self._refs.pop(ref)
        try:
            results = self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return [Ended(job, "interrupted") for job in jobs]
        except (self._ray.exceptions.NodeDiedError, self._ray.exceptions.WorkerCrashedError) as error:
            how, kind = f"lost: {' '.join(str(error).split())[:200]}", "lost"
        except self._ray.exceptions.OutOfMemoryError as error:
            how, kind = " ".join(str(error).split())[:200], "memory"
        except Exception as error:
            how, kind = " ".join(str(error).split())[:200], "lost"
        else:
            late = timed_out(self.timeout, jobs=len(jobs)) if "timeout" in results else ""
            return [
                Ended(job, None, late, "timeout") if result == "timeout" else Ended(job, result)
                for job, result in zip(jobs, results, strict=True)
            ]
        return [Ended(job, None, how, kind) for job in jobs]

    def stop(self, *, now: bool) -> None:
        """Cancel what Ray has."""
        for ref in self._refs:
            self._ray.cancel(ref, force=now)

    def close(self) -> None:
        """Leave the cluster; one that was begun for this sweep ends."""
        self.stop(now=True)
        self._refs.clear()
        self._ray.shutdown()


def check(config: RayConfig) -> None:
    """Raise ConfigError where Ray is not installed, or nothing answers at the cluster's address."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('launcher=ray: needs Ray: pip install "headstart[ray]".')
    if config.address is None:
        return
    host, _, port = config.address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"launcher.address={config.address}: must be host:port, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=REACHABLE).close()
    except OSError as error:
        raise ConfigError(f"launcher.address={config.address}: no Ray cluster answers there ({error}).") from error


def connect(config: RayConfig) -> Any:
    """Join the cluster, or begin one on this machine; raises ConfigError where it does not take us in."""
    if config.address is None or config.address.startswith(("127.", "localhost:")):
        # Ray would take the network's address in the place of this one, where nothing may listen; read on import
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    options = {"logging_level": "ERROR", "log_to_driver": False}
    if config.address is None:
        # by default Ray binds to a network address, for anybody to reach
        ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", **options)
        return ray
    try:
        ray.init(address=config.address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"launcher.address={config.address}: no Ray cluster answers there ({reason}).") from error
    return ray


def _task(sweep: str, jobs: tuple[str, ...], output_dir: str, timeout: float | None) -> list[str]:
    """On one of the cluster's machines: do the jobs."""
    from headstart.sweep.job import perform_in

    log_to(Path(sweep), jobs)
    late = False

    def stop(number: int, frame: Any) -> None:
        nonlocal late
        late = number == signal.SIGALRM
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if timeout is not None:
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        results = perform_in(sweep, jobs, output_dir)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ["timeout" if late and result != "completed" else result for result in results]
