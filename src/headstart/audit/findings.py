"""The audit: a look at every image, the splits that training would use, and all that is found, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from headstart.audit.duplicates import Copies, find_copies
from headstart.audit.images import ImageFacts, describe_images
from headstart.audit.labels import Labels, describe_labels, label_text
from headstart.audit.leaks import Leak, Pair, contradictions, leaks_of, pairs_of
from headstart.audit.look import Looks, look_at
from headstart.audit.preprocessing import Preprocessing, describe_preprocessing
from headstart.config.schema.data import DataConfig
from headstart.data import ImageDataModule, load_data
from headstart.data.opening import chosen_source
from headstart.data.source import Source
from headstart.errors import DataError
from headstart.facts import InputSpec


@dataclass(frozen=True)
class Example:
    """An image of the source."""

    id: str
    split: str
    """Where training would use it; empty where it would not. Of the source, where it cannot be split."""
    label: str


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded."""

    where: str
    reason: str


@dataclass(frozen=True)
class Findings:
    """All that an audit found."""

    source: str
    task: str
    class_names: tuple[str, ...]
    images: int
    """Of the source, readable or not."""
    sizes: dict[str, int]
    """Split -> images."""
    unused: int
    """Readable images that no split takes."""
    fingerprint: str
    split_fingerprint: str
    """Both empty where the data cannot be split."""
    problem: str
    """Why training would not begin; empty where it would."""
    labels: Labels
    files: ImageFacts
    unreadable: tuple[Unreadable, ...]
    preprocessing: Preprocessing
    image_size: tuple[int, int]
    """Height and width of what the model takes."""
    examples: tuple[Example, ...]
    """All images; the pairs count their places in it."""
    copies: Copies
    pairs: tuple[Pair, ...]
    leaks: tuple[Leak, ...]
    contradictions: tuple[Pair, ...]

    @property
    def bad(self) -> bool:
        """Whether results on this data would not be what they seem, or training would not begin."""
        return bool(self.leaks or self.contradictions or self.unreadable)


@dataclass(frozen=True)
class Audit:
    """The findings, and the data that they are about; None where it cannot be split."""

    findings: Findings
    data: ImageDataModule | None


def audit(data: DataConfig, spec: InputSpec, *, seed: int, threads: int) -> Audit:
    """Look at all images that `data` names; broken ones are findings, and so is data that cannot be split.

    Training on the validation examples as well (`data.refit_on_val`) is no leak and is left aside. Raises DataError
    where there is no such data, ConfigError for classes that it has not.
    """
    loaded, problem = _load(data, spec, seed=seed, threads=threads)
    source = loaded.catalog.source if loaded and loaded.catalog else _source(data)
    looks = look_at(source, threads=threads)
    if loaded is not None:
        _take_over(loaded.facts.skipped, source, looks)
    places = {
        (split, examples.ids[i]): n
        for n, (split, i) in enumerate(zip(looks.origins, looks.indices.tolist(), strict=True))
        if (examples := source.splits[split])
    }
    splits = _splits(loaded, looks, places)
    labels = [
        label_text(source.task, source.class_names, source.splits[split].targets[i])
        for split, i in zip(looks.origins, looks.indices, strict=True)
    ]
    names = _names(source, looks)
    copies = find_copies(looks)
    used = [split for split in ("train", "val", "test") if split in set(splits)]
    sizes: dict[str, int] = {split: splits.count(split) for split in used}
    findings = Findings(
        source=data.source,
        task=source.task,
        class_names=source.class_names,
        images=len(looks),
        sizes=sizes,
        unused=sum(not split and n not in looks.problems for n, split in enumerate(splits)),
        fingerprint=loaded.facts.fingerprint if loaded else "",
        split_fingerprint=loaded.facts.split_fingerprint if loaded else "",
        problem=problem,
        labels=describe_labels(
            source.task, source.class_names, {split: _targets(source, looks, splits, split) for split in used}
        ),
        files=describe_images(looks, size=spec.size, id_of=names.__getitem__, name_of=_file_names(source, looks)),
        unreadable=tuple(
            Unreadable(source.splits[looks.origins[n]].where(int(looks.indices[n])), reason)
            for n, reason in sorted(looks.problems.items())
        ),
        preprocessing=describe_preprocessing(
            spec, channels=data.channels, augment=data.augment, mixes=_mixes(data)
        ),
        image_size=spec.size,
        examples=tuple(map(Example, names, splits, labels)),
        copies=copies,
        pairs=tuple(pairs_of(copies, splits)),
        leaks=tuple(leaks_of(copies, splits, sizes)),
        contradictions=tuple(contradictions(copies, labels)),
    )
    return Audit(findings, loaded)


