"""Runs grouped into arms, with names that say how the arms differ."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.results import IDENTITY, PLACE, SUBSET, Result, Setting
from headstart.config.schema.root import DISCRIMINATORS

Option = tuple[str, str]
_ALIKE = "the same config"

_PLACE: frozenset[Option] = frozenset(
    {*(("data", key) for key in PLACE), ("weights", "path"), ("trainer", "progress"), ("trainer", "pictures")}
)
_DATASET: frozenset[Option] = frozenset(("data", key) for key in (*IDENTITY, *SUBSET))


@dataclass(frozen=True)
class Arm:
    """The runs that differ in seed, split seed and fold alone."""

    key: str
    label: str
    method: str
    """Its label without the data set and the number of labels: the same on all of them."""
    setting: Setting
    runs: tuple[Result, ...]
    """Completed ones, one for each pair key: the latest."""
    others: tuple[Result, ...]
    """Failed, interrupted, running."""
    repeats: int
    """Completed runs left out because a later one has the same seed, split and fold."""

    @property
    def example(self) -> Result:
        """One of its runs; they share all but seeds."""
        return (self.runs or self.others)[0]

    @property
    def varies(self) -> str:
        """What its repeats differ in: `seeds`, `splits`, `seeds and splits`, or `nothing` where there is one."""
        return varies(self.runs)


def varies(runs: Collection[Result]) -> str:
    """What an interval over these runs varies."""
    seeds, splits = {r.seed for r in runs}, {(r.split_seed, r.fold) for r in runs}
    if len(splits) > 1:
        return "seeds and splits" if len(seeds) > 1 else "splits"
    return "seeds" if len(seeds) > 1 else "nothing"


def group_arms(results: Iterable[Result]) -> list[Arm]:
    """Group runs into arms, in the order in which the arms first appear."""
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.arm, []).append(result)
    examples = {key: runs[0] for key, runs in grouped.items()}
    labels = arm_labels(examples)
    methods = arm_labels(examples, without=_DATASET, tell_apart=False)
    arms = []
    for key, runs in grouped.items():
        completed = sorted((r for r in runs if r.status == "completed"), key=lambda r: (r.started, r.id))
        latest = {result.pair: result for result in completed}
        arms.append(
            Arm(
                key=key,
                label=labels[key],
                method=methods[key],
                setting=examples[key].setting,
                runs=tuple(sorted(latest.values(), key=lambda r: (r.seed, r.split_seed, r.fold or 0))),
                others=tuple(result for result in runs if result.status != "completed"),
                repeats=len(completed) - len(latest),
            )
        )
    return arms


def arm_labels(
    examples: Mapping[str, Result], *, without: frozenset[Option] = frozenset(), tell_apart: bool = True
) -> dict[str, str]:
    """A name per arm: the choices and values in which the arms differ, as one would write them as overrides.

    Where a sweep has named them all, it is that name, and what arms of one name differ in. Options in `without`
    are not named. With `tell_apart`, arms of one name get a digest each.
    """
    named = {key: result.name for key, result in examples.items()}
    configs = {key: result.config for key, result in examples.items() if result.name is None}
    jobs = {key: examples[key].job_name for key in configs}
    if configs and all(jobs.values()):
        labels = _by_names(jobs, configs, _PLACE | without)
    else:
        labels = _by_options(configs, _PLACE | without)
    for key, name in named.items():
        if name is not None:
            setting = examples[key].setting
            several = len({result.setting.key for result in examples.values()}) > 1 and not without
            labels[key] = f"{name} {_setting_words(setting)}" if several else name
    places = {key: result.setting for key, result in examples.items() if result.name is None}
    if tell_apart and len({setting.dataset for setting in places.values()}) > 1:
        for key, setting in places.items():
            if f"data.name={setting.dataset}" not in labels[key].split():
                labels[key] = f"{labels[key]} on {setting.dataset}"
    if tell_apart:
        counts: dict[str, int] = {}
        for label in labels.values():
            counts[label] = counts.get(label, 0) + 1
        labels = {key: f"{label} [{key[:8]}]" if counts[label] > 1 else label for key, label in labels.items()}
    return {key: labels[key] for key in examples}


def _by_names(
    names: Mapping[str, str], configs: Mapping[str, Mapping[str, Any]], without: frozenset[Option]
) -> dict[str, str]:
    labels = {}
    for name in dict.fromkeys(names.values()):
        same = {key: config for key, config in configs.items() if names[key] == name}
        further = _by_options(same, without) if len(same) > 1 else dict.fromkeys(same, "")
        for key in same:
            said = "" if further[key] == _ALIKE else further[key]
            labels[key] = f"{name} {said}".strip()
    return labels


def _setting_words(setting: Setting) -> str:
    size = [] if setting.train_examples is None else [f"train_examples={setting.train_examples}"]
    return " ".join([f"dataset={setting.dataset}", *size, *(f"{key}={value}" for key, value in setting.budget)])


def _by_options(configs: Mapping[str, Mapping[str, Any]], without: frozenset[Option]) -> dict[str, str]:
    words: dict[str, list[str]] = {key: [] for key in configs}
    groups = [g for g in next(iter(configs.values()), {}) if g not in ("logger", "output_dir", "seed")]
    for group in groups:
        found = {key: config.get(group) for key, config in configs.items()}
        nodes: dict[str, dict[str, Any]] = {key: node for key, node in found.items() if isinstance(node, dict)}
        if group == "regularizer":
            _name_regularizers(nodes, words)
            continue
        if len(nodes) < len(configs):
            continue
        kinds = {key: node[DISCRIMINATORS[group]] if group in DISCRIMINATORS else "" for key, node in nodes.items()}
        hidden = group in DISCRIMINATORS and (group, DISCRIMINATORS[group]) in without
        if len(set(kinds.values())) > 1 and not hidden:
            for key, kind in kinds.items():
                words[key].append(f"{group}={kind}")
        for kind in dict.fromkeys(kinds.values()):
            same = [key for key in nodes if kinds[key] == kind]
            for name in _differing([nodes[key] for key in same], group, without):
                for key in same:
                    if nodes[key].get(name) is not None:  # the others say theirs
                        words[key].append(_word(group, name, nodes[key][name]))
    if len(configs) == 1:
        words = {
            key: [f"{config['weights']['source']} {config['strategy']['name']}"] for key, config in configs.items()
        }
    return {key: " ".join(said) or _ALIKE for key, said in words.items()}


def _name_regularizers(nodes: dict[str, dict[str, Any]], words: dict[str, list[str]]) -> None:
    """`regularizer=[l2_sp]` where arms have different ones, and the options in which those of one name differ."""
    if len({tuple(node) for node in nodes.values()}) > 1:
        for key, node in nodes.items():
            if node:
                words[key].append(f"regularizer=[{','.join(node)}]")
    for name in dict.fromkeys(name for node in nodes.values() for name in node):
        having = {key: node[name] for key, node in nodes.items() if name in node}
        for option in _differing(list(having.values()), "regularizer", frozenset()):
            for key, options in having.items():
                words[key].append(_word(f"regularizer.{name}", option, options.get(option)))


def _differing(nodes: Sequence[dict[str, Any]], group: str, without: frozenset[Option]) -> list[str]:
    names = dict.fromkeys(name for node in nodes for name in node)
    return [
        name
        for name in names
        if (group, name) not in without and len({json.dumps(node.get(name), sort_keys=True) for node in nodes}) > 1
    ]


LONG_LIST = 8
"""Numbers in a list that are shown one by one."""


def short_list(value: Any) -> str:
    """A long list of numbers by its ends and its length; empty for anything else."""
    if not isinstance(value, list) or len(value) <= LONG_LIST or not all(isinstance(x, int | float) for x in value):
        return ""
    return f"[{value[0]:g}..{value[-1]:g}:{len(value)}]"


def _word(group: str, name: str, value: Any) -> str:
    text = short_list(value) or json.dumps(value).replace('"', "").replace(" ", "")
    return f"backbone={text}" if (group, name) == ("backbone", "name") else f"{group}.{name}={text}"
