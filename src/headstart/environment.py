"""On what a run ran: packages, machine, code, and which results may be expected again bit for bit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "headstart",
    "torch",
    "torchvision",
    "timm",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pillow",
    "scikit-learn",
    "datasets",
    "wandb",
    "safetensors",
)


def describe_environment(*, accelerator: str, threads: int) -> dict[str, Any]:
    """The `environment` of a record."""
    gpu = torch.cuda.get_device_name() if accelerator == "gpu" else None
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "os": platform.platform(),
        "cpu": _cpu(),
        "gpu": gpu,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "threads": threads,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **_git(),
    }


def describe_determinism(*, deterministic: bool, accelerator: str) -> dict[str, Any]:
    """The `determinism` of a record."""
    return {
        "deterministic_algorithms": deterministic,
        "cudnn_deterministic": torch.backends.cudnn.deterministic if accelerator == "gpu" else None,
        "cudnn_benchmark": torch.backends.cudnn.benchmark if accelerator == "gpu" else None,
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


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


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


def _git() -> dict[str, Any]:
    """Commit of Headstart's own code, where it runs from a repository."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _ask_git(root, "rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": bool(_ask_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _ask_git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    ).stdout.strip()
