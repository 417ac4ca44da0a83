"""Strategies, regularisers and sources of an installed package, found by its entry point and by nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RunTiny, tiny_config

from headstart.cli import main
from headstart.errors import ConfigError, DataError
from headstart.plugins import plugins
from headstart.preparation import prepare
from headstart.records.examples import read_examples
from headstart.records.tables import read_rows

MODULE = '''
from dataclasses import dataclass
import numpy as np
from PIL import Image
from headstart.data.source import Source
from headstart.config.schema.option import option
from headstart.config.schema.regularizer import RegularizerConfig
from headstart.config.schema.strategy import StrategyConfig
from headstart.config.schema.data import DataConfig
from headstart.plugins import OwnRegularizer, OwnSource, OwnStrategy, Plugin
from headstart.strategies import Stage

@dataclass
class EveryOtherConfig(StrategyConfig):
    """Every other layer group trains."""
    name: str = "every_other"
    first: int = option(0, "Where it begins, counted from the input.", least=0)

@dataclass
class SmallScoresConfig(RegularizerConfig):
    """Scores stay small."""
    strength: float = option(0.5, "How strongly the scores are kept small.", least=0)

def every_other(config, layers, timing):
    return [Stage(0, (*layers.names[:-1][config.first :: 2], "head"))]

def small_scores(config, parts):
    from headstart.strategies.penalties import Penalty
    class SmallScores(Penalty):
        def forward(self, step):
            return config.strength * step.scores.square().mean()
    return SmallScores()

@dataclass
class StripesConfig(DataConfig):
    """Stripes that lie or stand."""
    source: str = "stripes"
    count: int = option(90, "How many there are.", least=4)

class Stripes:
    encoded = False
    def __init__(self, count):
        self.ids = [f"scene{i // 3}/{i}" for i in range(count)]
        self.targets = np.arange(count, dtype=np.int64) % 2
    def image(self, index):
        lines = (np.arange(16) % 4 < 2) * np.uint8(100 + index)
        grid = np.broadcast_to(lines, (16, 16)).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(grid if self.targets[index] else grid.T))
    def content(self, index):
        return self.image(index).tobytes()
    def where(self, index):
        return f"stripes, {index}"

def stripes(config):
    return Source(("lying", "standing"), "multiclass", {"train": Stripes(config.count)})

PLUGIN = Plugin(
    sources={"stripes": OwnSource(StripesConfig, stripes)},
    strategies={"every_other": OwnStrategy(EveryOtherConfig, every_other)},
    regularizers={"small_scores": OwnRegularizer(SmallScoresConfig, small_scores)},
)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package as pip would leave it: a module, and metadata with its entry point."""
    site = tmp_path / "site"
    info = site / "tiny_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tiny_plugin.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headstart.plugins]\ntiny = tiny_plugin:PLUGIN\n")
    monkeypatch.syspath_prepend(str(site))
    plugins.cache_clear()
    yield site
    plugins.cache_clear()
    sys.modules.pop("tiny_plugin", None)


def test_a_strategy_of_a_plugin(installed: Path, run_tiny: RunTiny) -> None:
    _, record = run_tiny("strategy=every_other", "strategy.layer_decay=0.5")
    assert record.config["strategy"]["first"] == 0
    assert record.plan[0]["rates"] == {"stem": 0.5**5, "block.1": 0.5**3, "block.3": 0.5, "head": 1.0}
    _, other = run_tiny("strategy=every_other", "strategy.first=1")
    assert list(other.plan[0]["rates"]) == ["block.0", "block.2", "head"]


def test_a_regularizer_of_a_plugin(installed: Path, run_tiny: RunTiny) -> None:
    folder, record = run_tiny("regularizer=[bss,small_scores]", "regularizer.small_scores.strength=2")
    assert record.config["regularizer"]["small_scores"] == {"strength": 2.0}
    assert read_rows(folder / "metrics.csv")[0]["train/small_scores"] > 0


