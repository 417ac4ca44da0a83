"""What `headstart rank --against` found: how scores agree with training, one data set or several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.compare.statistics.across import aggregate_mean
from headstart.transferability.agreement import Agreement, Figure, Measured, agreements
from headstart.transferability.columns import direction_note
from headstart.transferability.measured import measured_of
from headstart.transferability.published import Tables, mistake, name_twice, read_tables
from headstart.transferability.ranking import STATIC, Ranking
from headstart.transferability.static import PARAMETERS, leave_one_out, static_scores
from headstart.transferability.verdicts import Verdict, verdicts_of

NO_STATIC = "there is none (one data set, and no column `parameters`; rows on other data sets would give one)"


@dataclass(frozen=True)
class OfDataset:
    """The scores of one data set's candidates, and how they agree with what was measured."""

    dataset: str
    measured: tuple[Measured, ...]
    scores: Mapping[str, tuple[float | None, ...]]
    agreements: tuple[Agreement, ...]
    arms: Mapping[str, str] = field(default_factory=dict)
    """Candidate -> the arm that was measured, in words."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mean:
    """A score over several data sets."""

    score: str
    datasets: int
    tau: Figure
    """Mean over data sets; the interval is over these."""
    spearman: Figure
    pearson: Figure
    regret: Figure
    over_static: Figure | None
    """Its tau minus that of the static baseline, paired by data set."""


@dataclass(frozen=True)
class Against:
    """All that is shown."""

    metric: str
    lower_is_better: bool
    static: str
    """What the static baseline is, in words."""
    datasets: tuple[OfDataset, ...]
    means: tuple[Mean, ...] = ()
    """Over data sets, where there are several."""
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None for what is not finite, which JSON has not."""
        found: dict[str, Any] = _finite(
            {
                "metric": self.metric,
                "lower_is_better": self.lower_is_better,
                "static": self.static,
                "datasets": [_plain(one) for one in self.datasets],
                "mean": [dataclasses.asdict(one) for one in self.means],
                "verdicts": [dataclasses.asdict(one) for one in self.verdicts],
                "notes": list(self.notes),
            }
        )
        return found

    def flat_rows(self) -> list[dict[str, Any]]:
        """A flat row per data set and score, then per score over the data sets."""
        rows = [
            {"dataset": of.dataset, "score": one.score, "candidates": one.n}
            | _flat(one)
            | {"chosen": "; ".join(one.chosen), "note": one.note}
            for of in self.datasets
            for one in of.agreements
        ]
        return rows + [
            {"dataset": f"mean of {one.datasets}", "score": one.score, "candidates": None}
            | _flat(one)
            | {"chosen": None, "note": None}
            for one in self.means
        ]


def against_tables(paths: Sequence[Path], *, metric: str | None) -> Against:
    """Long tables: each data set by itself, and the mean over them; raises RecordError as `read_tables` does."""
    read = [read_tables(path, metric=metric) for path in paths]
    if len({one.metric for one in read}) > 1:
        raise mistake(
            f"{paths[0]}, ...: measure different things ({', '.join(sorted({one.metric for one in read}))}); "
            "--metric names the one."
        )
    names = [table.dataset for one in read for table in one.tables]
    if twice := name_twice(names):
        raise mistake(
            f"{', '.join(map(str, paths))}: data set {' or '.join(dict.fromkeys(twice))} is in several files."
        )
    tables = Tables(paths[0], read[0].metric, tuple(table for one in read for table in one.tables))
    lower = tables.lower_is_better
    words, notes = (
        "mean over the other data sets of the table (leave one out, z-scored)",
        direction_note(tables.metric),
    )
    if len(tables.tables) > 1:
        static = leave_one_out(tables.tables, lower=lower)
    else:
        table = tables.tables[0]
        words = PARAMETERS if table.parameters else NO_STATIC
        static = {table.dataset: table.parameters or tuple(None for _ in table.measured)}
    found = []
    for table in tables.tables:
        scores = {name: values for name, values in table.scores.items() if name != STATIC}
        scores[STATIC] = static[table.dataset]
        found.append(
            OfDataset(
                dataset=table.dataset,
                measured=table.measured,
                scores=scores,
                agreements=tuple(agreements(table.measured, scores, lower_is_better=lower)),
                notes=table.notes,
            )
        )
        if STATIC in table.scores:
            notes.append(f"{table.dataset}: its own column `static` is left out; the baseline is made here.")
    return Against(tables.metric, lower, words, tuple(found), means=tuple(means_of(found)), notes=tuple(notes))


