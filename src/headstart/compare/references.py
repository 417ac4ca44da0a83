"""What stands beside every result: chance, always the majority class, and random features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.compare.arms import Arm
from headstart.compare.results import Result
from headstart.config.checks import TOP, lower_is_better
from headstart.records.evaluations import data_at

RANDOM_FEATURES = "random features"


def references(arms: Sequence[Arm], metric: str) -> dict[str, dict[str, float]]:
    """Key of a setting -> what needs no transfer, by name.

    Chance and majority class, or of numbers the best constant, where all runs of the setting have the same classes
    and the metric has such a value; random features where an arm froze a random backbone (the best of several).
    """
    by_setting: dict[str, list[Arm]] = {}
    for arm in arms:
        by_setting.setdefault(arm.setting.key, []).append(arm)
    return {key: found for key, several in by_setting.items() if (found := _of_setting(several, metric))}


def _of_setting(arms: Sequence[Arm], metric: str) -> dict[str, float]:
    runs = [run for arm in arms for run in arm.runs]
    found = _without_images(runs, metric)
    controls = [
        sum(values) / len(values)
        for arm in arms
        if arm.example.is_random_features
        and (values := [value for run in arm.runs if (value := run.metrics.get(metric)) is not None])
    ]
    if controls:
        found[RANDOM_FEATURES] = (min if lower_is_better(metric) else max)(controls)
    return found


def _without_images(runs: Sequence[Result], metric: str) -> dict[str, float]:
    data = [data_at(run.record.data, run.record.evaluations, metric) for run in runs if run.record]
    if not data or len(data) < len(runs) or len({str(one.get("class_names")) for one in data}) != 1:
        return {}
    known = [values for one in data if (values := _of_run(one, metric))]
    if not known:
        return {}
    return {name: sum(values[name] for values in known) / len(known) for name in known[0]}


def _of_run(data: Mapping[str, Any], metric: str) -> dict[str, float]:
    split, _, name = metric.partition("/")
    if data.get("task") == "regression":
        return {"best constant": 0.0} if name == "r2" else {}
    counts, sizes = data.get("class_counts") or {}, data.get("sizes") or {}
    of_split, of_train = counts.get(split), counts.get("train")
    if not of_split or not of_train or not sum(of_split):
        return {}
    classes = len(of_split)
    if data.get("task") == "multilabel":
        return {"chance": sum(of_split) / (classes * sizes[split])} if name == "map_macro" else {}
    if name == "average_precision":
        return {"chance": of_split[1] / sum(of_split)}
    if name == "accuracy_top5":
        frequent = sorted(range(classes), key=lambda i: (-of_train[i], i))[:TOP]
        majority = sum(of_split[i] for i in frequent) / sum(of_split)
        return {"chance": TOP / classes, "majority classes": majority}
    if name == "accuracy_micro":
        majority = of_train.index(max(of_train))
        return {"chance": 1 / classes, "majority class": of_split[majority] / sum(of_split)}
    if name == "accuracy_macro":
        return {"chance": 1 / classes, "majority class": 1 / classes}
    return {"chance": 0.5} if name == "auroc" else {}
