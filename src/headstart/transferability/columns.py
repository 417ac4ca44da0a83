"""What the columns of a table are, by their names: what training measured, and what is no score."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.config.checks import LOWER_IS_BETTER, METRICS

LESS = (
    *LOWER_IS_BETTER,
    *("error", "err", "error_rate", "nll", "brier", "brier_score", "perplexity", "loss", "cross_entropy"),
)
"""Metrics of which less is better: those of our runs, and others' names."""
_OURS = {"accuracy", *(name for names in METRICS.values() for name in names)}
KNOWN = frozenset({*_OURS, *LESS, "acc"})
"""Metrics whose direction is known."""


def is_lower_better(metric: str) -> bool:
    """Whether less of a measured column is better, by its name: `test/log_loss`, `finetuned_rmse`, `error`."""
    return _named(metric) in LESS


def is_known(metric: str) -> bool:
    """Whether a column is, or ends in, the name of a metric whose direction is known."""
    return bool(_named(metric))


def direction_note(metric: str) -> list[str]:
    """What is to be said where the name does not tell which way is better."""
    if is_known(metric):
        return []
    return [f"{metric} is no metric that is known here: higher is taken as better."]


def is_measured(name: str) -> bool:
    """Whether a column is taken by itself for what training measured: a known metric under `test/`, or one that is
    or ends in a metric of our runs (`finetuned_accuracy`)."""
    plain = name.lower()
    if plain.startswith("val/"):
        return False
    return _named(plain) in (KNOWN if plain.startswith("test/") else _OURS)


def _named(column: str) -> str:
    """The metric that a column is or ends in, the longest that fits; empty for none."""
    last = column.lower().rpartition("/")[2]
    fitting = [name for name in KNOWN if last == name or last.endswith(f"_{name}")]
    return max(fitting, key=len, default="")


def of_tests(columns: Sequence[str]) -> list[str]:
    """Those under `test/`."""
    return [name for name in columns if name.lower().startswith("test/")]
