"""Keys, tokens and passwords are taken out of everything that a run writes down.

What is taken out: the values of variables that hold secrets by their name, the passwords of the netrc file and the
hub's token, passwords and tokens inside addresses, and words that have the form of a key of Hugging Face, W&B,
GitHub and the like.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

HIDDEN = "***"
_SHORTEST = 8
"""Values of fewer characters are no secrets, and would take ordinary words with them."""

_NAMED = re.compile(
    r"(^|_)(API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)(_|$)|API_KEY$", re.IGNORECASE
)
_OF_PATH = re.compile(r"_(PATH|FILE|DIR)$", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_QUERY = re.compile(
    r"([?&;](?:[\w\-]*(?:token|signature|secret|password|passwd|api_?key|access_?key|credential)[\w\-]*=(?!\*)"
    r"|(?:sig|key|auth)=(?=[^&;#\s'\"]{8})))[^&;#\s'\"]+",
    re.IGNORECASE,
)
_BEARER = re.compile(
    r"(\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\bBearer\s+(?=\S*\d))[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE
)
_KEY = re.compile(
    r"\b(?:hf_(?=[A-Za-z]*\d|[a-z0-9]*[A-Z])[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|wandb_v\d_[A-Za-z0-9_\-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|sk-(?:proj-|ant-)?(?=[A-Za-z_]*\d[A-Za-z_\d]*[A-Za-z])(?=[a-z_0-9]*[A-Z])[A-Za-z0-9_]{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[A-Za-z0-9\-]{10,})"
)
_ASSIGNED = re.compile(
    r"((?:^|[\s,{\"'])[\w.\-]*(?:api_?key|access_?key|(?<!cls_)(?<!dist_)(?<!mask_)token|secret|password|passwd)"
    r"[\"']?\s*[=:]\s*[\"']?)(?![\"'\s])(?!null\b|none\b|true\b|false\b|[\d.e+\-]+(?:[\s\"',}]|$))[^\s\"',}]{8,}",
    re.IGNORECASE,
)
"""Models have tokens too (`cls_token`), and numbers are no secrets."""


def redact(text: str, *, code: bool = False) -> str:
    """`text` with every secret in it replaced by `***`.

    In `code` what is assigned to a variable stays: `token = next(tokens)` gives nothing away, and a patch must
    fit.
    """
    for value in _values():
        text = text.replace(value, HIDDEN)
    if "://" in text:
        text = _USERINFO.sub(HIDDEN, text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _KEY.sub(HIDDEN, text)
    return text if code else _ASSIGNED.sub(rf"\1{HIDDEN}", text)


def holds_secret(value: Any) -> bool:
    """Whether any string in plain data is one that `redact` would change."""
    if isinstance(value, dict):
        return any(holds_secret(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(map(holds_secret, value))
    return isinstance(value, str) and redact(value) != value


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
    named = {name: value for name, value in os.environ.items() if _is_secrets_name(name)}
    found = {*named.values()} | _stored()
    return sorted((value for value in found if _is_one(value)), key=len, reverse=True)


@lru_cache(maxsize=4096)
def _is_secrets_name(name: str) -> bool:
    return bool(_NAMED.search(name)) and not _OF_PATH.search(name)


def _is_one(value: str) -> bool:
    """Not a path, and no single word: with `postgres` half of a machine's paths would go."""
    return (
        len(value) >= _SHORTEST and not value.startswith(("/", "~")) and not (value.isalpha() and value.islower())
    )


def _stored() -> set[str]:
    """Passwords of the user's netrc file, and the hub's token."""
    home = os.environ.get("HF_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "huggingface")  # noqa: PTH111, PTH118
    token = os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")  # noqa: PTH118
    passwords = os.path.expanduser(os.environ.get("NETRC") or "~/.netrc")  # noqa: PTH111
    return {*_passwords(passwords, _changed(passwords)), *_token(token, _changed(token))}


def _changed(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0


@lru_cache(maxsize=8)
def _passwords(path: str, changed: float) -> frozenset[str]:
    try:
        hosts = netrc.netrc(path).hosts if changed else {}
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return frozenset()
    return frozenset(password for _, _, password in hosts.values() if password)


@lru_cache(maxsize=8)
def _token(path: str, changed: float) -> frozenset[str]:
    try:
        return frozenset({Path(path).read_text(encoding="utf-8").strip()}) if changed else frozenset()
    except (OSError, UnicodeDecodeError):
        return frozenset()


@contextmanager
def redacted_output() -> Iterator[None]:
    """Whatever this process prints or logs meanwhile goes without its secrets."""
    streams = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        _redact_logging()
        try:
            yield
        finally:
            for stream in streams:
                stream.flush()


def _redact_logging() -> None:
    """Let handlers that log to this process's outputs log to what stands in their place now.

    Libraries' handlers keep the stream that was there when they were imported.
    """
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    for handler in (handler for logger in (logging.root, *named) for handler in logger.handlers):
        stream = getattr(handler, "stream", None)
        if isinstance(handler, logging.StreamHandler) and stream in (sys.__stdout__, sys.__stderr__):
            handler.setStream(sys.stdout if stream is sys.__stdout__ else sys.stderr)


def show_traceback(error: BaseException) -> None:
    """Print what Python prints of an exception that nobody caught, without its secrets."""
    print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)


class RedactedStream:
    """A text stream that redacts what is written to it, line by line; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Write whole lines of `text` without their secrets; returns how many characters of it were taken."""
        self._begun += text
        end = 1 + max(self._begun.rfind("\n"), self._begun.rfind("\r"))
        whole, self._begun = self._begun[:end], self._begun[end:]
        if whole:
            self._stream.write(redact(whole))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write a line that was begun as well."""
        if self._begun:
            self._stream.write(redact(self._begun))
            self._begun = ""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
