"""What others wrote may hold a terminal's commands; they are shown, not obeyed."""

from __future__ import annotations

import re

# the controls of ASCII and Latin-1, and those that turn the direction of writing around
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with every control character as an escape, but for line feeds and tabs."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same with line feeds and tabs escaped too: for names that stand within a line."""
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")
