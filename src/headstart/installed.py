"""The packages that Headstart can use here, and the versions they have."""

from __future__ import annotations

import importlib.metadata
import re
from functools import lru_cache

from headstart.plugins import GROUP

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?")


@lru_cache
def packages() -> dict[str, str]:
    """Version of Headstart and of all that it needs, directly or not, extras included where they are installed."""
    found: dict[str, str] = {}
    plugged = [entry.dist.name for entry in importlib.metadata.entry_points(group=GROUP) if entry.dist]
    todo = [(name, "") for name in ("headstart", *map(_normal, plugged))]
    seen, known = set(), dict[str, tuple[str, list[str]] | None]()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        about = known[name] if name in known else known.setdefault(name, _about(name))
        if about is None:
            continue
        found[name] = about[0]
        for requirement in about[1]:
            needed, _, marker = requirement.partition(";")
            match = _NAME.match(needed.strip())
            only_for = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
            # our own extras count wherever they are there, but for the tests'
            if match and (
                only_for is None or only_for[1] == extra or (name == "headstart" and only_for[1] != "dev")
            ):
                extras = ["", *(wanted.strip() for wanted in (match[2] or "").split(",") if wanted)]
                todo += [(_normal(match[1]), wanted) for wanted in extras]
    return dict(sorted(found.items()))


def _about(name: str) -> tuple[str, list[str]] | None:
    """Version and requirements of a package; None where it is not there.

    Only the headers of its metadata are read: below them lies its whole README.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    text = distribution.read_text("METADATA")
    if text is None:  # of an older kind, such as egg-info
        return distribution.version, list(distribution.requires or ())
    headers = [line.partition(": ") for line in text.partition("\n\n")[0].splitlines()]
    versions = [value for key, _, value in headers if key == "Version"]
    return versions[0], [value for key, _, value in headers if key == "Requires-Dist"]


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()
