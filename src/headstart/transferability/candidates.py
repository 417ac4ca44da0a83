"""Candidates of a ranking: names and globs of backbones, and earlier runs, each with overrides of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from headstart.config.choices import group_choices
from headstart.config.schema.backbone import BackboneConfig
from headstart.config.schema.head import HeadConfig
from headstart.errors import ConfigError, RecordError, did_you_mean
from headstart.records.store import read_record
from headstart.sweep.definition import text_of

KEY = "backbones"
"""What names the candidates on the command line."""
_OWN = ("backbone", "weights", "head.pool", "seed")
"""Keys, or groups of them, in which candidates may differ."""
_GLOB = set("*?")
SCRATCH = "weights=scratch"


@dataclass(frozen=True)
class Candidate:
    """A backbone with its weights, as overrides of one experiment."""

    name: str
    """As it was asked for; of a run its id."""
    overrides: tuple[str, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """Those of its overrides that say where its weights come from."""
        return tuple(text for text in self.overrides if is_of("weights", text))

    @property
    def rest(self) -> tuple[str, ...]:
        """Its other overrides."""
        return tuple(text for text in self.overrides if not is_of("weights", text))

    def after(self, shared: Sequence[str]) -> tuple[str, ...]:
        """Its overrides after those of all; its own kind of weights takes the place of theirs."""
        own = any(text.partition("=")[0] == "weights" for text in self.overrides)
        return (*(text for text in shared if not (own and is_of("weights", text))), *self.overrides)

    @property
    def control(self) -> Candidate:
        """The same backbone with random weights."""
        key, _, name = self.rest[0].partition("=")
        architecture = name.strip("'").partition(".")[0]  # a tag names weights
        words = (*self.rest[1:], SCRATCH)
        return Candidate(" ".join([architecture, *words]), (f"{key}={text_of(architecture)}", *words))


def is_of(group: str, override: str) -> bool:
    """Whether an override is of a group or key of that name."""
    key = override.partition("=")[0].lstrip("+")
    return key == group or key.startswith(f"{group}.")


def split_asked(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """(entries of `backbones=[...]`, the other overrides), in their order.

    Raises ConfigError where there are no candidates, or `backbones` is no list of names.
    """
    lists = [text for text in overrides if text.partition("=")[0].lstrip("+") == KEY]
    rest = [text for text in overrides if text not in lists]
    if not lists:
        raise ConfigError("backbones=[...]: names what to rank, such as 'backbones=[resnet18,convnext_*]'.")
    if len(lists) > 1:
        raise ConfigError("backbones=[...] is given twice; put all candidates into one list.")
    for text in rest:
        if is_of("backbone", text):
            raise ConfigError(f"{text}: backbones=[...] names the candidates; overrides of one go into its entry.")
    try:
        override = OverridesParser.create().parse_override(lists[0])
        values = list(override.sweep_iterator()) if override.is_sweep_override() else override.value()
    except HydraException as error:
        raise ConfigError(
            f"{lists[0]}: cannot be read ({str(error).splitlines()[0]}); write "
            "backbones=[resnet18,'vit_* weights=scratch']."
        ) from error
    entries = [str(value) for value in (values if isinstance(values, list) else [values]) if value is not None]
    if not entries:
        raise ConfigError("backbones=[]: names no candidate.")
    return entries, rest


def find_candidates(
    entries: Sequence[str], *, shared: Sequence[str], config_dirs: tuple[str, ...] = ()
) -> list[Candidate]:
    """The candidates of `backbones=[...]`, each once, in order.

    An entry is the name or a glob of backbones of timm (of torchvision with backbone.library=torchvision), a preset
    of the backbone group, or the folder of a run; then overrides of its own. A glob stands for models that have
    published weights, unless the weights come from elsewhere; one with a dot is matched with the tags. `shared` are
    the overrides of all. Raises ConfigError for a name or a glob that matches nothing.
    """
    presets = group_choices("backbone", config_dirs)
    found: dict[str, Candidate] = {}
    for entry in entries:
        for one in _candidates(entry, shared=shared, presets=presets):
            known = found.setdefault(one.name, one)
            if known.overrides != one.overrides:
                raise ConfigError(
                    f"backbones: {entry}: another candidate is called {one.name} too; rename its folder."
                )
    return list(found.values())


def with_controls(candidates: Iterable[Candidate], *, shared: Sequence[str] = ()) -> list[Candidate]:
    """The same, and after them each of their backbones with random weights, where that is not among them."""
    listed = list(candidates)
    found = {one.name: one for one in listed}
    there = {(one.rest, _kind_of_weights(one.after(shared))) for one in listed}
    for one in listed:
        control = one.control
        if (control.rest, SCRATCH) not in there:
            found.setdefault(control.name, control)
    return list(found.values())


def _kind_of_weights(overrides: Sequence[str]) -> str:
    return next((text for text in reversed(overrides) if text.startswith("weights=")), "")


def _candidates(entry: str, *, shared: Sequence[str], presets: Sequence[str]) -> list[Candidate]:
    if (Path(entry) / "run.json").is_file():
        return [_of_run(Path(entry), [])]
    try:
        name, *words = shlex.split(entry)
    except ValueError as error:
        raise ConfigError(f"backbones: {entry!r}: cannot be read ({error}).") from error
    own = [_quoted(text) for text in words]
    for text in own:
        if "=" not in text or not any(is_of(group, text) for group in _OWN):
            raise ConfigError(f"backbones: {entry!r}: {text!r} is no override of {', '.join(_OWN)}.")
    if (Path(name) / "run.json").is_file():
        return [_of_run(Path(name), own)]
    if _GLOB & set(name):
        names = _matching(name, own=own, shared=shared)
        return [Candidate(" ".join([one, *own]), (f"backbone.name={text_of(one)}", *own)) for one in names]
    if name in presets:
        return [Candidate(entry, (f"backbone={name}", *own))]
    if "/" in name:
        raise ConfigError(f"backbones: {name}: is no run (it has no run.json).")
    _require_known(name, own=own, presets=presets)
    return [Candidate(entry, (f"backbone.name={text_of(name)}", *own))]


def _quoted(text: str) -> str:
    """An override whose value Hydra can read, as it came out of the shell's quotes."""
    key, equals, value = text.partition("=")
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        return f"{key}{equals}{text_of(value)}"
    return text


