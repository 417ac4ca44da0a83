"""The versions that a run was made with, as pip reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,80}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+_-]{0,60}")
"""PEP 508 and 440, roughly: a line is a package and its version, and can be nothing else."""


def _plain(value: Any) -> str:
    return re.sub(r"[^0-9A-Za-z.+_-]", "?", str(value))[:60] if value else ""


def requirements_of(environment: Mapping[str, Any]) -> str:
    """A requirements file from a record's `environment`; what pip cannot install stands in comments."""
    packages = environment.get("packages") or {}
    commit = _plain(environment.get("git_commit"))
    lines = [f"# Python {_plain(environment.get('python')) or 'unknown'}"]
    if "headstart" in packages:
        changed = ", with changes that code.patch of the run has" if environment.get("git_dirty") else ""
        lines.append(
            f"# headstart {_plain(packages['headstart'])}" + (f", commit {commit}{changed}" if commit else "")
        )
    # +cu130 and the like name a build, which the index has under the plain version
    lines += [
        f"{name}=={str(version).partition('+')[0]}"
        for name, version in sorted(packages.items())
        if name != "headstart" and _NAME.fullmatch(name) and _VERSION.fullmatch(str(version))
    ]
    return "\n".join(lines) + "\n"