def against_ranking(
    ranking: Ranking, paths: Sequence[Path], *, metric: str | None, elsewhere: Sequence[Path] = ()
) -> Against:
    """A ranking of ours beside what its candidates came to; raises RecordError where none of them was trained."""
    found = measured_of(ranking, paths, metric=metric)
    by_name = {one.name: one for one in ranking.candidates}
    candidates = [by_name[one.name] for one in found.measured]
    words = ranking.static
    static: dict[str, float | None] = {one.name: one.scores.get(STATIC) for one in ranking.candidates}
    if elsewhere or all(value is None for value in static.values()):
        words, fresh = static_scores(
            ranking.candidates, elsewhere, fingerprint=ranking.fingerprint, dataset=ranking.dataset
        )
        static = {name: fresh.get(name) for name in static}
    scores = {name: tuple(one.scores.get(name) for one in candidates) for name in ranking.scores if name != STATIC}
    scores[STATIC] = tuple(static[one.name] for one in candidates)
    verdicts, notes = verdicts_of(candidates, found.arms, found.results, found.metric)
    of = OfDataset(
        dataset=ranking.dataset,
        measured=found.measured,
        scores=scores,
        agreements=tuple(agreements(found.measured, scores, lower_is_better=found.lower_is_better)),
        arms={name: arm.label for name, arm in found.arms.items()},
        notes=found.notes,
    )
    notes = [*direction_note(found.metric), *notes]
    return Against(found.metric, found.lower_is_better, words, (of,), verdicts=tuple(verdicts), notes=tuple(notes))


@np.errstate(over="ignore", invalid="ignore")
def means_of(datasets: Sequence[OfDataset]) -> list[Mean]:
    """Each score over the data sets that have it, from three on with an interval; nothing for one data set."""
    if len(datasets) < 2:
        return []
    names = dict.fromkeys(one.score for of in datasets for one in of.agreements if one.score != STATIC)
    found = []
    for name in [*names, STATIC]:
        of = [one for data in datasets for one in data.agreements if one.score == name]
        known = [one for one in of if one.tau.value is not None]
        gaps = [one.over_static for one in known if one.over_static is not None]
        found.append(
            Mean(
                score=name,
                datasets=len(known),
                tau=_mean([one.tau for one in of]),
                spearman=_mean([one.spearman for one in of]),
                pearson=_mean([one.pearson for one in of]),
                regret=_mean([one.regret for one in of], never_negative=True),
                over_static=_mean(gaps) if gaps else None,
            )
        )
    return found


def _mean(figures: Sequence[Figure], *, never_negative: bool = False) -> Figure:
    values = [one.value for one in figures if one.value is not None]
    if not values:
        return Figure(None)
    found = aggregate_mean([[value] for value in values])
    if not math.isfinite(found.value):
        return Figure(None)
    low, high = found.over_datasets or (None, None)
    if low is not None and never_negative:
        low = max(low, 0.0)  # Student's t knows of no bounds
    return Figure(found.value, low, high)


def _finite(value: Any) -> Any:
    """The same with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(of: OfDataset) -> dict[str, Any]:
    candidates = [
        {
            "name": one.name,
            "measured": one.mean,
            "repeats": len(one.repeats),
            "arm": of.arms.get(one.name),
            "scores": {name: values[i] for name, values in of.scores.items()},
        }
        for i, one in enumerate(of.measured)
    ]
    found = [dataclasses.asdict(one) for one in of.agreements]
    return {"dataset": of.dataset, "candidates": candidates, "agreement": found, "notes": list(of.notes)}


def _flat(one: Agreement | Mean) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in ("tau", "spearman", "pearson", "regret", "over_static"):
        figure: Figure = getattr(one, name) or Figure(None)
        column = "tau_over_static" if name == "over_static" else name
        found |= {column: figure.value, f"{column}_low": figure.low, f"{column}_high": figure.high}
    return found
