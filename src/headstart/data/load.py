"""From the data's config to a data module: list, check, split, and say what was found."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
from PIL import Image

from headstart.config.paths import cache_dir
from headstart.config.schema.data import DataConfig
from headstart.data import transforms
from headstart.data.augmentation import build_augmentation, kept_side
from headstart.data.catalog import Catalog
from headstart.data.datamodule import ImageDataModule
from headstart.data.decoded import ShortDigests
from headstart.data.fingerprint import Scan, scan, split_fingerprint
from headstart.data.forms import Finished
from headstart.data.image_cache import ImageCache
from headstart.data.opening import chosen_source
from headstart.data.pictures import BAD_IMAGE, as_channels
from headstart.data.source import Source
from headstart.data.split import check_classes, class_counts
from headstart.data.splitting import split_source
from headstart.data.subset import Split
from headstart.data.targets import target_statistics
from headstart.errors import ConfigError, DataError
from headstart.facts import DataFacts, InputSpec


def bit_image_size(data: DataConfig) -> int:
    """The side in pixels that BiT-HyperRule gives images as large as the first training image that can be read.

    Raises DataError where there is none.
    """
    examples = chosen_source(data).splits["train"]
    for index in range(len(examples.targets)):
        with suppress(*BAD_IMAGE):
            picture = examples.image(index)
            width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
            return transforms.bit_size(height, width)
    raise DataError("data: none of the training images can be read.")


def load_data(
    data: DataConfig, spec: InputSpec, *, seed: int, threads: int, num_workers: int, fresh: bool = False
) -> ImageDataModule:
    """Read, check and split the data; `spec` is what the backbone expects, options already applied.

    With `fresh` every file is read again, though one of its name, size and times was before. Raises DataError where
    examples cannot be read, are too few, or leave a class out of a split.
    """
    source = chosen_source(data)
    classes, numbers = len(source.class_names), source.task == "regression"
    if numbers and data.sampling == "balanced":
        raise ConfigError("data.sampling=balanced: evens out classes; these targets are numbers.")
    if classes < 2 and not numbers:
        raise DataError(
            f"data: has one class only ({source.class_names[0] if classes else 'none'}); two are needed."
        )
    found = scan(
        source,
        threads=threads,
        on_bad_image=data.on_bad_image,
        fresh=fresh,
        groups=data.group_pattern is None,
    )
    splits = split_source(source, data, found.usable)
    usable = np.concatenate([one.targets[found.usable[name]] for name, one in source.splits.items()])
    for name, split in splits.items() if not numbers else ():
        check_classes(split.targets, name, source.class_names, have=class_counts(usable, classes))
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

    Raises DataError where there is no way from the channels of its images to `data.channels`, or where numbers
    to train on cannot be.
    """
    classes, numbers = len(source.class_names), source.task == "regression"
    trained_on = splits["train"].targets if numbers and "train" in splits else None
    mean, std = target_statistics(trained_on, source.class_names) if trained_on is not None else ((), ())
    first = next(iter(splits.values()))
    as_channels(first.examples.image(int(first.indices[0])), data.channels)  # wrong channels are said now
    facts = DataFacts(
        task=source.task,
        class_names=source.class_names,
        channels=data.channels,
        image_size=spec.size,
        sizes={name: len(split.indices) for name, split in splits.items()},
        class_counts={
            name: () if numbers else class_counts(split.targets, classes) for name, split in splits.items()
        },
        fingerprint=found.fingerprint,
        split_fingerprint=split_fingerprint({name: split.ids for name, split in splits.items()}),
        skipped=found.skipped,
        target_mean=mean,
        target_std=std,
    )
    pixels = replace(spec, mean=(), std=())  # what is kept has not been normalised
    return ImageDataModule(
        splits=splits,
        facts=facts,
        evaluation=Finished(pixels, data.channels, squashed=data.augment == "bit"),
        augmentation=build_augmentation(
            data.augment,
            pixels,
            channels=data.channels,
            side=data.keep_side or kept_side(spec.size),
            magnitude=data.augment_magnitude or 0,
        ),
        normalize=transforms.Normalize(spec.mean, spec.std),
        batch_size=data.batch_size,
        num_workers=num_workers,
        seed=seed,
        sampling=data.sampling,
        catalog=Catalog(source, found),
        cache=ImageCache(cache_dir(), found.fingerprint, words_of(data), int(data.cache_gb * 1e9))
        if data.cache
        else None,
        digests={name: digests_of(split, source, found) for name, split in splits.items()},
    )


def digests_of(split: Split, source: Source, found: Scan) -> ShortDigests:
    """First eight bytes of the digest of each example of a split, in its order."""
    where = {}
    for name, examples in source.splits.items():
        digests = np.zeros(len(examples.ids), dtype=np.uint64)
        digests[found.usable[name]] = found.digests[name]
        where[id(examples)] = digests
    return np.array([where[id(examples)][index] for examples, index in split.places()], dtype=np.uint64)


def words_of(data: DataConfig) -> str:
    """The data in a few words, for people."""
    named = [str(value) for key in ("name", "path") if (value := getattr(data, key, None))]
    return " ".join([data.source, *named])
