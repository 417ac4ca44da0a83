"""Learning curves: what a run's metrics.csv says of the metric that is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.results import Result
from headstart.compare.statistics.scores import Floats
from headstart.errors import RecordError
from headstart.records.tables import METRICS, read_rows


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


@dataclass(frozen=True)
class Curve:
    """A validation metric as training went on; arrays (evaluations,), from the first to the last."""

    steps: Floats
    epochs: Floats
    seconds: Floats
    images: Floats
    """Training images seen, each as often as it was seen."""
    values: Floats


def curve_of(result: Result, metric: str) -> Curve | None:
    """The curve of a run, of `metric` on the validation split; None where there is none, or it cannot be read."""
    if result.folder is None or result.record is None:
        return None
    name = f"val/{metric.partition('/')[2]}"
    try:
        rows = [row for row in read_rows(result.folder / METRICS) if name in row and "step" in row]
    except RecordError:
        return None
    needed = (name, "step", *(key for key in ("epoch", "seconds") if any(key in row for row in rows)))
    rows = [row for row in rows if all(_is_finite(row.get(key, 0)) for key in needed) and row["step"] > 0]
    if not rows:
        return None
    steps = np.array([row["step"] for row in rows], dtype=np.float64)
    batch = float(result.config["data"].get("batch_size") or 1)
    return Curve(
        steps=steps,
        epochs=np.array([row.get("epoch", np.nan) for row in rows], dtype=np.float64),
        seconds=np.array([row.get("seconds", np.nan) for row in rows], dtype=np.float64),
        images=steps * batch,
        values=np.array([row[name] for row in rows], dtype=np.float64),
    )


def mean_curve(curves: Sequence[Curve]) -> tuple[Floats, Floats] | None:
    """Steps (k,) that all curves have, and their values there (curves, k); None where they share none."""
    if not curves:
        return None
    shared = set(curves[0].steps)
    for curve in curves[1:]:
        shared &= set(curve.steps)
    steps = np.array(sorted(shared))
    if not len(steps):
        return None
    return steps, np.array([curve.values[np.isin(curve.steps, steps)] for curve in curves])
