"""What training measured of a ranking's candidates: runs of a sweep, or rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.compare.results import Result
from headstart.compare.sources import find_results
from headstart.config.checks import METRICS
from headstart.errors import did_you_mean, listed
from headstart.transferability.agreement import Measured
from headstart.transferability.columns import is_lower_better
from headstart.transferability.matching import BestArm, Setting, best_arm, models_of, settings
from headstart.transferability.published import mistake, plain_name, read_tables
from headstart.transferability.ranking import Ranking

MOST_NAMED = 6


@dataclass(frozen=True)
class OfCandidates:
    """The candidates that were trained, in the order of the ranking."""

    metric: str
    lower_is_better: bool
    measured: tuple[Measured, ...]
    arms: Mapping[str, BestArm]
    """Candidate -> the arm that stands for it; empty for rows of a table."""
    results: tuple[Result, ...]
    """All runs on the same data set and number of labels."""
    notes: tuple[str, ...]


def measured_of(ranking: Ranking, paths: Sequence[Path], *, metric: str | None = None) -> OfCandidates:
    """Find what training measured of the candidates, on the ranking's data set alone.

    Runs count that are completed and tested, with the candidate's architecture and weights, on the data of the
    ranking's fingerprint; with several numbers of labels, those of as many training images as it was made of. Of
    several arms of a candidate the best by validation stands for it. A CSV table names them in a column `model`.
    Raises RecordError where nothing matches, with what there is.
    """
    tables = [path for path in paths if path.suffix.lower() == ".csv"]
    if tables and len(tables) < len(paths):
        raise mistake(f"{tables[0]}: give tables alone, or runs and sweeps alone: their metrics may differ.")
    if len(tables) > 1:
        raise mistake(f"{tables[1]}: with --ranking there is one table.")
    return _of_table(ranking, tables[0], metric) if tables else _of_runs(ranking, paths, metric)


def _of_runs(ranking: Ranking, paths: Sequence[Path], metric: str | None) -> OfCandidates:
    results, notes = find_results(paths)
    _check_metric(metric, ranking, results)
    setting, further = _setting(ranking, settings(results, metric=metric), paths)
    notes += further
    labels = {one.name: one.label for one in ranking.candidates}
    found = {one.name: best_arm(one, setting, ranking.candidates) for one in ranking.candidates}
    arms = {name: arm for name, arm in found.items() if arm is not None}
    if not arms:
        have = list(dict.fromkeys(_said(arm.example) for arm in setting.arms))
        names = [one.name for one in ranking.candidates]
        raise mistake(
            f"{_paths(paths)}: no run with {setting.metric} is of a candidate "
            f"({_list(names)}); the runs on {setting.dataset} are of {_list(have)}."
        )
    if missing := [name for name in found if name not in arms]:
        notes.append(f"not trained, left out: {_list([labels[name] for name in missing])}.")
    notes += _choices(arms, labels)
    strategies = {name: arm.strategy for name, arm in arms.items()}
    if len(set(strategies.values())) > 1:
        by = [
            f"{strategy} ({_list([labels[name] for name, own in strategies.items() if own == strategy])})"
            for strategy in dict.fromkeys(strategies.values())
        ]
        notes.append(f"candidates are measured with different strategies: {'; '.join(by)}.")
    keys = {arm.setting.key for arm in setting.arms}
    return OfCandidates(
        metric=setting.metric,
        lower_is_better=is_lower_better(setting.metric),
        measured=tuple(Measured(name, arm.repeats, labels[name]) for name, arm in arms.items()),
        arms=arms,
        results=tuple(one for one in results if one.setting.key in keys),
        notes=tuple(notes),
    )


def _choices(arms: Mapping[str, BestArm], labels: Mapping[str, str]) -> list[str]:
    """Which of several arms stand for which candidates; one line where it is the same for many."""
    same: dict[tuple[str, str, str], list[str]] = {}
    for name, arm in arms.items():
        if arm.others:
            same.setdefault((arm.label, arm.by, _list(arm.others)), []).append(labels[name])
    return [
        f"{label} stands for {_list(names)} ({by}); also there: {others}."
        for (label, by, others), names in same.items()
    ]


def _check_metric(metric: str | None, ranking: Ranking, results: Sequence[Result]) -> None:
    have = dict.fromkeys(name for one in results for name, value in one.metrics.items() if value is not None)
    if metric is not None and metric not in have:
        known = [f"test/{name}" for name in METRICS.get(ranking.task, ())]
        hint = did_you_mean(metric, [*known, *have]) or f" They have {_list(list(have)) or 'none'}."
        raise mistake(f"--metric {metric}: none of these runs has it.{hint}")


def _setting(ranking: Ranking, found: Sequence[Setting], paths: Sequence[Path]) -> tuple[Setting, list[str]]:
    """The setting on the ranking's data set that has as many training images, else the one with the most."""
    same = [one for one in found if one.fingerprint == ranking.fingerprint]
    if not same:
        others = dict.fromkeys(f"{one.dataset} ({one.fingerprint[:8]})" for one in found)
        raise mistake(
            f"{_paths(paths)}: no completed run is on the ranking's data set, {ranking.dataset} "
            f"({ranking.fingerprint[:8]}); there are runs on {_list(list(others)) or 'none'} (other sets are for "
            "--elsewhere)."
        )
    notes = []
    if left := len(found) - len(same):
        notes.append(f"runs on {left} other data set{'s' if left > 1 else ''} left out (--elsewhere is for them).")
    exact = [one for one in same if one.images == ranking.images]
    of = exact or sorted(same, key=lambda one: one.images or 0, reverse=True)
    chosen = max(
        of, key=lambda one: sum(best_arm(c, one, ranking.candidates) is not None for c in ranking.candidates)
    )
    if not exact:
        notes.append(f"trained on {chosen.images} images; the ranking was made of {ranking.images}.")
    elif len(same) > 1:
        notes.append(f"runs with other numbers of labels than {chosen.images} left out.")
    return chosen, notes


def _of_table(ranking: Ranking, path: Path, metric: str | None) -> OfCandidates:
    tables = read_tables(path, metric=metric, with_scores=False)
    named = [one for one in tables.tables if plain_name(one.dataset) == plain_name(ranking.dataset)]
    notes = []
    if not named and len(tables.tables) > 1:
        raise mistake(
            f"{path}: has no rows on {ranking.dataset}; its data sets are "
            f"{_list([one.dataset for one in tables.tables])}."
        )
    table = (named or list(tables.tables))[0]
    if not named:
        said = f"they say {table.dataset}" if table.is_named else "they do not say which"
        notes.append(f"the table's rows are taken to be on {ranking.dataset} ({said}).")
    rows = {one.name: one for one in table.measured}
    labels = {one.name: one.label for one in ranking.candidates}
    models = models_of(ranking.candidates, list(rows))
    if not models:
        raise mistake(
            f"{path}: no row on {table.dataset} is of a candidate ({_list([c.name for c in ranking.candidates])}); "
            f"its models are {_list(list(rows))}."
        )
    if missing := [one.name for one in ranking.candidates if one.name not in models]:
        notes.append(f"not in the table, left out: {_list(missing)}.")
    measured = tuple(Measured(name, rows[model].repeats, labels[name]) for name, model in models.items())
    return OfCandidates(tables.metric, tables.lower_is_better, measured, {}, (), tuple(notes))


def _said(result: Result) -> str:
    return f"{result.config['backbone']['name']} ({result.config['weights']['source']})"


def _list(names: Sequence[str]) -> str:
    return listed(names, most=MOST_NAMED)


def _paths(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))
