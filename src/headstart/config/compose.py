"""From files and overrides to one checked `Config`; every mistake on the way becomes one clear line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import version as hydra_version
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from headstart.config.checks import check
from headstart.config.paths import default_output_dir, search_path
from headstart.config.plain import from_plain, unknown_key
from headstart.config.schema import regularizer
from headstart.config.schema.root import GROUPS, Config, kinds_of, metadata_of, regularizer_kinds
from headstart.errors import ConfigError, did_you_mean, nearest

CHOOSERS = (*GROUPS, "regularizer", "experiment", "sweep")
"""Keys whose value names a config file: Hydra composes anew for each."""


@contextmanager
def configs(config_dirs: tuple[str, ...] = ()) -> Iterator[Hydra]:
    """Make the configs of `search_path` the ones that Hydra composes from, for the length of a `with`."""
    Plugins.instance()  # registers what reads pkg:// and file://
    _register()
    folders = ConfigSearchPathImpl()
    folders.append("hydra", "pkg://hydra.conf")
    for i, folder in enumerate(search_path(config_dirs)):
        # Hydra treats the first provider called "main" as the application's own
        folders.append("main" if i == 0 else f"headstart-{i}", f"file://{folder}")
    folders.append("schema", "structured://")
    before = GlobalHydra.instance().hydra
    hydra_version.setbase("1.3")
    GlobalHydra.instance().hydra = None
    try:
        yield Hydra.create_main_hydra2(task_name="headstart", config_search_path=folders)
    finally:
        GlobalHydra.instance().hydra = before


def _register() -> None:
    """Put the schema into Hydra's store: each class once, as that takes milliseconds."""
    schema: list[tuple[str, str, type, str | None]] = [("", "headstart_schema", Config, None)]
    for group in GROUPS:
        for kind, cls in kinds_of(group).items():
            schema.append((f"schema/{group}", kind, cls, None))
            if kind not in GROUPS[group]:  # a plugin's, which has no file of its own
                schema.append((group, kind, cls, None))
    for kind, cls in regularizer_kinds().items():
        schema.append(("schema/regularizer", kind, cls, None))
        if kind not in regularizer.OPTIONS:
            schema.append(("regularizer", kind, cls, f"regularizer.{kind}"))
    for group, name, cls, package in schema:
        if _REGISTERED.get((group, name)) is not cls:
            ConfigStore.instance().store(group=group or None, name=name, node=cls, package=package)
            _REGISTERED[group, name] = cls


