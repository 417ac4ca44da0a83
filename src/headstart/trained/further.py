"""What is to be scored, and whether it can be: a completed run and the data that its weights are asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config.further import where_it_lies, with_data
from headstart.config.plain import read_config, to_plain
from headstart.config.schema.root import Config
from headstart.data import ImageDataModule, load_data
from headstart.data.elsewhere import Elsewhere, load_elsewhere
from headstart.errors import ConfigError, DataError, RecordError
from headstart.facts import Task
from headstart.machine import usable_cores
from headstart.models.classifier import input_spec
from headstart.records.evaluations import check_name, spoilt_name
from headstart.records.example_changes import data_changes, split_changes
from headstart.records.examples import EXAMPLES, ExampleTable, read_examples
from headstart.records.schema import RunRecord
from headstart.records.store import CONFIG, read_record, slug
from headstart.resolve import resolve_accelerator, resolve_data, spec_of
from headstart.trained.load import tested_weights
from headstart.trained.predict import check_kept
from headstart.trained.scoring import Spoiling

_NAMED = 6


@dataclass(frozen=True)
class Asked:
    """What is to be scored: other data, or spoilt copies of a run's own test split."""

    overrides: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()
    name: str | None = None
    split: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """Classes of the other data -> the run's."""
    ignore_unknown: bool = False
    spoilings: tuple[Spoiling, ...] = ()
    predictions: bool = True
    again: bool = False


@dataclass(frozen=True)
class Prepared:
    """A run and the data that it will be scored on, checked."""

    folder: Path
    record: RunRecord
    config: Config
    data: ImageDataModule
    elsewhere: Elsewhere | None
    todo: Mapping[str, Spoiling | None]
    """Evaluations by name."""
    there: tuple[str, ...]
    """Those that it has already, and that are left as they are."""
    seen: int | None = None
    """Images of other data that the run trained on; None where that is not known."""

    @property
    def images(self) -> int:
        """How many images will be scored, each as often as it is."""
        return len(self.todo) * self.data.facts.sizes["test"]


class Reader:
    """Prepares run after run; data that several of them share is read once."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._kept: dict[str, Any] = {}

    def prepare(self, folder: Path, *, alone: bool) -> Prepared:
        """Check all that can be wrong before anything is scored.

        With `alone` a name that is taken is an error; else, where the same weights were scored on the same data
        under that name, it is left as it is. Raises a HeadstartError that says what is wrong.
        """
        asked = self.asked
        check_kept(folder)
        tested_weights(folder)
        record = read_record(folder)
        own = read_config(folder / CONFIG)
        if asked.spoilings:
            if not own.trainer.test:
                raise RecordError(
                    f"{folder}: was not tested (trainer.test=false), and its test images are not touched."
                )
            return self._own(folder, record, _resolved(where_it_lies(own, asked.overrides)))
        config = _resolved(with_data(own, asked.overrides, config_dirs=asked.config_dirs))
        name = asked.name or _default_name(config)
        check_name(name)
        before = record.evaluations.get(name)
        if before and alone and not asked.again:
            raise RecordError(
                f"{folder}: has an evaluation {name} already; --again replaces it, --name gives this one another."
            )
        elsewhere = self._elsewhere(record, config)
        same = before is not None and before["data"].get("fingerprint") == elsewhere.data.facts.fingerprint
        if before and not same and not asked.again:
            raise RecordError(
                f"{folder}: has an evaluation {name} on other data; --again replaces it, --name gives this one "
                "another."
            )
        there = (name,) if same and not asked.again else ()
        todo = {} if there else {name: None}
        seen = _seen(elsewhere, folder)
        return Prepared(folder, record, config, elsewhere.data, elsewhere, todo, there, seen)

    def _elsewhere(self, record: RunRecord, config: Config) -> Elsewhere:
        names = tuple(str(name) for name in record.data["class_names"])
        task: Task = record.data["task"]
        key = repr((config.data, spec_of(config), names, task))
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = load_elsewhere(
                config.data,
                spec_of(config),
                class_names=names,
                task=task,
                split=self.asked.split,
                names=self.asked.names,
                ignore_unknown=self.asked.ignore_unknown,
                seed=config.seed,
                threads=config.trainer.threads or 1,
                num_workers=config.data.num_workers or 0,
            )
        found: Elsewhere = self._kept[key]
        return found

    def _own(self, folder: Path, record: RunRecord, config: Config) -> Prepared:
        """The run's own test split, which must be what it was."""
        key = repr((config.data, spec_of(config)))
        if key not in self._kept:
            self._kept.clear()
            self._kept[key] = load_data(
                config.data,
                spec_of(config),
                seed=config.seed,
                threads=config.trainer.threads or 1,
                num_workers=config.data.num_workers or 0,
            )
        data: ImageDataModule = self._kept[key]
        known = _examples(folder)
        for what, was, is_now, changed in (
            ("data", record.data.get("fingerprint"), data.facts.fingerprint, data_changes),
            ("split", record.data.get("split_fingerprint"), data.facts.split_fingerprint, split_changes),
        ):
            if was != is_now:
                lines = changed(known, data.examples())
                raise DataError(
                    f"{folder}: the {what} is not what it was: {'; '.join(lines)}. Spoilt copies "
                    "are of the images that the run was tested on."
                )
        names = {spoilt_name(one.corruption, one.severity): one for one in self.asked.spoilings}
        there = () if self.asked.again else tuple(name for name in names if name in record.evaluations)
        todo = {name: one for name, one in names.items() if name not in there}
        return Prepared(folder, record, config, data, None, todo, there)


