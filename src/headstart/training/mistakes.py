"""Which test images a run got wrong, the surest first, class by class in turn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.records.mistakes import misses


def choose_mistakes(
    targets: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    probabilities: npt.NDArray[Any],
    *,
    count: int,
) -> list[int]:
    """Places of at most `count` mistakes, taken from the classes in turn, in each the least likely target first.

    `targets` and `predicted` are (n,) or (n, labels), `probabilities` (n, classes); what is a mistake, and of which
    class, is said by `records.mistakes`.
    """
    found = misses(targets, predicted, probabilities)
    turn: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place in found.places:
        group = int(found.label[place])
        ranked.append((turn.get(group, 0), len(ranked), int(place)))
        turn[group] = turn.get(group, 0) + 1
    return [place for _, _, place in sorted(ranked)[:count]]
