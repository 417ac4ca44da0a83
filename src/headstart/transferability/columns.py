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
BUDGETS = frozenset(
    {
        *("steps", "epochs", "step", "epoch", "iterations", "batch_size", "learning_rate", "lr", "weight_decay"),
        *("train_examples", "train_size", "images", "shots", "trials"),
        *("seconds", "minutes", "hours", "gpu_hours", "images_per_second", "memory_bytes"),
    }
)
"""What was spent, and settings of training: no scores."""
_ENDS = ("_place_low", "_place_high", "_low", "_high")
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


def scores_among(numeric: Sequence[str], measured: str) -> list[str]:
    """The columns of numbers that are scores beside the measured one.

    None are: what lies under `test/` and `val/`; metrics that begin as the measured one does (`finetuned_log_loss`
    beside `finetuned_accuracy`); budgets; the place and the ends of intervals that a ranking's own rows have.
    """
    metric = _named(measured)
    begins = measured.lower()[: -len(metric)] if metric else None
    others = {f"{begins}{name}" for name in KNOWN} if begins is not None else set()
    none = {*others, *BUDGETS, "place", measured.lower()}
    ends = {f"{name}{end}" for name in numeric for end in _ENDS}
    return [
        name
        for name in numeric
        if name.lower() not in none and name not in ends and not name.lower().startswith(("test/", "val/"))
    ]


def _named(column: str) -> str:
    """The metric that a column is or ends in, the longest that fits; empty for none."""
    last = column.lower().rpartition("/")[2]
    fitting = [name for name in KNOWN if last == name or last.endswith(f"_{name}")]
    return max(fitting, key=len, default="")


def of_tests(columns: Sequence[str]) -> list[str]:
    """Those under `test/`."""
    return [name for name in columns if name.lower().startswith("test/")]
