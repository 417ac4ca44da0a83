"""How far a candidate's source lies: images that it was pretrained on, where they are at hand, and class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from headstart.config.compose import checked_plain, compose
from headstart.config.plain import to_plain
from headstart.config.schema.data import DataConfig
from headstart.errors import ConfigError, HeadstartError
from headstart.rehearsal import Rehearsal, data_of
from headstart.transferability.distance import distances
from headstart.transferability.examine import Examined, Floats, features_of
from headstart.transferability.origin import origin_of
from headstart.transferability.overlap import label_overlap, overlap_note

MOST = 2_000
"""Images of the source that are looked at; of more, as many of each class as its share."""
_SEEN = ("image_size", "channels", "mean", "std", "interpolation", "crop_mode", "crop_pct", "augment")
"""Options of data that say how an image is seen."""


def data_from_overrides(overrides: Sequence[str], config_dirs: tuple[str, ...]) -> DataConfig:
    """The data of `--source "data=... data.path=..."`; raises ConfigError where there are none."""
    return compose(overrides, config_dirs=config_dirs).data


def data_from_record(plain: dict[str, Any], examined: Examined) -> DataConfig:
    """The data of a run, from its record; raises ConfigError where that cannot be read, or is not on this machine.

    A record may be somebody else's: nothing is fetched for it.
    """
    data = checked_plain({**to_plain(examined.prepared.config), "data": plain}).data
    path = getattr(data, "path", None)
    if path is not None and not Path(path).expanduser().exists():
        raise ConfigError(f"{path} is not on this machine; --source names images of the source")
    return cast(DataConfig, replace(cast(Any, data), download=False)) if hasattr(data, "download") else data


def distance_of(examined: Examined, rehearsal: Rehearsal, *, source: DataConfig | None) -> dict[str, Any]:
    """How far a candidate's source lies from the target, as far as anything of the source is known; plain data.

    `origin` in words; `shared_classes`, the target's classes that the source has by name, and `share` of those that
    have names; what `distances` says, where images are at hand: those of `source`, else of the run that the weights
    come from; `note`, what is to be said beside.
    """
    prepared, facts = examined.prepared, examined.prepared.facts
    backbone = prepared.config.backbone
    origin = origin_of(prepared.weights, name=backbone.name, library=backbone.library)
    found: dict[str, Any] = {"origin": origin.name}
    notes: list[str] = []
    if origin.classes and facts.task != "regression":
        overlap = label_overlap(origin.classes, facts.class_names)
        found |= {"shared_classes": list(overlap.shared), "share": overlap.share}
        notes += [note] if (note := overlap_note(overlap, source=origin.name, classes=facts.num_classes)) else []
    if origin.known:
        try:
            data = source or (data_from_record(dict(origin.data), examined) if origin.data else None)
            if data is not None:
                features = source_features(examined, data, rehearsal)
                found |= distances(features, examined.examples.features)
        except HeadstartError as error:
            notes.append(f"images of its source cannot be had ({error})")
    return found | ({"note": "; ".join(notes)} if notes else {})


def source_features(examined: Examined, source: DataConfig, rehearsal: Rehearsal) -> Floats:
    """(n, width) features of training images of `source`, resized, cropped and normalised as the target's are.

    Raises a HeadstartError where they cannot be had.
    """
    config = examined.prepared.config
    data = replace(source, **{name: getattr(config.data, name) for name in _SEEN})
    found = data_of(replace(config, data=data), rehearsal, fresh=False)
    if found.facts.sizes["train"] > MOST:
        some = replace(data, train_size=MOST, shots=None)
        found = data_of(replace(config, data=some), rehearsal, fresh=False)
    return features_of(examined.bank, found, config)
