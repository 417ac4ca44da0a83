"""A run's config turned to further test images: the preprocessing is its own, the machine the one at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from headstart.config.checks import check
from headstart.config.compose import compose_node, configs, parse
from headstart.config.identity import DATA_PLACE
from headstart.config.plain import from_plain, to_plain
from headstart.config.schema.data import DataConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError, did_you_mean

PREPROCESSING = ("image_size", "channels", "mean", "std", "interpolation", "crop_pct", "augment")
"""Options of `data` that are the run's whatever is scored: its model knows no other images."""
_KEPT = (*PREPROCESSING, "batch_size", "on_bad_image", "cache", "cache_gb", "task")
"""What is as it was in the run, unless it is said."""
READING = (
    "batch_size", "num_workers", "on_bad_image", "classes", "download", "cache", "cache_gb", "task",
)  # fmt: skip
OWN = (*(f"data.{key}" for key in DATA_PLACE), "data.batch_size")
MACHINE = ("trainer.accelerator", "trainer.precision", "trainer.threads")
_SHARED = tuple(field.name for field in dataclasses.fields(DataConfig))


def with_data(config: Config, overrides: Sequence[str], *, config_dirs: tuple[str, ...] = ()) -> Config:
    """The config of a run with `data=` and `data.key=` of other images, and some of the machine's keys.

    Without `data=` it is the same kind of source, and what is not said of it is as it was. The split of the run has
    no part in it. Raises ConfigError for another key, or a value that does not fit.
    """
    given = {text.partition("=")[0]: text for text in overrides}
    for key, text in given.items():
        name = key.removeprefix("data.")
        if name in PREPROCESSING and key != name:
            raise ConfigError(f"{text}: the preprocessing is the run's own; its model knows no other.")
        if key != "data" and key not in MACHINE and name not in READING and (key == name or name in _SHARED):
            raise ConfigError(
                f"{text}: has no part in scoring; say which data (data=, data.path=, ...), "
                f"{', '.join(f'data.{word}' for word in READING)}, {', '.join(MACHINE)}."
            )
    plain = to_plain(config)["data"]
    with configs(config_dirs):
        node = compose_node([given.get("data", f"data={config.data.source}")])
        data: dict[str, Any] = dict(OmegaConf.to_container(node.data, resolve=True))  # type: ignore[arg-type]
    if "data" not in given:
        data |= {key: value for key, value in plain.items() if key not in _SHARED}
    data |= {key: plain[key] for key in _KEPT if key in data}
    if data["task"] == "binary":  # which class is which is decided by their names
        data["task"] = None
    data["positive"] = None
    return _put(config, data, [text for key, text in given.items() if key != "data"], config_dirs)


def where_it_lies(config: Config, overrides: Sequence[str]) -> Config:
    """The config of a run with its own data, which may lie elsewhere now, and some of the machine's keys.

    Raises ConfigError for another key, or a value that does not fit.
    """
    for text in overrides:
        key = text.partition("=")[0]
        if key not in (*OWN, *MACHINE):
            raise ConfigError(
                f"{text}: spoilt copies are of the run's own test images; they take {', '.join((*OWN, *MACHINE))}."
                f"{did_you_mean(key, (*OWN, *MACHINE))}"
            )
    return _put(config, to_plain(config)["data"], overrides, ())


def _put(config: Config, data: dict[str, Any], overrides: Sequence[str], config_dirs: tuple[str, ...]) -> Config:
    """The config with that data, and with `overrides` of it and of the machine."""
    with configs(config_dirs):
        parsed = parse(overrides)
    if "download" in data:  # somebody else's config says where to; only this machine's owner may
        data = {**data, "download": False}
    plain = to_plain(config)
    trainer = {**plain["trainer"], "accelerator": "auto", "devices": 1}
    for override in parsed:
        group, _, name = override.key_or_group.partition(".")
        if group == "trainer":
            trainer[name] = override.value()
        elif name not in data:
            raise ConfigError(
                f"data.{name}: there is no such option of data={data['source']}.{did_you_mean(name, data)}"
            )
        else:  # a path is taken as it stands: a folder may be called 2024_06
            data[name] = override.input_line.partition("=")[2] if name == "path" else override.value()
    changed = from_plain({**plain, "data": data, "trainer": trainer})
    check(changed)
    return changed
