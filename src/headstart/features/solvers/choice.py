"""What a solver hands back: a row per candidate, and the one that the validation images chose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call

from headstart.config.checks import lower_is_better
from headstart.errors import RunFailed
from headstart.facts import Task
from headstart.training.metrics import DEFAULT_THRESHOLD, THRESHOLD, best_threshold, evaluate

Examples = tuple[torch.Tensor, torch.Tensor]
"""Features (n, width) in float32 and targets: (n,) of class indices, (n, labels) of 0 and 1, or (n, numbers)."""
State = dict[str, torch.Tensor]
Seen = Callable[[int], None]
"""Is told how many candidates are solved and scored."""
GAP = "gap"
"""In the row of a fit that is not in closed form: a bound of its objective per example above the lowest."""
ROWS = 4096
"""Examples that a head scores at once."""


@dataclass(frozen=True)
class Solved:
    """A solved head."""

    state: State
    """Of the head, as `load_state_dict` takes it."""
    rows: list[dict[str, Any]]
    """For metrics.csv: one per candidate, the strongest penalty or most neighbours first; `epoch` and `step` count
    them. Where it was refitted on train and validation, a last one of that fit, with its `fit/` metrics."""
    best: dict[str, Any]
    """Epoch, step, monitor and value of the candidate that was chosen."""
    row: dict[str, Any]
    """The row of what is kept: the chosen one, or that of the refit."""
    threshold: float
    """The probability above which a label counts as predicted, as the chosen row says."""
    about: dict[str, Any]
    """For the record."""


@dataclass(frozen=True)
class Candidate:
    """One fit among several."""

    state: State
    says: dict[str, Any]
    """What its row says beside metrics."""


@dataclass(frozen=True)
class Judge:
    """How candidates are scored and compared."""

    head: nn.Module
    task: Task
    monitor: str
    threshold: float | Literal["validation"] | None

    def scores(self, state: State, features: torch.Tensor) -> torch.Tensor:
        """What the head says with such a state, on the CPU; raises RunFailed where that is not finite."""
        with torch.no_grad():
            found = [functional_call(self.head, state, (part,), strict=True) for part in features.split(ROWS)]
        scores = torch.cat(found).float().cpu()
        if not bool(torch.isfinite(scores).all()):
            raise RunFailed("the scores of the validation images are not finite.")
        return scores

    def values(self, state: State, examples: Examples, *, split: str) -> tuple[dict[str, float], float]:
        """Metrics of some examples, and the threshold that they are with."""
        features, targets = examples
        scores = self.scores(state, features)
        threshold, chosen = DEFAULT_THRESHOLD, {}
        if self.threshold == "validation" and split == "val":
            threshold = best_threshold(scores, targets)
            chosen = {THRESHOLD: threshold}
        elif isinstance(self.threshold, int | float):
            threshold = float(self.threshold)
        return evaluate(scores, targets, task=self.task, split=split, threshold=threshold) | chosen, threshold

    def better(self, value: float, before: float) -> bool:
        """Whether one value of the monitored metric beats another; one that is no number beats nothing."""
        if math.isnan(value) or math.isnan(before):
            return not math.isnan(value)
        return value < before if lower_is_better(self.monitor) else value > before


def choose(
    candidates: Iterable[Candidate],
    val: Examples,
    judge: Judge,
    *,
    about: Mapping[str, Any],
    seen: Seen | None = None,
) -> tuple[Solved, int]:
    """Score each candidate on validation; of several that are best the first. Its place comes with it."""
    rows: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    kept: tuple[State, dict[str, Any], float] | None = None
    for step, candidate in enumerate(candidates, start=1):
        values, threshold = judge.values(candidate.state, val, split="val")
        row = {"epoch": step, "step": step, **candidate.says, **values}
        rows.append(row)
        value = row[judge.monitor]
        if kept is None or judge.better(value, best["value"]):
            best = {"epoch": step, "step": step, "monitor": judge.monitor, "value": value}
            kept = candidate.state, row, threshold
        if seen is not None:
            seen(step)
    if kept is None:
        raise ValueError("there is no candidate")
    state, row, threshold = kept
    gaps = [row[GAP] for row in rows if GAP in row]
    exactness = {"largest_gap": max(gaps)} if gaps else {}
    return Solved(state, rows, best, row, threshold, {**about, **exactness}), best["step"] - 1


def refitted(
    chosen: Solved,
    again: Callable[[], Candidate] | None,
    every: Examples,
    judge: Judge,
    *,
    about: Mapping[str, Any],
) -> Solved:
    """What was chosen, fitted by `again` to all examples where it is to be, with a row of what that came to."""
    about = {**chosen.about, **about}
    if again is None:
        return replace(chosen, about=about)
    candidate = again()
    values, threshold = judge.values(candidate.state, every, split="fit")
    step = len(chosen.rows) + 1
    row = {"epoch": step, "step": step, **candidate.says, **values}
    return Solved(candidate.state, [*chosen.rows, row], chosen.best, row, threshold, about)