def _load(data: DataConfig, spec: InputSpec, *, seed: int, threads: int) -> tuple[ImageDataModule | None, str]:
    """The data as training would have it, without the images that cannot be read; or why there is none."""
    data = replace(data, on_bad_image="skip", refit_on_val=False)
    try:
        return load_data(data, spec, seed=seed, threads=threads, num_workers=0), ""
    except DataError as error:
        return None, str(error)


def _source(data: DataConfig) -> Source:
    """What the data would be of, where it cannot be split."""
    return chosen_source(data)


def _take_over(skipped: tuple[str, ...], source: Source, looks: Looks) -> None:
    """What loading has left out is unreadable, whatever the look at it said."""
    if len(skipped) == len(looks.problems):
        return
    left_out = set(skipped)
    for n, (split, i) in enumerate(zip(looks.origins, looks.indices.tolist(), strict=True)):
        if n not in looks.problems and source.splits[split].where(i) in left_out:
            looks.problems[n] = "cannot be decoded as training does"


def _splits(loaded: ImageDataModule | None, looks: Looks, places: dict[tuple[str, str], int]) -> list[str]:
    """The split of each image."""
    if loaded is None or loaded.catalog is None:
        return ["" if n in looks.problems else split for n, split in enumerate(looks.origins)]
    origins = {id(examples): name for name, examples in loaded.catalog.source.splits.items()}
    splits = [""] * len(looks)
    for name, split in loaded.splits.items():
        for examples, index in split.places():
            splits[places[origins[id(examples)], examples.ids[index]]] = name
    return splits


def _targets(source: Source, looks: Looks, splits: list[str], split: str) -> Any:
    parts = []
    for origin, examples in source.splits.items():
        wanted = [
            int(i)
            for i, there, used in zip(looks.indices, looks.origins, splits, strict=True)
            if there == origin and used == split
        ]
        parts.append(examples.targets[np.array(wanted, dtype=np.int64)])
    return np.concatenate(parts)


def _names(source: Source, looks: Looks) -> list[str]:
    """Ids; where two splits of the source have the same ones, with the split before them."""
    ids = [source.splits[split].ids[i] for split, i in zip(looks.origins, looks.indices.tolist(), strict=True)]
    if len(set(ids)) == len(ids):
        return ids
    return [f"{split}: {name}" for split, name in zip(looks.origins, ids, strict=True)]


def _file_names(source: Source, looks: Looks) -> Callable[[int], str]:
    def name(n: int) -> str:
        examples = source.splits[looks.origins[n]]
        return PurePath(examples.where(int(looks.indices[n]))).name if examples.encoded else ""

    return name


def _mixes(data: DataConfig) -> list[str]:
    """What is done to whole batches of training images."""
    found = {name: getattr(data, f"{name}_alpha", None) for name in ("mixup", "cutmix")}
    return [f"{name} of pairs, Beta({alpha:g})" for name, alpha in found.items() if alpha]


def plain(findings: Findings) -> dict[str, Any]:
    """The findings as JSON has them; copies name their images, and the table of all images is left out."""
    examples = findings.examples

    def described(pair: Pair) -> dict[str, Any]:
        return {
            "images": [dataclasses.asdict(examples[place]) for place in (pair.first, pair.second)],
            "kind": pair.kind,
            "likeness": pair.likeness,
            "mirrored": pair.mirrored,
        }

    found = {
        field.name: getattr(findings, field.name)
        for field in dataclasses.fields(findings)
        if field.name not in ("examples", "copies", "pairs", "contradictions")
    }
    value = {
        name: dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else item
        for name, item in found.items()
    }
    value["leaks"] = [dataclasses.asdict(leak) for leak in findings.leaks]
    value["unreadable"] = [dataclasses.asdict(one) for one in findings.unreadable]
    value["labels"]["balance"] = value["labels"]["balance"] and {
        **value["labels"]["balance"],
        "ratio": findings.labels.balance.ratio if findings.labels.balance else None,
    }
    value["exact_duplicates"] = [
        [dataclasses.asdict(examples[place]) for place in group] for group in findings.copies.exact
    ]
    value["pairs"] = [described(pair) for pair in findings.pairs]
    value["contradictory_labels"] = [described(pair) for pair in findings.contradictions]
    value["compared"] = {name: getattr(findings.copies, name) for name in ("alike", "flat", "small", "complete")}
    value["bad"] = findings.bad
    return value
