"""From the data's config to a data module: list, check, split, and say what was found."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image

from headstart.config.schema.data import (
    DataConfig,
    DigitsConfig,
    HuggingFaceConfig,
    ImageFolderConfig,
    TorchvisionConfig,
)
from headstart.data import transforms
from headstart.data.catalog import Catalog
from headstart.data.class_subset import of_classes
from headstart.data.datamodule import ImageDataModule, Split, joined
from headstart.data.fingerprint import Scan, scan, split_fingerprint
from headstart.data.pictures import BAD_IMAGE, as_channels
from headstart.data.source import Source
from headstart.data.split import check_classes, class_counts, count_of, first_shots, interleaved
from headstart.errors import ConfigError, DataError
from headstart.facts import DataFacts, InputSpec

VAL_SHARE, TEST_SHARE = 0.1, 0.2


def open_source(data: DataConfig) -> Source:
    """List the examples that `data` names; raises DataError where they are not to be had."""
    match data:
        case ImageFolderConfig():
            from headstart.data.image_folder import image_folder

            return image_folder(data.path)
        case HuggingFaceConfig():
            from headstart.data.huggingface import huggingface

            return huggingface(
                data.path,
                subset=data.subset,
                image_column=data.image_column,
                label_column=data.label_column,
            )
        case TorchvisionConfig():
            from headstart.data.torchvision_sets import torchvision_set

            return torchvision_set(data.name, path=data.path, download=data.download, options=data.options or {})
        case DigitsConfig():
            from headstart.data.digits import digits

            return digits()
    raise ConfigError(f"data.source={data.source}: there is no such source.")


def bit_image_size(data: DataConfig) -> int:
    """The side in pixels that BiT-HyperRule gives images as large as the first training image that can be read.

    Raises DataError where there is none.
    """
    source = open_source(data)
    examples = (of_classes(source, data.classes) if data.classes is not None else source).splits["train"]
    for index in range(len(examples.targets)):
        with suppress(*BAD_IMAGE):
            picture = examples.image(index)
            width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
            return transforms.bit_size(height, width)
    raise DataError("data: none of the training images can be read.")


def load_data(data: DataConfig, spec: InputSpec, *, seed: int, threads: int, num_workers: int) -> ImageDataModule:
    """Read, check and split the data; `spec` is what the backbone expects, options already applied.

    Raises DataError where examples cannot be read, are too few, or leave a class out of a split.
    """
    source = open_source(data)
    if data.classes is not None:
        source = of_classes(source, data.classes)
    classes = len(source.class_names)
    if classes < 2:
        raise DataError(
            f"data: has one class only ({source.class_names[0] if classes else 'none'}); two are needed."
        )
    found = scan(source, threads=threads, on_bad_image=data.on_bad_image)
    splits = split_source(source, data, found.usable)
    for name, split in splits.items():
        check_classes(split.targets, name, source.class_names)
    return data_module(splits, source=source, found=found, data=data, spec=spec, seed=seed, num_workers=num_workers)


def data_module(
    splits: dict[str, Split],
    *,
    source: Source,
    found: Scan,
    data: DataConfig,
    spec: InputSpec,
    seed: int,
    num_workers: int,
) -> ImageDataModule:
    """The data module of splits of a source that has been read.

    Raises DataError where there is no way from the channels of its images to `data.channels`.
    """
    classes = len(source.class_names)
    first = next(iter(splits.values()))
    as_channels(first.examples.image(int(first.indices[0])), data.channels)  # wrong channels are said now
    facts = DataFacts(
        task=source.task,
        class_names=source.class_names,
        channels=data.channels,
        image_size=spec.size,
        sizes={name: len(split.indices) for name, split in splits.items()},
        class_counts={name: class_counts(split.targets, classes) for name, split in splits.items()},
        fingerprint=found.fingerprint,
        split_fingerprint=split_fingerprint({name: split.ids for name, split in splits.items()}),
        skipped=found.skipped,
    )
    return ImageDataModule(
        splits=splits,
        facts=facts,
        train_geometry=transforms.training(spec, augment=data.augment),
        eval_geometry=transforms.evaluation_for(spec, augment=data.augment),
        normalize=transforms.Normalize(spec.mean, spec.std),
        augment=data.augment,
        batch_size=data.batch_size,
        num_workers=num_workers,
        seed=seed,
        catalog=Catalog(source, found),
    )


def split_source(source: Source, data: DataConfig, usable: dict[str, list[int]]) -> dict[str, Split]:
    """Split: test and validation examples are set apart first, so that more training never moves them.

    Raises DataError where there are too few examples.
    """
    classes = len(source.class_names)

    def ordered(split: Split) -> Split:
        if not len(split.indices):
            raise DataError("data: a split has no examples left; make data.test_size and data.val_size smaller.")
        order = interleaved(split.ids, split.targets, split_seed=data.split_seed)
        return Split(split.examples, split.indices[order])

    whole = {
        name: ordered(Split(examples, np.asarray(usable[name], dtype=np.int64)))
        for name, examples in source.splits.items()
    }
    pool = whole["train"]
    splits: dict[str, Split] = {}
    for name, size, share in (("test", data.test_size, TEST_SHARE), ("val", data.val_size, VAL_SHARE)):
        own = name in whole
        taken_from = whole[name] if own else pool
        wanted = size if own or size is not None else share
        count = count_of(wanted, of=len(taken_from.indices), classes=classes, key=f"{name}_size")
        splits[name] = Split(taken_from.examples, np.sort(taken_from.indices[:count]))
        if not own:
            # what is left is interleaved anew, so that its beginning has every class again
            pool = ordered(Split(pool.examples, np.sort(pool.indices[count:])))
    if data.shots is not None:
        targets = source.splits["train"].targets
        taken = first_shots(pool.indices, targets, data.shots, source.class_names)
    else:
        count = count_of(data.train_size, of=len(pool.indices), classes=classes, key="train_size")
        taken = pool.indices[:count]
    splits["train"] = Split(pool.examples, np.sort(taken))
    if data.refit_on_val:
        splits["train"] = joined(splits["train"], splits["val"])
    return {name: splits[name] for name in ("train", "val", "test")}
