"""Which test images a run got wrong, the surest first, class by class in turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def choose_mistakes(
    targets: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], *, count: int
) -> list[int]:
    """Places of at most `count` mistakes, taken from the classes in turn, in each the least likely target first.

    `targets` is (n,) or (n, labels), `probabilities` (n, classes). Where an image may have several labels, a
    mistake is an image with any label on the wrong side of 0.5, and its class is the one that is furthest off.
    """
    places = np.arange(len(targets))
    if targets.ndim == 1:
        of_target = probabilities[places, targets]
        wrong = probabilities.argmax(axis=1) != targets
        groups = targets
    else:
        right = np.where(targets == 1, probabilities, 1 - probabilities)
        of_target, groups = right.min(axis=1), right.argmin(axis=1)
        wrong = ((probabilities > 0.5) != (targets == 1)).any(axis=1)
    order = places[wrong][np.argsort(of_target[wrong], kind="stable")]
    turn: dict[int, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for place in order:
        group = int(groups[place])
        ranked.append((turn.get(group, 0), len(ranked), int(place)))
        turn[group] = turn.get(group, 0) + 1
    return [place for _, _, place in sorted(ranked)[:count]]