def test_a_source_of_a_plugin(installed: Path, run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("data=stripes", "data.image_size=32", "data.train_size=null", "data.test_size=0.3")
    folder, record = run_tiny(*words, r"data.group_pattern='scene(\d+)/'", "data.count=120")
    assert record.data["class_names"] == ["lying", "standing"]
    assert sum(record.data["sizes"].values()) == 120
    assert record.config["data"]["count"] == 120
    table = read_examples(folder / "examples.parquet")
    scenes = {(name.partition("/")[0], place) for name, place in zip(table.ids, table.splits, strict=True)}
    assert len(scenes) == 40
    _, again = run_tiny(
        *words, f"data.split_file={folder / 'examples.parquet'}", "data.count=120", "data.test_size=null"
    )
    assert again.data["split_fingerprint"] == record.data["split_fingerprint"]
    assert again.data["fingerprint"] == record.data["fingerprint"]
    assert run_tiny(*words)[1].data["fingerprint"] != record.data["fingerprint"]
    assert main(["list", "data"]) == 0
    assert "Stripes that lie or stand." in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "data.count" in capsys.readouterr().out
    assert main(["reproduce", str(folder)]) == 0
    with pytest.raises(ConfigError, match=r"data\.count=3: must be at least 4"):
        tiny_config("data=stripes", "data.count=3")
    with pytest.raises(ConfigError, match="Did you mean 'count'"):
        tiny_config("data=stripes", "data.cuont=3")


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ("return 3", "data=stripes: gave a int and no headstart.data.source.Source"),
        (
            "return Source((), 'multiclass', {'all': Stripes(9)})",
            "its splits must be train and perhaps val and test",
        ),
        (
            "return Source(('a', 'b'), 'multiclass', {'train': Stripes(9), 'test': Stripes(9)})",
            "two examples have the id 'scene0/0'",
        ),
        (
            "s = Stripes(9); s.targets = s.targets[:4]; return Source(('a', 'b'), 'multiclass', {'train': s})",
            "9 ids and 4",
        ),
    ],
)
def test_a_source_that_is_none(installed: Path, instead: str, said: str) -> None:
    module = installed / "tiny_plugin.py"
    start, _, rest = module.read_text().partition("def stripes(config):\n")
    module.write_text(f"{start}def stripes(config):\n    {instead}\n    {rest.lstrip()}")
    with pytest.raises(DataError, match=said):
        prepare(tiny_config("data=stripes"))


def test_help_lists_and_mistakes_know_of_it(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "strategies"]) == 0
    assert "Every other layer group trains." in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "strategy.first" in shown
    assert "regularizer.small_scores.strength" in shown
    with pytest.raises(ConfigError, match="Did you mean 'first'"):
        tiny_config("strategy=every_other", "strategy.frist=1")
    with pytest.raises(ConfigError, match="Did you mean 'every_other'"):
        tiny_config("strategy=every_othr")


def test_without_the_package_there_is_no_such_strategy() -> None:
    with pytest.raises(ConfigError, match="there is no such strategy"):
        tiny_config("strategy=every_other")


@pytest.mark.parametrize(
    ("text", "said"), [("1 / 0", "does not load .division by zero"), ("PLUGIN = 3", "is no headstart")]
)
def test_a_broken_plugin_is_named(installed: Path, text: str, said: str) -> None:
    (installed / "tiny_plugin.py").write_text(text)
    with pytest.raises(ConfigError, match=f"plugin tiny .tiny_plugin:PLUGIN.: {said}"):
        prepare(tiny_config())


def test_a_name_of_headstarts_own_is_refused(installed: Path) -> None:
    module = installed / "tiny_plugin.py"
    module.write_text(module.read_text().replace('strategies={"every_other"', 'strategies={"full"'))
    with pytest.raises(ConfigError, match="a plugin has a strategy called full, which is one of Headstart's own"):
        tiny_config()


def test_two_plugins_with_one_name_are_refused(installed: Path) -> None:
    info = installed / "other_plugin-1.0.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        text = (installed / "tiny_plugin-1.0.dist-info" / name).read_text()
        (info / name).write_text(
            text.replace("tiny-plugin", "other-plugin").replace("tiny_plugin-", "other_plugin-")
        )
    with pytest.raises(ConfigError, match=r"two plugins have a (strategy|regularizer|source of data) called"):
        tiny_config()
