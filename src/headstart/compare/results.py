"""One result: what a comparison knows of a run, or of a row of somebody's table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config.identity import DATA_PLACE
from headstart.records.evaluations import further_metrics
from headstart.records.schema import RunRecord

PairKey = tuple[int, int, int | None]
"""Seed, split seed and fold: what two runs must share to be a pair."""

SUBSET = ("classes", "train_size", "shots")
"""Options of `data` that say which part of a data set is used."""
PLACE = (*DATA_PLACE, "split_seed", "fold")
"""Options of `data` that say where it lies or how it is read; and split seed and fold, which repeats differ in."""
IDENTITY = ("source", "name", "subset", "image_column", "label_column", "options")
"""Options of `data` that say which data set it is; its fingerprint says so too."""


@dataclass(frozen=True)
class Setting:
    """What an arm and its baseline share first of all: a data set, and how many labels are used of it."""

    key: str
    base: str
    """The same without the number of labels."""
    dataset: str
    """Its name, as people say it."""
    train_examples: int | None
    """Labelled images to train on."""
    labels: str
    """How many labels are used, as it was asked for: `all`, `1000`, `0.1`, `5 per class`."""
    budget: tuple[tuple[str, Any], ...] = ()
    """Further columns of a table that say how long was trained."""


@dataclass(frozen=True)
class Result:
    """One run or row. `config` is nested: group -> option -> value; of a row, its columns under `row`."""

    id: str
    arm: str
    """Digest that repeats share: equal but for seed, split seed and fold."""
    status: str
    seed: int
    split_seed: int
    fold: int | None
    setting: Setting
    metrics: Mapping[str, float | None]
    config: Mapping[str, Any]
    started: str = ""
    name: str | None = None
    """Of its arm, where a table says it."""
    job_name: str = ""
    """Of its job, where the sweep's list gives its entries names."""
    record: RunRecord | None = None
    folder: Path | None = None
    declared: frozenset[str] = frozenset()
    """Keys that its sweep says are compared or tuned."""
    trials: int | None = None
    """With how many trials its tuned keys were found."""
    searched: str = ""
    """What that search chose, and of what."""

    @property
    def pair(self) -> PairKey:
        """Seed, split seed and fold."""
        return self.seed, self.split_seed, self.fold

    @property
    def task(self) -> str | None:
        """`multiclass`, `multilabel`, `binary` or `regression`; None where a table does not say."""
        return str(self.record.data.get("task")) if self.record else None

    @property
    def is_scratch(self) -> bool:
        """Whether nothing was transferred: random weights, all of them trained."""
        if self.record is None:
            row = self.config.get("row", {})
            return row.get("weights", row.get("arm")) == "scratch" and row.get("strategy", "full") in ("full", "")
        return bool(self.config["weights"]["source"] == "scratch" and self.config["strategy"]["name"] == "full")

    @property
    def is_random_features(self) -> bool:
        """Whether random features were kept: the control of a frozen backbone, never the baseline."""
        if self.record is None:
            row = self.config.get("row", {})
            return row.get("weights", row.get("arm")) == "scratch" and not self.is_scratch
        return self.config["weights"]["source"] == "scratch" and not self.is_scratch

    @property
    def ground(self) -> str:
        """What an arm shares with its baseline: architecture, head, data set and number of labels."""
        if self.record is None:
            return self.setting.key
        architecture = str(self.config["backbone"]["name"]).partition(".")[0]
        library = self.config["backbone"].get("library")
        return json.dumps([architecture, library, self.config["head"], self.setting.key], sort_keys=True)


def result_of_run(folder: Path | None, record: RunRecord) -> Result:
    """A run's result."""
    return Result(
        id=record.id,
        arm=record.arm,
        status=record.status,
        seed=record.seed,
        split_seed=record.split_seed,
        fold=record.fold,
        setting=_setting(record),
        metrics=record.metrics | further_metrics(record.evaluations),
        config=record.config,
        started=record.started,
        record=record,
        folder=folder,
    )


def _setting(record: RunRecord) -> Setting:
    data = record.config["data"]
    identity = {key: data.get(key) for key in (*IDENTITY, "classes", "positive")}
    base = json.dumps([record.data.get("fingerprint"), identity], sort_keys=True)
    key = json.dumps([base, data.get("train_size"), data.get("shots")])
    sizes = record.data.get("sizes")
    train = sizes.get("train") if isinstance(sizes, dict) else None
    asked = f"{data['shots']} per class" if data.get("shots") else str(data.get("train_size") or "all")
    return Setting(key, base, dataset_name(data), train if isinstance(train, int) else None, asked)


def dataset_name(data: Mapping[str, Any]) -> str:
    """A data set as people say it: its name in torchvision, or that of its folder or hub repository."""
    if data.get("source") == "torchvision":
        return str(data.get("name"))
    path = data.get("path")
    name = Path(str(path)).name if path else str(data.get("source"))
    return f"{name}/{data['subset']}" if data.get("subset") else name
