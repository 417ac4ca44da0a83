"""Per class: where transfer helps, and where it hurts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.compare.comparison import Comparison
from headstart.compare.results import Result
from headstart.compare.rows import Row
from headstart.compare.statistics.intervals import Estimate, averaged, estimate
from headstart.compare.statistics.paired import ALPHA, holm, paired_p
from headstart.compare.statistics.scores import Floats
from headstart.records.confusion import counts_of


@dataclass(frozen=True)
class ClassGain:
    """Recall of one class, against the baseline's; paired."""

    name: str
    images: int
    """Of the class in the test split, of the first pair."""
    recall: float
    baseline_recall: float
    gain: Estimate
    p_holm: float | None
    """Of the paired t test, corrected over the classes of this arm."""
    from_scratch: bool
    """Whether the baseline is training from scratch."""

    @property
    def is_negative(self) -> bool:
        """Whether the interval lies below zero. One class in forty does so by chance."""
        return self.gain.excludes_zero and self.gain.mean < 0

    @property
    def is_sure(self) -> bool:
        """Whether that holds after the correction over classes."""
        return self.p_holm is not None and self.p_holm <= ALPHA

    @property
    def flag(self) -> str:
        """What is said of a class that is worse: `negative transfer` where the baseline is scratch; else empty."""
        if not self.is_negative:
            return ""
        words = "negative transfer" if self.from_scratch else "worse"
        return words if self.is_sure else f"{words} (not after Holm's correction)"


def class_gains(comparison: Comparison, row: Row) -> list[ClassGain]:
    """Gain in recall for each class, in the order of the classes; none where runs have no counts.

    Where an image may have several labels, recall is that of the label at the run's threshold.
    """
    pairs = [(mine, other) for mine, other in comparison.pairs_of(row) if _same_classes(mine, other)]
    tables = [(_recalls(mine), _recalls(other)) for mine, other in pairs]
    if not tables or any(a is None or b is None or len(a) != len(b) for a, b in tables):
        return []
    clusters = [(mine.split_seed, mine.fold) for mine, _ in pairs]
    mine = np.array([a for a, _ in tables], dtype=np.float64)
    other = np.array([b for _, b in tables], dtype=np.float64)
    record = pairs[0][0].record
    names = record.data["class_names"] if record else []
    counts = (record.data.get("class_counts") or {}).get("test") if record else None
    found: list[tuple[Any, ...]] = []
    for i, name in enumerate(names[: mine.shape[1]]):
        known = np.isfinite(mine[:, i]) & np.isfinite(other[:, i])
        if not known.any():
            continue
        gaps = (mine - other)[known, i]
        own = [cluster for cluster, there in zip(clusters, known, strict=True) if there]
        images = int(counts[i]) if counts and i < len(counts) else 0
        p = paired_p(averaged(gaps, own))
        found.append((str(name), images, float(mine[known, i].mean()), float(other[known, i].mean()), gaps, own, p))
    tested = [place for place, one in enumerate(found) if one[-1] is not None]
    corrected = dict(zip(tested, holm([found[place][-1] for place in tested]), strict=True))
    return [
        ClassGain(name, images, a, b, estimate(list(gaps), own), corrected.get(place), row.from_scratch)
        for place, (name, images, a, b, gaps, own, _) in enumerate(found)
    ]


def _same_classes(mine: Result, other: Result) -> bool:
    if mine.record is None or other.record is None:
        return False
    return bool(mine.record.data.get("class_names") == other.record.data.get("class_names"))


def _recalls(run: Result) -> Floats | None:
    """Share of each class's test images that are right; NaN for a class without any. None without counts."""
    table = counts_of(run.record.confusion) if run.record else None
    if table is None:
        return None
    several = run.task == "multilabel"
    if table.shape[1] != (4 if several else table.shape[0]):
        return None
    right = table[:, 3] if several else np.diag(table)
    total = table[:, 2] + table[:, 3] if several else table.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, right / total, np.nan)
