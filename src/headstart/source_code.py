"""Which code ran: Headstart's own files, the commit and what was not committed, and the plugins'."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.plugins import GROUP
from headstart.redaction import redact

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parents[1]
"""The repository, where Headstart runs from one."""
LARGEST_PATCH = 1_000_000
"""Characters; a longer one is not kept."""


@lru_cache
def describe_code() -> dict[str, Any]:
    """What a record's `environment` says of code: digests of each part of Headstart, commit, plugins."""
    text = patch()
    return {
        "code": digests(PACKAGE),
        **_commit(),
        "git_patch_sha256": hashlib.sha256(text.encode()).hexdigest() if text else None,
        "plugins": _plugins(),
    }


def digests(package: Path) -> dict[str, str]:
    """First 16 hex digits of the SHA-256 over the Python files of each folder and file right in a package."""
    found = {}
    for entry in sorted(package.iterdir()):
        files = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry] if entry.suffix == ".py" else []
        if files:
            found[entry.stem] = _digest(files, package)
    return found


def _digest(files: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache
def patch() -> str:
    """What was changed since the commit in Headstart's own code, as `git apply` takes it; empty where nothing was.

    Files that git does not know yet are in it. Without its secrets.
    """
    if not (ROOT / ".git").exists():
        return ""
    try:
        text = _git("diff", "HEAD", "--", "src", "conf")
        fresh = _git("ls-files", "--others", "--exclude-standard", "--", "src", "conf").splitlines()
        for name in fresh:
            # the answer 1 says that the files differ, which they do
            text += _git("diff", "--no-index", "--", "/dev/null", name, fine=(0, 1))
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return redact(text, code=True) if len(text) <= LARGEST_PATCH else ""


def _commit() -> dict[str, Any]:
    """Commit of Headstart's own code, where it runs from a repository."""
    if not (ROOT / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        return {
            "git_commit": _git("rev-parse", "HEAD").strip(),
            "git_dirty": bool(_git("status", "--porcelain", "--", "src", "conf").strip()),
        }
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return {"git_commit": None, "git_dirty": None}


def _git(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    if done.returncode not in fine:
        raise subprocess.SubprocessError(done.stderr)
    return done.stdout


def _plugins() -> dict[str, str]:
    """Each plugin's package with its version and the digest of its files, by the name of its entry point."""
    found = {}
    for entry in entry_points(group=GROUP):
        top = entry.value.partition(":")[0].partition(".")[0]
        spec = find_spec(top)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
        files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
        if spec and spec.origin and not folders:
            files = [Path(spec.origin)]
        root = folders[0] if folders else files[0].parent if files else PACKAGE
        version = entry.dist.version if entry.dist else "?"
        found[entry.name] = f"{top} {version} {_digest(files, root)}"
    return found
