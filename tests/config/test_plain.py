"""Saved configs: plain, complete, and read back strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.config.compose import compose
from headstart.config.plain import _loaded, dumped, from_plain, read_config, to_plain
from headstart.errors import ConfigError


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["strategy=last_k", "head=mlp", "optimizer=sgd", "schedule=one_cycle", "logger=csv"],
        [
            "weights=file",
            "weights.path=x.pth",
            "data=image_folder",
            "data.path=y",
            "schedule=step",
            "schedule.milestones=[1]",
        ],
    ],
)
def test_yaml_and_back(overrides: list[str]) -> None:
    config = compose(overrides)
    again = from_plain(yaml.safe_load(yaml.safe_dump(to_plain(config))))
    assert again == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strategy": {"name": "magic"}}, "strategy.name=magic: there is no such strategy"),
        ({"strategy": {}}, "strategy.name is required"),
        ({"strategy": 3}, "strategy: expected a group of options"),
        ({"strateg": {"name": "full"}}, "strateg: there is no such key. Did you mean 'strategy'?"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_a_damaged_config_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_plain({**to_plain(compose([])), **change})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n", "holds no config"),
        ("a: [\n", "is not plain YAML"),
        ("!!python/object/apply:os.system ['touch ran']\n", "is not plain YAML"),
        ("seed: ${oc.env:HOME}\n", "references"),
        ("[" * 5000, "is not plain YAML"),
        ("[" * 200_000, "is not plain YAML"),  # in C it would end the process
        ("- " * 200_000, "is not plain YAML"),
    ],
)
def test_a_hostile_file_is_refused(text: str, said: str) -> None:
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_config(Path("c.yaml"))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "value", [1e-5, 1e22, None, True, "yes", "1e3", "a: b", " #", "é 漢 😀", "two\nlines\n", "w " * 300]
)
def test_both_ways_to_read_and_write_say_the_same(value: Any) -> None:
    plain = {"short": value, "nested": {"list": [value, {}, []], "empty": {}}}
    assert yaml.safe_load(dumped(plain)) == plain
    assert _loaded(dumped(plain)) == _loaded(yaml.safe_dump(plain, allow_unicode=True)) == plain


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: cannot be read"):
        read_config(Path("nope.yaml"))
