"""Backbones in order, strategy by strategy: a linear probe and fine-tuning need not agree on which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.compare.comparison import Comparison
from headstart.compare.rows import Row


@dataclass(frozen=True)
class Ranking:
    """The backbones of one data set under one strategy, best first."""

    dataset: str
    labels: str
    strategy: str
    order: tuple[tuple[str, float], ...]
    """(backbone, mean of the metric)."""
    agreement: float | None
    """Kendall's tau-b with the first strategy of the same data set; None for that one itself, or where it ties."""


def rankings(comparison: Comparison) -> list[Ranking]:
    """A ranking per data set and strategy, where two backbones or more were transferred in two ways or more."""
    groups: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    names: dict[str, tuple[str, str]] = {}
    for row in comparison.rows:
        example = comparison.arms_by_key[row.key].example
        if example.record is None or row.value is None or example.config["weights"]["source"] == "scratch":
            continue
        strategy, backbone = _strategy(row, comparison), str(example.config["backbone"]["name"])
        place = groups.setdefault((example.setting.key, str(example.config["weights"]["source"])), {})
        # of several variants the first: the best of them by the test would flatter what was tried most
        place.setdefault(strategy, {}).setdefault(backbone, row.value.mean)
        names[example.setting.key] = (example.setting.dataset, example.setting.labels)
    found = []
    for (key, _), by_strategy in groups.items():
        shared = set.intersection(*(set(of) for of in by_strategy.values()))
        if len(by_strategy) < 2 or len(shared) < 2:
            continue
        first: list[float] | None = None
        for strategy, of in by_strategy.items():
            ordered = sorted(shared)
            values = [of[name] for name in ordered]
            order = sorted(((name, of[name]) for name in shared), key=lambda one: one[1])
            found.append(
                Ranking(
                    *names[key],
                    strategy,
                    tuple(order if comparison.lower_is_better else reversed(order)),
                    kendall_tau(first, values) if first is not None else None,
                )
            )
            first = first or values
    return found


def _strategy(row: Row, comparison: Comparison) -> str:
    return str(comparison.arms_by_key[row.key].example.config["strategy"]["name"])


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings of the same things; None where either has ties alone."""
    concordant = ties_a = ties_b = pairs = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = _sign(a[i] - a[j]), _sign(b[i] - b[j])
            pairs += 1
            concordant += x * y
            ties_a += x == 0
            ties_b += y == 0
    scale = ((pairs - ties_a) * (pairs - ties_b)) ** 0.5
    return concordant / scale if scale else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
