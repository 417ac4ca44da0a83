"""The baseline that ignores the data: how well each candidate did on other data sets, else how large it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from headstart.compare.sources import find_results
from headstart.config.checks import lower_is_better
from headstart.transferability.correlation import scaled
from headstart.transferability.matching import best_arm, models_of, settings
from headstart.transferability.published import Table, Tables, mistake, plain_name, read_tables
from headstart.transferability.ranking import Ranked

PARAMETERS = "number of parameters"
FEWEST = 2
"""Candidates that results on other sets must cover to be a baseline."""


def static_scores(
    candidates: Sequence[Ranked], elsewhere: Sequence[Path], *, fingerprint: str = "", dataset: str = ""
) -> tuple[str, dict[str, float]]:
    """The static baseline of some candidates: what it is, in words, and a score by candidate's name.

    With results `elsewhere` (CSV tables with a column `model`, sweeps, runs, folders above them) that cover two
    candidates or more, it is the mean over the other data sets of the z-scored metric; a candidate without any has
    no score. Else it is the number of parameters of the backbone. Results on the data set of `fingerprint` (runs)
    or of the name `dataset` (tables; CIFAR-10 is cifar10) are left out: they would be the answer. Raises
    RecordError where a path holds no results, or a table does not say which data set its rows are on.
    """
    tables = [path for path in elsewhere if path.suffix.lower() == ".csv"]
    sets = [values for path in tables for values in _of_table(path, candidates, dataset)]
    sets += _of_runs([path for path in elsewhere if path not in tables], candidates, fingerprint)
    scores = mean_elsewhere([one for one in sets if len(one) >= FEWEST])
    sizes = {one.name: float(one.parameters) for one in candidates}
    if len(scores) >= FEWEST:
        used = sum(len(one) >= FEWEST for one in sets)
        words = f"mean over {used} other data set{'s' if used > 1 else ''}"
        if len(scores) < len(candidates):
            words += f" (covers {len(scores)} of {len(candidates)} candidates)"
        return words, scores
    if elsewhere:
        covered = len({name for one in sets for name in one})
        return f"{PARAMETERS} (the results elsewhere cover {covered} of {len(candidates)} candidates)", sizes
    return PARAMETERS, sizes


def check_elsewhere(paths: Sequence[Path]) -> None:
    """Raise RecordError for a table that cannot be results on other data sets."""
    for path in paths:
        if path.suffix.lower() == ".csv":
            _read(path)


def mean_elsewhere(sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over data sets of the z-scored values (higher is better) of each name, over the sets that have it.

    Each set is scaled by the mean and the standard deviation of the values it has, so that none counts for its
    spread; one whose values are all the same says nothing, and is left out,
    as are values that are not finite.
    """
    found: dict[str, list[float]] = {}
    for values in sets:
        known = {name: value for name, value in values.items() if np.isfinite(value)}
        if len(known) < FEWEST:
            continue
        numbers = scaled(np.array(list(known.values()), dtype=np.float64))[0]
        if np.ptp(numbers) == 0:
            continue
        for name, z in zip(known, (numbers - numbers.mean()) / numbers.std(), strict=True):
            found.setdefault(name, []).append(float(z))
    return {name: float(np.mean(values)) for name, values in found.items()}


def leave_one_out(tables: Sequence[Table], *, lower: bool) -> dict[str, tuple[float | None, ...]]:
    """Per data set of a file the static baseline of its models: their mean over the others. `lower`: is better."""
    sign = -1.0 if lower else 1.0
    values = {table.dataset: {one.name: sign * one.mean for one in table.measured} for table in tables}
    found = {}
    for table in tables:
        # scaled over the models of this set, as `static_scores` is over its candidates
        own = {one.name for one in table.measured}
        others = [
            {name: value for name, value in of.items() if name in own}
            for dataset, of in values.items()
            if plain_name(dataset) != plain_name(table.dataset)
        ]
        scores = mean_elsewhere(others)
        found[table.dataset] = tuple(scores.get(one.name) for one in table.measured)
    return found


def _read(path: Path) -> Tables:
    tables = read_tables(path, with_scores=False)
    if not all(table.is_named for table in tables.tables):
        raise mistake(
            f"{path}: --elsewhere: not all rows say in a column `dataset` which data set they are on; they might "
            "be on the ranking's own."
        )
    return tables


def _of_table(path: Path, candidates: Sequence[Ranked], dataset: str) -> list[dict[str, float]]:
    """Per other data set of a table, the values (higher is better) of the candidates that it has."""
    tables = _read(path)
    sign = -1.0 if tables.lower_is_better else 1.0
    found = []
    for table in tables.tables:
        if not dataset or plain_name(table.dataset) != plain_name(dataset):
            means = {one.name: sign * one.mean for one in table.measured}
            models = models_of(candidates, list(means))
            found.append({name: means[model] for name, model in models.items()})
    return found


def _of_runs(paths: Sequence[Path], candidates: Sequence[Ranked], fingerprint: str) -> list[dict[str, float]]:
    """The same of runs. A data set counts once, with the number of labels that most candidates were trained on."""
    if not paths:
        return []
    by_base: dict[str, list[dict[str, float]]] = {}
    for setting in settings(find_results(paths)[0]):
        if not fingerprint or setting.fingerprint != fingerprint:
            arms = {one.name: best_arm(one, setting, candidates) for one in candidates}
            sign = -1.0 if lower_is_better(setting.metric) else 1.0
            values = {name: sign * arm.mean for name, arm in arms.items() if arm}
            by_base.setdefault(setting.base, []).append(values)
    return [max(of, key=len) for of in by_base.values()]
