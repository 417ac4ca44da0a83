"""Which runs, and which rows of a table, are of which candidate."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.compare.arms import Arm, arm_labels, group_arms
from headstart.compare.comparison import DEFAULT_METRIC
from headstart.compare.results import Result
from headstart.config.checks import lower_is_better
from headstart.transferability.own import fits, own_options, own_seed
from headstart.transferability.ranking import Ranked


@dataclass(frozen=True)
class Setting:
    """Runs on one data set with one number of labels, in arms."""

    base: str
    """Of its data set, whatever the number of labels."""
    dataset: str
    """As people say it."""
    fingerprint: str
    images: int | None
    """Labelled images that were trained on."""
    metric: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class BestArm:
    """The arm that stands for a candidate, and the others that it was chosen among."""

    key: str
    label: str
    strategy: str
    repeats: Mapping[Hashable, float]
    """Metric by seed; by (split seed, fold) where there are several, the mean over seeds on each."""
    others: tuple[str, ...] = ()
    by: str = ""
    """What chose it, in words; empty where it was the only one."""

    @property
    def mean(self) -> float:
        """Over repeats."""
        return float(np.mean(list(self.repeats.values())))


def settings(results: Sequence[Result], *, metric: str | None = None) -> list[Setting]:
    """Runs by data set and number of labels; `metric` is another than the data's or the task's main one."""
    arms: dict[str, list[Arm]] = {}
    for arm in group_arms([one for one in results if one.record is not None]):
        if arm.runs:
            arms.setdefault(arm.setting.key, []).append(arm)
    found = []
    for of in arms.values():
        example = of[0].example
        record, setting = example.record, of[0].setting
        if record is not None:
            own = record.config["data"].get("metric")
            main = f"test/{own}" if own else DEFAULT_METRIC.get(example.task or "", "")
            found.append(
                Setting(
                    setting.base,
                    setting.dataset,
                    str(record.data.get("fingerprint")),
                    setting.train_examples,
                    metric or main,
                    tuple(of),
                )
            )
    return found


def best_arm(candidate: Ranked, setting: Setting, among: Sequence[Ranked] = ()) -> BestArm | None:
    """The arm that trained a candidate; of several the best by validation, never by the test. None without any.

    `among` are the ranking's candidates: a run that has more of the own overrides of another one is that one's, and
    of candidates that differ in the seed alone each has the runs of its seed.
    """
    rivals = [one for one in among if len(own_options(one)) > len(own_options(candidate))]
    seed = own_seed(candidate, among)
    arms = [
        arm
        for arm in setting.arms
        if is_run_of(candidate, arm.example)
        and not any(is_run_of(one, arm.example) for one in rivals)
        and _repeats(arm, setting.metric, seed)
    ]
    if not arms:
        return None
    labels = arm_labels({arm.key: arm.example for arm in arms})  # what sets this candidate's own arms apart
    metric = f"val/{setting.metric.rpartition('/')[2]}"
    by = ""
    chosen = arms[0]
    if len(arms) > 1:
        known = {arm.key: _repeats(arm, metric, seed) for arm in arms}
        if all(known.values()):
            sign = -1.0 if lower_is_better(metric) else 1.0
            chosen = max(arms, key=lambda arm: sign * float(np.mean(list(known[arm.key].values()))))
            by = f"best of {len(arms)} by {metric}"
        else:
            by = f"first of {len(arms)}: not all have {metric}"
    return BestArm(
        key=chosen.key,
        label=labels[chosen.key],
        strategy=str(chosen.example.config["strategy"]["name"]),
        repeats=_repeats(chosen, setting.metric, seed),
        others=tuple(labels[arm.key] for arm in arms if arm.key != chosen.key),
        by=by,
    )


def is_run_of(candidate: Ranked, result: Result) -> bool:
    """Whether a run trained a candidate: same architecture and library, what its own overrides say (`head.pool`),
    and the same weights: none for both, or files of one sha256 (of the same source and name where a record has no
    digest)."""
    record = result.record
    if record is None:
        return False
    backbone = record.config["backbone"]
    if _plain(str(backbone["name"])) != _plain(candidate.backbone):
        return False
    if str(backbone.get("library") or "timm") != candidate.library:
        return False
    if not fits(candidate, record.config):
        return False
    source, said = record.weights.get("source"), candidate.weights.get("source")
    if "scratch" in (source, said):
        return source == said
    mine, its = candidate.weights.get("sha256"), record.weights.get("file_sha256")
    if mine and its:
        return bool(mine == its)
    return source == said == "pretrained" and str(backbone["name"]) == candidate.backbone


def models_of(candidates: Sequence[Ranked], models: Sequence[str]) -> dict[str, str]:
    """Candidate's name -> the model of a table that it is.

    That of its name or, with pretrained weights, of its backbone's name with or without the tag, where only one of
    the candidates can be meant by it.
    """
    found: dict[str, str] = {}
    for one in candidates:
        names = [one.name]
        if one.weights.get("source") == "pretrained":
            names.append(one.backbone)
        exact = next((name for name in names if name in models), None)
        if exact is not None:
            found[one.name] = exact
    loose: dict[str, list[str]] = {}
    for one in candidates:
        if one.name not in found and one.weights.get("source") == "pretrained":
            plain = [name for name in models if _plain(name) == _plain(one.backbone) and "." not in name]
            if not plain and "." not in one.backbone:
                plain = [name for name in models if _plain(name) == one.backbone]
            if len(plain) == 1:
                loose.setdefault(plain[0], []).append(one.name)
    taken = set(found.values())
    return found | {names[0]: model for model, names in loose.items() if len(names) == 1 and model not in taken}


def _plain(name: str) -> str:
    return name.partition(".")[0]


def _repeats(arm: Arm, metric: str, seed: int | None) -> dict[Hashable, float]:
    """What its runs measured, those of one seed where it is given."""
    runs = [run for run in arm.runs if seed is None or run.seed == seed]
    values = [(run, value) for run in runs if (value := run.metrics.get(metric)) is not None]
    splits = {(run.split_seed, run.fold) for run, _ in values}
    grouped: dict[Hashable, list[float]] = {}
    for run, value in values:
        grouped.setdefault((run.split_seed, run.fold) if len(splits) > 1 else run.seed, []).append(float(value))
    return {key: float(np.mean(of)) for key, of in grouped.items()}
