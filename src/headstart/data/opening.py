"""From the data's config to its source: which examples there are, of which classes and groups."""

from __future__ import annotations

import re
from dataclasses import replace

from headstart.config.schema.data import (
    CsvConfig,
    DataConfig,
    DigitsConfig,
    HuggingFaceConfig,
    ImageFolderConfig,
    TorchvisionConfig,
)
from headstart.data.class_subset import of_classes
from headstart.data.positive import with_positive
from headstart.data.source import Source
from headstart.data.task import as_task
from headstart.errors import ConfigError, DataError
from headstart.plugins import plugin_sources


def open_source(data: DataConfig) -> Source:
    """List all examples that `data` names; raises DataError where they are not to be had or two have one id."""
    return as_source(_open(data), said=f"data={data.source}")


def chosen_source(data: DataConfig) -> Source:
    """What is used of a source: the examples of `data.classes`, as what `data.task` says they are, with groups.

    Raises DataError where they are not to be had, ConfigError where they are of another kind.
    """
    source = open_source(data)
    if data.classes is not None:
        source = of_classes(source, data.classes)
    source = as_task(source, data.task or "auto")
    if data.positive is not None:
        source = with_positive(source, data.positive)
    return source if data.group_pattern is None else _grouped(source, data.group_pattern)


def _open(data: DataConfig) -> Source:
    match data:
        case ImageFolderConfig():
            from headstart.data.image_folder import image_folder

            return image_folder(data.path)
        case CsvConfig():
            from headstart.data.csv_table import csv_table

            return csv_table(
                data.path,
                root=data.root,
                image_column=data.image_column,
                label_column=data.label_column,
                label_separator=data.label_separator,
                split_column=data.split_column,
                group_column=data.group_column,
                task=data.task or "auto",
            )
        case HuggingFaceConfig():
            from headstart.data.huggingface import huggingface

            return huggingface(
                data.path,
                subset=data.subset,
                image_column=data.image_column,
                label_column=data.label_column,
                group_column=data.group_column,
                task=data.task or "auto",
            )
        case TorchvisionConfig():
            from headstart.data.torchvision_sets import torchvision_set

            return torchvision_set(data.name, path=data.path, download=data.download, options=data.options or {})
        case DigitsConfig():
            from headstart.data.digits import digits

            return digits()
    own = plugin_sources().get(data.source)
    if own is None:
        raise ConfigError(f"data.source={data.source}: there is no such source.")
    opened: Source = own.open(data)
    return opened


def as_source(source: Source, *, said: str) -> Source:
    """The source itself; raises DataError where it is not what every source is: a plugin's is somebody else's."""
    if not isinstance(source, Source):
        raise DataError(f"{said}: gave a {type(source).__name__} and no headstart.data.source.Source.")
    if not set(source.splits) <= {"train", "val", "test"} or "train" not in source.splits:
        found = ", ".join(map(str, source.splits)) or "none"
        raise DataError(f"{said}: its splits must be train and perhaps val and test; they are {found}.")
    seen: set[str] = set()
    for split, examples in source.splits.items():
        if len(examples.targets) != len(examples.ids):
            raise DataError(f"{said}: {split} has {len(examples.ids)} ids and {len(examples.targets)} targets.")
        count = len(seen) + len(examples.ids)
        seen.update(examples.ids)
        if len(seen) != count:
            raise DataError(f"{said}: two examples have the id {_twice(source)!r}.")
        if split in source.groups and len(source.groups[split]) != len(examples.ids):
            raise DataError(f"{said}: {split} has {len(source.groups[split])} groups for {len(examples.ids)} ids.")
    return source


def _twice(source: Source) -> str:
    seen: set[str] = set()
    for examples in source.splits.values():
        for name in examples.ids:
            if name in seen:
                return name
            seen.add(name)
    return ""


def _grouped(source: Source, pattern: str) -> Source:
    """The source with groups that are parts of ids; raises DataError for an id without one."""
    groups: dict[str, list[str]] = {}
    for split, examples in source.splits.items():
        found = []
        for name in examples.ids:
            match = re.search(pattern, name)
            if match is None or match[1] is None:
                raise DataError(f"data.group_pattern={pattern}: finds nothing in {name!r}.")
            found.append(match[1])
        groups[split] = found
    return replace(source, groups=groups)
