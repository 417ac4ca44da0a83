"""What may be said anew when a result is reproduced: where things lie now, and on what machine it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from headstart.config.checks import check
from headstart.config.identity import DATA_PLACE
from headstart.config.plain import from_plain, to_plain
from headstart.config.schema.root import Config
from headstart.errors import ConfigError, did_you_mean
from headstart.reproduce.saved import Saved, exists

PLACES = (*(f"data.{key}" for key in DATA_PLACE), "weights.path", "output_dir", "logger")
"""Keys that cannot change what comes out."""
MACHINE = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.precision",
    "trainer.threads",
    "trainer.deterministic",
)
"""Keys of the machine; another value may give other bits, and is named."""
LOOKS = ("trainer.progress", "trainer.pictures")
ALLOWED = (*PLACES, *MACHINE, *LOOKS)


def with_places(config: Config, overrides: Sequence[str], *, output_dir: str) -> Config:
    """The config with `key=value` for some of `ALLOWED`; without another word results lie below `output_dir`.

    It logs to W&B only where `logger=wandb` says so: the run there already is the original's. Raises ConfigError
    for another key, or a value that does not fit.
    """
    require_allowed(overrides)
    plain = to_plain(config) | {"output_dir": output_dir, "logger": {"name": "none"}}
    if "download" in plain["data"]:  # somebody else's config says where to; only this machine's owner may
        plain["data"] = {**plain["data"], "download": False}
    for text in overrides:
        key, _, value = text.partition("=")
        _put(plain, key, _value(text, key, value))
    changed = from_plain(plain)
    check(changed)
    return changed


def require_allowed(overrides: Sequence[str]) -> None:
    """Raise ConfigError for an override of anything but `ALLOWED`."""
    for text in overrides:
        key, sign, _ = text.partition("=")
        if not sign or key not in ALLOWED:
            raise ConfigError(
                f"{text}: would make another experiment of it; reproducing takes {', '.join(ALLOWED)}."
                f"{did_you_mean(key, ALLOWED)}"
            )


def of_it(saved: Saved, overrides: Sequence[str]) -> list[str]:
    """Those of a sweep's `overrides` that one of its runs can use: each has its own data, weights and places."""
    wanted = []
    for text in overrides:
        group, _, name = text.partition("=")[0].partition(".")
        has = hasattr(getattr(saved.config, group, None), name) if name else True
        if has and not (group == "weights" and name == "path" and exists(getattr(saved.config.weights, name))):
            wanted.append(text)
    return wanted


_PATHS = ("data.path", "data.root", "data.split_file", "weights.path", "output_dir", "logger")
"""Their values are taken as they stand: a folder may be called 2024_06."""


def _value(text: str, key: str, value: str) -> Any:
    if key in _PATHS:
        return value
    try:
        return yaml.safe_load(value) if value else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{text}: cannot be read; quote a value with special characters.") from error


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.partition(".")
    if key == "logger":
        plain["logger"] = {"name": value}
    elif not name:
        plain[group] = value
    else:
        plain[group] = {**plain[group], name: value}


def with_a_cpu(config: Config) -> Config:
    """The config for a machine without a GPU, in the precision that comes nearest to the one it had."""
    trainer = dict(to_plain(config)["trainer"])
    precision = "32-true" if trainer["precision"] == "16-mixed" else trainer["precision"]
    return from_plain(to_plain(config) | {"trainer": trainer | {"accelerator": "cpu", "precision": precision}})
