"""Training, validation and test examples out of what a source has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headstart.config.schema.data import REST, DataConfig
from headstart.data.pool import Pool, pooled
from headstart.data.source import Source
from headstart.data.split import Indices, Targets, count_of, first_shots, interleaved
from headstart.data.split_file import by_file
from headstart.data.subset import Split, joined
from headstart.errors import DataError

Mask = npt.NDArray[np.bool_]
VAL_SHARE, TEST_SHARE = 0.1, 0.2


def split_source(source: Source, data: DataConfig, usable: Mapping[str, Sequence[int]]) -> dict[str, Split]:
    """Split by a file, by folds or by sizes. Test and validation examples are set apart first, so that more
    training never moves them.

    Raises DataError where there are too few examples, or a group is in two splits of the source's own.
    """
    if data.split_file is not None:
        splits = by_file(source, data.split_file, usable)
    else:
        whole = {
            name: pooled(
                examples,
                np.asarray(usable[name], dtype=np.int64),
                groups=source.groups.get(name),
                split_seed=data.split_seed,
            )
            for name, examples in source.splits.items()
        }
        # numbers have no classes of which a split needs an example
        classes = 1 if source.task == "regression" else len(source.class_names)
        make = _with_the_rest if data.test_size == REST else _by_sizes
        splits = make(source, data, whole, classes)
    for name in ("train", "val", "test"):
        if not len(splits[name].indices):
            raise DataError(f"data: no examples are left for {name}; make the other splits smaller.")
    if source.groups:
        _require_apart(source, splits)
    if data.refit_on_val:
        splits["train"] = joined(splits["train"], splits["val"])
    return {name: splits[name] for name in ("train", "val", "test")}


def _by_sizes(source: Source, data: DataConfig, whole: dict[str, Pool], classes: int) -> dict[str, Split]:
    """Test and validation of the source's own, as a fold, or by their sizes; then training out of what is left."""
    pool = whole["train"]
    splits: dict[str, Split] = {}
    if data.num_folds is not None and data.fold is not None:
        name = _split_of_folds(data, whole)
        in_fold = pool.folds(data.num_folds) == data.fold
        splits[name] = pool.split(pool.indices[in_fold])
        pool = pool.of(np.sort(pool.indices[~in_fold]))
    for name, size, share in (("test", data.test_size, TEST_SHARE), ("val", data.val_size, VAL_SHARE)):
        if name in splits:
            continue
        if name in whole:
            splits[name] = _some(whole[name], size, classes, key=f"{name}_size")[0]
            continue
        splits[name], rest = _some(pool, share if size is None else size, classes, key=f"{name}_size")
        pool = pool.of(np.sort(rest))
    if data.shots is not None:
        taken = first_shots(_ordered(pool), pool.examples.targets, data.shots, source.class_names)
    else:
        taken = _ordered(pool)[: count_of(data.train_size, of=len(pool), classes=classes, key="train_size")]
    splits["train"] = pool.split(taken)
    return splits


def _with_the_rest(source: Source, data: DataConfig, whole: dict[str, Pool], classes: int) -> dict[str, Split]:
    """What `train_size` or `shots` leave is the test split; validation is taken out of what they take."""
    if "test" in whole:
        raise DataError("data.test_size=rest: the source has a test split of its own.")
    pool = whole["train"]
    if data.shots is not None:
        taken = first_shots(pool.indices, pool.examples.targets, data.shots, source.class_names)
        mask = np.isin(pool.indices, taken)
    else:
        count = count_of(data.train_size, of=len(pool), classes=classes, key="train_size")
        mask = np.arange(len(pool)) < pool.whole(count)
    splits = {"test": pool.split(pool.indices[~mask])}
    if "val" in whole:
        splits["val"] = _some(whole["val"], data.val_size, classes, key="val_size")[0]
        in_val = np.zeros(len(pool), dtype=bool)
    else:
        in_val = mask & _validation(pool, mask, data.val_size, classes)
        splits["val"] = pool.split(pool.indices[in_val])
    splits["train"] = pool.split(pool.indices[mask & ~in_val])
    return splits


def _validation(pool: Pool, mask: Mask, size: int | float | None, classes: int) -> Mask:
    """Which of the pool are validation examples if `mask` says which may be: of every beginning the same."""
    if size is None or isinstance(size, float):
        return pool.share(VAL_SHARE if size is None else size)
    some = pool.of(np.sort(pool.indices[mask])) if pool.groups is None else pool
    count = count_of(size, of=int(mask.sum()), classes=classes, key="val_size")
    first = some.indices[: some.whole(count)]
    return np.isin(pool.indices, first)


def _split_of_folds(data: DataConfig, whole: dict[str, Pool]) -> str:
    """Which split a fold is; raises DataError where none is left, or its size is given as well."""
    name = "val" if "test" in whole else "test"
    if name in whole:
        raise DataError("data.num_folds: the source has a test and a validation split of its own; none is left.")
    if getattr(data, f"{name}_size") is not None:
        raise DataError(
            f"data.{name}_size={getattr(data, f'{name}_size')}: the {name} split is fold {data.fold} of "
            f"{data.num_folds}; leave it out."
        )
    return name


def _some(pool: Pool, size: int | float | None, classes: int, *, key: str) -> tuple[Split, Indices]:
    """A beginning of about a size, and the indices of the rest."""
    count = count_of(size, of=len(pool), classes=classes, key=key)
    count = pool.whole(count) if count else 0
    return pool.split(pool.indices[:count]), pool.indices[count:]


def _ordered(pool: Pool) -> Indices:
    """The order in which training takes single examples: what is not taken is used nowhere, so groups may part."""
    if pool.groups is None:
        return pool.indices
    indices = np.sort(pool.indices)
    ids = [pool.examples.ids[i] for i in indices.tolist()]
    targets: Targets = pool.examples.targets[indices]
    return indices[interleaved(ids, targets, split_seed=pool.split_seed)]


def _require_apart(source: Source, splits: Mapping[str, Split]) -> None:
    """Raise DataError for a group that is in two splits."""
    origin_of = {id(examples): name for name, examples in source.splits.items()}
    seen: dict[str, tuple[str, str]] = {}
    for name, split in splits.items():
        for examples, index in split.places():
            group = source.groups[origin_of[id(examples)]][index]
            before, example = seen.setdefault(group, (name, examples.ids[index]))
            if before != name:
                raise DataError(
                    f"data: the group {group!r} is in {before} ({example}) and in {name} ({examples.ids[index]}): "
                    "what is learned of it in one is known in the other."
                )
