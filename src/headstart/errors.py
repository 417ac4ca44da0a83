"""What a person sees when something is wrong: one or two lines, never a traceback.

A `HeadstartError` is a mistake that its reader can mend (exit status 2). `RunFailed` is a run that was
started properly and came to nothing (exit status 3). Anything else is a fault of ours (exit status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeadstartError(Exception):
    """A mistake in what was asked for; the message names the key or file and what would be right."""

    exit_status = 2


class ConfigError(HeadstartError):
    """A key, a value or a combination of values that cannot be."""


class DataError(HeadstartError):
    """The images or labels cannot be used as they are."""


class WeightsError(HeadstartError):
    """Pretrained weights that are missing, out of reach or of another architecture."""


class RecordError(HeadstartError):
    """A run folder or record that cannot be read."""


class RunFailed(HeadstartError):
    """A run that started and did not end well; its record says so too."""

    exit_status = 3


class OutOfMemory(RunFailed):
    """A run that memory was too small for."""


class DiskTrouble(RunFailed):
    """A run that could not be written down any further; what was written is whole."""


class RunPruned(HeadstartError):
    """A trial that was stopped because it was no good; its record says so too."""

    exit_status = 3


def listed(names: Sequence[str], *, most: int) -> str:
    """Names in a row, of many the first `most` and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(word: str, candidates: Iterable[str], *, count: int = 1) -> list[str]:
    """The `count` candidates most like `word`, best first; empty where none is near."""
    return difflib.get_close_matches(word, sorted(set(candidates)), n=count, cutoff=0.55)


def did_you_mean(word: str, candidates: Iterable[str], *, count: int = 1) -> str:
    """` Did you mean 'x'?`, with a leading space, or an empty string."""
    names = nearest(word, candidates, count=count)
    return f" Did you mean {' or '.join(repr(name) for name in names)}?" if names else ""