def _resolved(config: Config) -> Config:
    """What is `auto` of the data and the threads, for this machine."""
    accelerator = resolve_accelerator(config.trainer.accelerator)
    spec = input_spec(config.backbone.name, library=config.backbone.library)
    return replace(
        config,
        data=resolve_data(config, spec, accelerator=accelerator),
        trainer=replace(config.trainer, threads=config.trainer.threads or usable_cores()),
    )


def _default_name(config: Config) -> str:
    """The data's: its name, the last part of its path or what kind of source it is."""
    data = to_plain(config)["data"]
    named = data.get("name") if data["source"] == "torchvision" else None
    path = Path(str(data["path"])).name if data.get("path") else ""
    found = slug([str(named or path or data["source"]).lower()])
    try:
        check_name(found)
    except ConfigError:
        raise ConfigError(f"--name: give this evaluation a name; {found} cannot be one.") from None
    return found


def notes_of(prepared: Prepared) -> list[str]:
    """What a person should know of other data before they believe a number."""
    elsewhere = prepared.elsewhere
    if elsewhere is None:
        return []
    notes = []
    if elsewhere.absent:
        notes.append(f"No images of {_some(elsewhere.absent)}: macro averages are over the other classes.")
    if elsewhere.ignored:
        count = sum(elsewhere.ignored.values())
        notes.append(f"Left out: {count} images of {_some(tuple(elsewhere.ignored))}, which the run does not know.")
    if skipped := elsewhere.data.facts.skipped:
        notes.append(f"Left out: {len(skipped)} images that cannot be decoded.")
    if prepared.seen:
        size = elsewhere.data.facts.sizes["test"]
        notes.append(f"{prepared.seen} of {size} images are among those that the run trained on.")
    return notes


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _seen(elsewhere: Elsewhere, folder: Path) -> int | None:
    """Images whose content is that of one the run trained on; None where it does not say."""
    known = _examples(folder)
    catalog = elsewhere.data.catalog
    if known is None or catalog is None:
        return None
    trained = np.array(["train" in split.split(",") for split in known.splits], dtype=bool)
    return int(np.isin(catalog.found.digests["test"], known.digests[trained]).sum())


def _examples(folder: Path) -> ExampleTable | None:
    try:
        return read_examples(folder / EXAMPLES)
    except RecordError:
        return None
