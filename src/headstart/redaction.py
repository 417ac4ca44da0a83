"""Keys, tokens and passwords are taken out of everything that a run writes down.

What is taken out: the values of variables that hold secrets by their name, passwords and tokens inside addresses,
and words that have the form of a key of Hugging Face, W&B, GitHub and the like.
"""

from __future__ import annotations

import os
import re
from typing import Any, TextIO

HIDDEN = "***"
_SHORTEST = 8
"""Values of fewer characters are no secrets, and would take ordinary words with them."""

_NAMED = re.compile(
    r"(^|_)(API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(_|$)|API_KEY$", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_QUERY = re.compile(
    r"([?&;](?:[\w\-]*(?:token|signature|secret|password|passwd|api_?key|access_?key|credential)[\w\-]*|sig|key|auth)=)"
    r"[^&;#\s'\"]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE)
_KEY = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|wandb_v\d_[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|sk-[A-Za-z0-9_\-]{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[A-Za-z0-9\-]{10,})"
)
_ASSIGNED = re.compile(
    r"((?:^|[\s,{\"'])[\w.\-]*(?:api_?key|access_?key|token|secret|password|passwd)[\"']?\s*[=:]\s*[\"']?)"
    r"(?![\"'\s])(?!null\b|none\b|true\b|false\b)[^\s\"',}]{8,}",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` with every secret in it replaced by `***`."""
    for value in _values():
        text = text.replace(value, HIDDEN)
    if "://" in text:
        text = _USERINFO.sub(HIDDEN, text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _KEY.sub(HIDDEN, text)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def has_secret(text: str) -> bool:
    """Whether `redact` would change it."""
    return redact(text) != text


def redacted(value: Any) -> Any:
    """Plain data with every string in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def _values() -> list[str]:
    """What the environment holds under names of secrets, the longest first."""
    found = {value for name, value in os.environ.items() if _NAMED.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


class RedactedStream:
    """A text stream that redacts what is written to it, line by line; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text` without its secrets; returns how many characters of it were taken."""
        self._stream.write(redact(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
