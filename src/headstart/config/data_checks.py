"""What is wrong with the options of the data although every key exists and every type fits."""

from __future__ import annotations

import re
from typing import Any

from headstart.config.schema.data import REST, CsvConfig, DataConfig, HuggingFaceConfig
from headstart.errors import ConfigError

_SIZES = ("train_size", "val_size", "test_size", "shots", "num_folds", "fold")


def check_splits(data: DataConfig) -> None:
    """Raise ConfigError where two options each say which example goes where, or one says it by half."""
    if data.test_size == REST and data.train_size is None and data.shots is None:
        raise ConfigError("data.test_size=rest: what is the rest of? Set data.train_size or data.shots as well.")
    if data.test_size == REST and data.num_folds is not None:
        raise ConfigError("data.test_size=rest and data.num_folds are both set; choose one.")
    if (data.num_folds is None) != (data.fold is None):
        given, other = ("num_folds", "fold") if data.fold is None else ("fold", "num_folds")
        raise ConfigError(f"data.{given}={getattr(data, given)}: set data.{other} as well.")
    if data.num_folds is not None and data.fold is not None and data.fold >= data.num_folds:
        raise ConfigError(f"data.fold={data.fold}: of {data.num_folds} folds the last is {data.num_folds - 1}.")
    if data.split_file is not None:
        for key in _SIZES:
            if getattr(data, key) is not None:
                raise ConfigError(
                    f"data.{key}: data.split_file says which example goes where; leave one of them out."
                )
    if data.positive is not None and data.task not in (None, "auto", "binary"):
        raise ConfigError(f"data.positive={data.positive}: makes the task binary, and data.task={data.task}.")
    _check_groups(data)


def _check_groups(data: DataConfig) -> None:
    pattern = data.group_pattern
    by_column = getattr(data, "group_column", None) is not None
    if pattern is not None:
        try:
            groups = re.compile(pattern).groups
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"data.group_pattern={pattern}: is no regular expression ({error}).") from error
        if groups != 1:
            raise ConfigError(
                f"data.group_pattern={pattern}: must have one group in (), such as (patient\\d+)_; it has {groups}."
            )
        if by_column:
            raise ConfigError("data.group_pattern and data.group_column are both set; choose one.")
    if data.test_size == REST and data.shots is not None and (pattern is not None or by_column):
        raise ConfigError(
            "data.test_size=rest: with groups, which stay whole, use data.train_size, not data.shots."
        )


def check_labels(data: DataConfig) -> None:
    """Raise ConfigError where columns of labels do not fit what is asked for."""
    if not isinstance(data, CsvConfig | HuggingFaceConfig):
        return
    column: Any = data.label_column
    several = isinstance(column, list) and len(column) > 1
    if column is not None and not isinstance(column, str):
        names = column if isinstance(column, list) else [None]
        if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ConfigError(f"data.label_column={column}: must be a column, or a list of columns.")
    if several and data.task in ("multiclass", "binary"):
        raise ConfigError(f"data.task={data.task}: has one label per image, and data.label_column several columns.")
    separator = getattr(data, "label_separator", None)
    if separator is None:
        if isinstance(data, CsvConfig) and data.task == "multilabel" and not several:
            raise ConfigError("data.task=multilabel: set data.label_separator, or several columns as label_column.")
        return
    if not separator.strip():
        raise ConfigError("data.label_separator: must be a sign, such as '|'.")
    if several:
        raise ConfigError("data.label_separator: is for one column; data.label_column names several.")
    if data.task not in (None, "auto", "multilabel"):
        raise ConfigError(f"data.task={data.task}: with data.label_separator an image may have several labels.")
