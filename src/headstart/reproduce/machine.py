"""What differs in packages, code and machine, and whether it can change a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.records.schema import RunRecord

COMPUTING = (
    "torch", "torchvision", "timm", "numpy", "pillow", "pytorch-lightning", "lightning-utilities", "torchmetrics",
    "scipy", "scikit-learn", "datasets", "pyarrow", "safetensors", "peft", "triton", "onednn",
)  # fmt: skip
"""Packages that compute, read or order something of a result; the likeliest to change one come first."""
_COMPUTING_PREFIXES = ("nvidia-", "efficientnet-", "cuda-")
COMPUTING_ROOMS = (
    "training", "data", "models", "strategies", "features", "config", "preparation", "experiment", "resolve",
    "recording", "records", "facts", "seeds", "plugins",
)  # fmt: skip
"""Parts of Headstart that a result passes through."""

Said = tuple[str, bool]
"""A line, and whether it can change a result."""


def package_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Said]:
    """A line for the packages that compute, one for the others, one for Python itself."""
    lines: list[Said] = []
    old, new = before.get("packages") or {}, now.get("packages") or {}
    # a package that one record does not know of: older ones listed fewer
    both = [name for name in {**new, **old} if name in old and name in new] if old and new else []
    if len(old) > len(COMPUTING):
        both = list({**old, **new})
    differing = [name for name in both if old.get(name) != new.get(name) and name != "headstart"]
    computing = sorted((name for name in differing if _computes(name)), key=_place)
    others = sorted(name for name in differing if not _computes(name))
    if computing:
        lines.append((_versions(computing, old, new), True))
    was, is_now = str(before.get("python", "")), str(now.get("python", ""))
    if was and was != is_now:
        lines.append((f"Python {was} -> {is_now}", was.rpartition(".")[0] != is_now.rpartition(".")[0]))
    if others:
        lines.append((f"{_versions(others, old, new)} (these compute nothing of it)", False))
    return lines


def _computes(name: str) -> bool:
    return name in COMPUTING or name.startswith(_COMPUTING_PREFIXES)


def _place(name: str) -> tuple[int, str]:
    return (COMPUTING.index(name) if name in COMPUTING else len(COMPUTING), name)


def _versions(names: list[str], old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    said = [f"{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in names[:6]]
    return ", ".join(said) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def code_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Said]:
    """A line on Headstart's own code, and one on plugins."""
    lines: list[Said] = []
    old, new = before.get("code") or {}, now.get("code") or {}
    commits = [str(one.get("git_commit"))[:10] if one.get("git_commit") else None for one in (before, now)]
    said = f" (commit {commits[0]} -> {commits[1]})" if commits[0] != commits[1] and all(commits) else ""
    rooms = [room for room in {**old, **new} if old.get(room) != new.get(room)] if old else []
    computing = [room for room in COMPUTING_ROOMS if room in rooms]
    if computing:
        lines.append((f"Headstart's own: {', '.join(computing)}{said}", True))
    elif rooms:
        lines.append((f"Headstart's own, in parts that no result passes through: {', '.join(rooms)}{said}", False))
    elif not old and said:
        lines.append((f"Headstart's own{said}", True))
    versions = [(one.get("packages") or {}).get("headstart") for one in (before, now)]
    if versions[0] != versions[1] and all(versions):
        lines.append((f"headstart {versions[0]} -> {versions[1]}", bool(computing) or not old))
    plugged, plugs = before.get("plugins") or {}, now.get("plugins") or {}
    for name in {**plugged, **plugs}:
        if plugged.get(name) != plugs.get(name):
            lines.append((f"plugin {name}: {plugged.get(name, 'absent')} -> {plugs.get(name, 'absent')}", True))
    return lines


_PARTS = (
    ("gpu", "GPU"), ("gpus", "number of GPUs"), ("driver", "GPU driver"), ("cuda", "CUDA"), ("cudnn", "cuDNN"),
    ("cpu", "CPU"), ("cpu_capability", "CPU instructions"), ("threads", "threads"),
)  # fmt: skip


def machine_changes(before: RunRecord, now: RunRecord) -> list[Said]:
    """A line for each part of the machine and each setting that is not what it was."""
    lines = device_changes(before.environment, now.environment)
    for key in ("cudnn_deterministic", "cudnn_benchmark", "float32_matmul_precision", "cublas_workspace"):
        was, is_now = before.determinism.get(key), now.determinism.get(key)
        if was is not None and is_now is not None and was != is_now:
            lines.append((f"{key}: {was} -> {is_now}", True))
    return lines


def device_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Said]:
    """The same of two environments alone."""
    lines: list[Said] = []
    if old.get("gpu") and not new.get("gpu"):
        lines.append((f"no GPU here: the run had {old['gpu']}; its bits cannot be expected again", True))
    else:
        # a GPU computes, so its host's processor does not
        ignored = ("cpu", "cpu_capability") if new.get("gpu") and old.get("gpu") else ()
        for key, name in _PARTS:
            if key in old and old.get(key) != new.get(key) and key not in ignored:
                lines.append((f"{name}: {old.get(key)} -> {new.get(key)}", True))
    was, is_now = old.get("settings"), new.get("settings") or {}
    for name in {**(was or {}), **is_now} if was is not None else ():
        if was.get(name) != is_now.get(name):  # type: ignore[union-attr]
            lines.append((f"${name}: {was.get(name, 'not set')} -> {is_now.get(name, 'not set')}", True))  # type: ignore[union-attr]
    if old.get("os") and old.get("os") != new.get("os"):
        lines.append((f"system: {old['os']} -> {new.get('os')}", False))
    return lines
