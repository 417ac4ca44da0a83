"""On what a run ran: packages, machine, code, and which results may be expected again bit for bit."""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headstart.installed import packages
from headstart.source_code import describe_code

SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "NVIDIA_TF32_OVERRIDE",
)
"""Variables that can change how a number is computed."""

_OF_THE_PROCESS = ("host", "pid", "earlier")
"""What of an environment says nothing of how a number came about."""

# when this is imported: a file that changes later is not the one that runs
_CODE, _PACKAGES = describe_code(), packages()


def describe_environment(*, accelerator: str, threads: int, devices: int) -> dict[str, Any]:
    """The `environment` of a record."""
    gpu = torch.cuda.get_device_name() if accelerator == "gpu" else None
    return {
        "python": platform.python_version(),
        "packages": dict(_PACKAGES),
        "os": platform.platform(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "gpus": devices if gpu else 0,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "threads": threads,
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **_CODE,
    }


def earlier_environments(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Under what a run that is resumed now has run before, where that was something else."""
    kept = {key: value for key, value in before.items() if key not in _OF_THE_PROCESS}
    earlier = list(before.get("earlier", ()))
    return earlier if all(now.get(key) == value for key, value in kept.items()) else [*earlier, kept]


def describe_determinism(*, deterministic: bool, accelerator: str) -> dict[str, Any]:
    """The `determinism` of a record."""
    return {
        "deterministic_algorithms": deterministic,
        "cudnn_deterministic": torch.backends.cudnn.deterministic if accelerator == "gpu" else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark if accelerator == "gpu" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG") if accelerator == "gpu" else None,
        "same_bits_expected": accelerator == "cpu" or deterministic,
    }


def peak_memory(accelerator: str) -> dict[str, int | None]:
    """Bytes: the most that this process has held, and the most it has allocated on its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "gpu": torch.cuda.max_memory_allocated() if accelerator == "gpu" else None,
    }


def process_alive(pid: Any, host: Any) -> bool:
    """Whether a recorded process still runs on this machine."""
    if host != socket.gethostname() or not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return None
