"""The versions that a run was made with, as pip reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def requirements_of(environment: Mapping[str, Any]) -> str:
    """A requirements file from a record's `environment`; what pip cannot install stands in comments."""
    packages = environment.get("packages") or {}
    commit = environment.get("git_commit")
    lines = [f"# Python {environment.get('python', 'unknown')}"]
    if "headstart" in packages:
        changed = ", with changes that code.patch of the run has" if environment.get("git_dirty") else ""
        lines.append(f"# headstart {packages['headstart']}" + (f", commit {commit}{changed}" if commit else ""))
    # +cu130 and the like name a build, which the index has under the plain version
    lines += [
        f"{name}=={str(version).partition('+')[0]}"
        for name, version in sorted(packages.items())
        if name != "headstart"
    ]
    return "\n".join(lines) + "\n"
