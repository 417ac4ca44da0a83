"""Images that a candidate was pretrained on, as far as they are at hand, seen as it sees those of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headstart.config.compose import checked_plain, compose
from headstart.config.plain import to_plain
from headstart.config.schema.data import DataConfig
from headstart.errors import HeadstartError
from headstart.rehearsal import Rehearsal, data_of
from headstart.transferability.examine import Examined, Floats, features_of

MOST = 2_000
"""Images of the source that are looked at; of more, as many of each class as its share."""
_SEEN = ("image_size", "channels", "mean", "std", "interpolation", "crop_mode", "crop_pct", "augment")
"""Options of data that say how an image is seen."""


def data_from_overrides(overrides: Sequence[str], config_dirs: tuple[str, ...]) -> DataConfig:
    """The data of `--source "data=... data.path=..."`; raises ConfigError where there are none."""
    return compose(overrides, config_dirs=config_dirs).data


def data_from_record(plain: dict[str, Any], examined: Examined) -> DataConfig:
    """The data of a run, from its record; raises ConfigError where that cannot be read."""
    return checked_plain({**to_plain(examined.prepared.config), "data": plain}).data


def source_features(examined: Examined, source: DataConfig, rehearsal: Rehearsal) -> tuple[Floats | None, str]:
    """(n, width) features of training images of `source`, or None and why there are none.

    They are resized, cropped and normalised as the target's are.
    """
    config = examined.prepared.config
    seen = {name: getattr(config.data, name) for name in _SEEN}
    data = replace(source, **seen)
    try:
        found = data_of(replace(config, data=data), rehearsal, fresh=False)
        if found.facts.sizes["train"] > MOST:
            found = data_of(
                replace(config, data=replace(data, train_size=MOST, shots=None)), rehearsal, fresh=False
            )
        return features_of(examined.bank, found, config), ""
    except HeadstartError as error:
        return None, f"its source's images cannot be had ({error})"
