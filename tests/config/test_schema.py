"""The schema: every option is explained, and read by something."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import headstart
from headstart.cli.options import all_keys
from headstart.config.paths import package_conf
from headstart.config.schema.root import DISCRIMINATORS, GROUPS

PACKAGE = Path(headstart.__file__).parent
CODE = "\n".join(p.read_text() for p in PACKAGE.rglob("*.py") if "schema" not in p.parts)


@pytest.mark.parametrize("key", sorted(all_keys()))
def test_every_option_is_explained_and_read(key: str) -> None:
    field = all_keys()[key]
    assert len(field.metadata["help"]) > 10
    name = key.rpartition(".")[2]
    assert f".{name}" in CODE or f'"{name}"' in CODE


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_kind_has_a_config_file_of_its_name(group: str) -> None:
    files = {path.stem for path in (package_conf() / group).glob("*.yaml")}
    kinds = set(GROUPS[group]) - {"schema"}
    assert kinds <= files
    if group in DISCRIMINATORS:
        assert files == kinds or group == "data"  # known sets are files of a kind
        for kind, cls in GROUPS[group].items():
            own = {f.name: f.default for f in dataclasses.fields(cls)}
            assert own[DISCRIMINATORS[group]] == kind
