"""Seeds that are functions of what they are for, so that no draw depends on the draws before it."""

from __future__ import annotations

import hashlib


def derive(seed: int, *path: int | str) -> int:
    """A seed below 2**63 for one purpose, such as `derive(seed, "dropout", step)`.

    Other paths give unrelated seeds; the same path gives the same seed on every machine.
    """
    text = "\0".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
