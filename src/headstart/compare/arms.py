"""Runs grouped into arms, with names that say how the arms differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.config.schema.root import DISCRIMINATORS
from headstart.records.schema import RunRecord

PairKey = tuple[int, int, int | None]
"""Seed, split seed and fold: what two runs must share to be a pair."""

_NOT_NAMED = {
    ("data", "path"),
    ("data", "split_seed"),
    ("data", "num_workers"),
    ("data", "download"),
    ("weights", "path"),
    ("trainer", "progress"),
}


@dataclass(frozen=True)
class Arm:
    """The runs that differ in seed, split seed and fold alone."""

    key: str
    label: str
    runs: tuple[RunRecord, ...]
    """Completed ones, one for each pair key: the latest."""
    others: tuple[RunRecord, ...]
    """Failed, interrupted, running."""
    repeats: int
    """Completed runs left out because a later one has the same seed, split and fold."""

    @property
    def config(self) -> dict[str, Any]:
        """The config that all its runs share, but for seeds."""
        return (self.runs or self.others)[0].config

    @property
    def fingerprint(self) -> str:
        """The data's."""
        return str((self.runs or self.others)[0].data.get("fingerprint", ""))

    @property
    def is_baseline(self) -> bool:
        """Whether everything was trained from scratch."""
        return bool(self.config["weights"]["source"] == "scratch" and self.config["strategy"]["name"] == "full")

    @property
    def ground(self) -> str:
        """What an arm shares with its baseline: architecture, head and data."""
        data = {k: v for k, v in self.config["data"].items() if ("data", k) not in _NOT_NAMED}
        architecture = str(self.config["backbone"]["name"]).partition(".")[0]
        library = self.config["backbone"].get("library")
        return json.dumps([architecture, library, self.config["head"], data, self.fingerprint], sort_keys=True)


def pair_key(record: RunRecord) -> PairKey:
    """Seed, split seed and fold."""
    return record.seed, record.split_seed, record.fold


def group_arms(records: Iterable[RunRecord]) -> list[Arm]:
    """Group runs into arms, in the order in which the arms first appear."""
    grouped: dict[str, list[RunRecord]] = {}
    for record in records:
        grouped.setdefault(record.arm, []).append(record)
    labels = arm_labels({key: runs[0] for key, runs in grouped.items()})
    arms = []
    for key, runs in grouped.items():
        completed = sorted((r for r in runs if r.status == "completed"), key=lambda r: (r.started, r.id))
        latest = {pair_key(record): record for record in completed}
        arms.append(
            Arm(
                key=key,
                label=labels[key],
                runs=tuple(sorted(latest.values(), key=lambda r: (r.seed, r.split_seed, r.fold or 0))),
                others=tuple(record for record in runs if record.status != "completed"),
                repeats=len(completed) - len(latest),
            )
        )
    return arms


def arm_labels(examples: dict[str, RunRecord]) -> dict[str, str]:
    """A name per arm: the choices and values in which the arms differ, as one would write them as overrides."""
    configs = {key: record.config for key, record in examples.items()}
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
        if len(set(kinds.values())) > 1:
            for key, kind in kinds.items():
                words[key].append(f"{group}={kind}")
        for kind in dict.fromkeys(kinds.values()):
            same = [key for key in nodes if kinds[key] == kind]
            for name in _differing([nodes[key] for key in same], group):
                for key in same:
                    if nodes[key].get(name) is not None:  # the others say theirs
                        words[key].append(_word(group, name, nodes[key][name]))
    if len(configs) == 1:
        words = {
            key: [f"{config['weights']['source']} {config['strategy']['name']}"] for key, config in configs.items()
        }
    labels = {key: " ".join(named) or "the same config" for key, named in words.items()}
    several = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return {key: f"{label} [{key[:8]}]" if label in several else label for key, label in labels.items()}


def _name_regularizers(nodes: dict[str, dict[str, Any]], words: dict[str, list[str]]) -> None:
    """`regularizer=[l2_sp]` where arms have different ones, and the options in which those of one name differ."""
    if len({tuple(node) for node in nodes.values()}) > 1:
        for key, node in nodes.items():
            if node:
                words[key].append(f"regularizer=[{','.join(node)}]")
    for name in dict.fromkeys(name for node in nodes.values() for name in node):
        having = {key: node[name] for key, node in nodes.items() if name in node}
        for option in _differing(list(having.values()), "regularizer"):
            for key, options in having.items():
                words[key].append(_word(f"regularizer.{name}", option, options.get(option)))


def _differing(nodes: Sequence[dict[str, Any]], group: str) -> list[str]:
    names = dict.fromkeys(name for node in nodes for name in node)
    return [
        name
        for name in names
        if (group, name) not in _NOT_NAMED
        and len({json.dumps(node.get(name), sort_keys=True) for node in nodes}) > 1
    ]


def _word(group: str, name: str, value: Any) -> str:
    text = json.dumps(value).replace('"', "").replace(" ", "")
    return f"backbone={text}" if (group, name) == ("backbone", "name") else f"{group}.{name}={text}"
