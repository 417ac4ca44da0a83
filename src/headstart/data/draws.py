"""Random numbers of an example: functions of (seed, epoch, id), whoever asks for them, and in whatever order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from headstart.seeds import derive

Keys = npt.NDArray[np.uint64]
Draws = npt.NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def keys_of(ids: Iterable[str]) -> Keys:
    """(n,) 64 bits of each id."""
    digests = [hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in ids]
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)


def uniforms(keys: Keys, *, seed: int, epoch: int, count: int) -> Draws:
    """(n, count) numbers in [0, 1), `count` for each key: splitmix64 (Steele, Lea and Flood 2014) from its hash."""
    start = np.full(1, derive(seed, "augment", epoch), dtype=np.uint64)
    state = mixed(keys ^ mixed(start))
    steps = np.arange(1, count + 1, dtype=np.uint64) * _STEP
    bits = mixed(state[:, None] + steps) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def mixed(state: Keys) -> Keys:
    """(n,) other 64 bits for each: the finaliser of splitmix64, which maps no two to the same."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