def _of_run(folder: Path, own: Sequence[str]) -> Candidate:
    try:
        config = read_record(folder).config
        backbone, pool = config["backbone"], config["head"]["pool"]
        said = [f"backbone.name={text_of(str(backbone['name']))}"]
        if backbone["library"] != BackboneConfig.library:
            said.append(f"backbone.library={text_of(str(backbone['library']))}")
        if pool != HeadConfig.pool:
            said.append(f"head.pool={text_of(str(pool))}")
    except (KeyError, TypeError) as error:
        raise RecordError(f"{folder}: its record does not say what its backbone is ({error}).") from error
    weights = ("weights=run", f"weights.path={text_of(str(folder.resolve()))}")
    return Candidate(" ".join([folder.resolve().name, *own]), (*said, *weights, *own))


def _library(own: Sequence[str]) -> str:
    return next((text.partition("=")[2] for text in own if text.startswith("backbone.library=")), "timm")


def _matching(glob: str, *, own: Sequence[str], shared: Sequence[str]) -> list[str]:
    if _library(own) == "torchvision":
        from headstart.models.torchvision_backbone import usable_models

        known: Sequence[str] = usable_models()
    else:
        import timm

        said = [text for text in (*shared, *own) if text.startswith("weights=")]
        published = not said or said[-1] == "weights=pretrained"
        if "." in glob:
            known = timm.list_pretrained()
        elif published:
            published_names = {name.partition(".")[0] for name in timm.list_pretrained()}
            known = [name for name in timm.list_models() if name in published_names]
        else:
            known = timm.list_models()
    found = [name for name in known if fnmatchcase(name, glob)]
    if not found:
        raise ConfigError(f"backbones: {glob}: matches no model; `headstart list backbones '{glob}'` shows them.")
    return found


def _require_known(name: str, *, own: Sequence[str], presets: Sequence[str]) -> None:
    from headstart.models.classifier import full_name

    try:
        full_name(name, library=_library(own))
    except ConfigError as error:
        hint = did_you_mean(name, presets)
        raise ConfigError(f"backbones: {str(error).removeprefix('backbone.name=')}{hint or ''}") from error