_REGISTERED: dict[tuple[str, str], type] = {}


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse override strings; raises ConfigError for one that is no override or whose key does not exist."""
    parsed = []
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            hint = did_you_mean(text.lstrip("-"), ["multirun", "cfg", "config-dir", "debug"])
            raise ConfigError(f"{text!r} is not an override: write key=value, such as seed=1.{hint}")
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{text!r} cannot be read ({reason}); quote a value with spaces or commas."
            ) from error
        key = override.key_or_group
        top = key.split(".")[0].split("@")[0]
        if override.is_delete():
            raise ConfigError(f"{text!r}: a key cannot be removed; set it to null or to another value.")
        if key.startswith("sweep.") and key != "sweep.name":
            raise ConfigError(f"{key}: belongs in an experiment or sweep file; here say key=a,b with -m.")
        if top == "hydra":
            raise ConfigError(f"{key}: belongs in an experiment file; here output_dir says where results go.")
        if top not in (*metadata_of(Config), *CHOOSERS):
            raise ConfigError(unknown_key(top, [*metadata_of(Config), *CHOOSERS]))
        override.input_line, override.config_loader = text, loader
        parsed.append(override)
    return parsed


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """Compose inside `configs()` and return Hydra's node, hydra's own settings included.

    Raises ConfigError with the key at fault and the nearest right one.
    """
    _require_known_experiment_form(overrides)
    parse(overrides)
    texts = [text.lstrip("+") if text.split("=")[0].lstrip("+") in CHOOSERS else text for text in overrides]
    texts = [_as_list(text) if text.startswith("regularizer=") else text for text in texts]
    try:
        return hydra_compose("config", overrides=texts, return_hydra_config=True)
    except MissingConfigException as error:
        raise ConfigError(_missing_option(error)) from error
    except ValueError as error:
        chosen = [text for text in texts if text.partition("=")[0] in CHOOSERS]
        raise ConfigError(f"{' '.join(chosen)}: a group is one of its choices by name.") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"A config file is not YAML: {' '.join(str(error).split())}") from error


def compose(overrides: Sequence[str], *, config_dirs: tuple[str, ...] = ()) -> Config:
    """Compose and check one experiment.

    Raises ConfigError for anything that can be known to be wrong without reading data or building a model.
    """
    with configs(config_dirs):
        return checked(compose_node(overrides))


def checked(node: DictConfig) -> Config:
    """Turn a composed node into a `Config`, or raise ConfigError."""
    own = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
    try:
        plain = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(plain, dict)
    return checked_plain({str(key): value for key, value in plain.items()})


def checked_plain(plain: dict[str, Any]) -> Config:
    """Turn a composed config that is plain data already into a `Config`, or raise ConfigError."""
    config = from_plain(plain)
    config.output_dir = config.output_dir or str(default_output_dir())
    check(config)
    return config


def explain(error: BaseException) -> str:
    """One line for what Hydra or OmegaConf refused."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OmegaConfBaseException) and cause.full_key):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        ambiguous = re.search(r"Ambiguous value for argument '(.*)'", text)
        if ambiguous:
            return f"{ambiguous[1]}: several values for one run; add -m to run each, or write [a,b] for a list."
        twice = re.search(r"Multiple values for (\w+)", text)
        return f"{twice[1]} is chosen twice; choose it once." if twice else text
    key = str(cause.full_key)
    name = key.removeprefix("regularizer.").partition(".")[0]
    if key.startswith("regularizer.") and name in regularizer_kinds() and key.count(".") == 1:
        return f"{key}: this regularizer is not chosen; say regularizer=[{name}] as well."
    if "not in" in str(cause):
        owner = getattr(cause, "object_type", None)
        names = (
            list(metadata_of(owner)) if isinstance(owner, type) and hasattr(owner, "__dataclass_fields__") else []
        )
        return unknown_key(key, names)
    return f"{key}: {str(cause).splitlines()[0]}."


def _as_list(text: str) -> str:
    """`regularizer=l2_sp` means the list with that one name, `regularizer=none` the empty one.

    Raises ConfigError for a name that is none: Hydra says of a list only that it could not be loaded.
    """
    key, _, value = text.partition("=")
    names = [name.strip() for name in value.strip("[]").split(",") if name.strip() not in ("", "null", "none")]
    known = GlobalHydra.instance().config_loader().get_group_options("regularizer")
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"regularizer={name}: there is no such regularizer.{hint} There are: {', '.join(known)}."
            )
    return f"{key}=[{','.join(names)}]"


def _missing_option(error: MissingConfigException) -> str:
    found = re.search(r"Could not find '([^']*)'", str(error))
    if not found or "/" not in found[1]:
        return str(error).splitlines()[0]
    group, _, choice = found[1].rpartition("/")
    options = [name for name in error.options or () if not name.startswith("schema")]
    if not options:
        repository = GlobalHydra.instance().config_loader()
        options = repository.get_group_options(group)
    hint = did_you_mean(choice, options)
    if group == "backbone" and not nearest(choice, options):
        hint = f" Any timm model can be named: backbone.name={choice}."
    return f"{group}={choice}: there is no such {group}.{hint} There are: {', '.join(options) or 'none'}."


def _require_known_experiment_form(overrides: Sequence[str]) -> None:
    """`-m experiment=a,b` is expanded before it gets here; a list here is a mistake worth its own line."""
    for text in overrides:
        if re.fullmatch(r"\+?experiment=\[.*\]", text):
            raise ConfigError(f"{text}: several experiments are written experiment=a,b, with -m.")
