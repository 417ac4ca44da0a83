"""Strategies and regularisers of an installed package, found by its entry point and by nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RunTiny, tiny_config

from headstart.cli import main
from headstart.errors import ConfigError
from headstart.plugins import plugins
from headstart.preparation import prepare
from headstart.records.tables import read_rows

MODULE = '''
from dataclasses import dataclass
from headstart.config.schema.option import option
from headstart.config.schema.regularizer import RegularizerConfig
from headstart.config.schema.strategy import StrategyConfig
from headstart.plugins import OwnRegularizer, OwnStrategy, Plugin
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

PLUGIN = Plugin(
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
    with pytest.raises(ConfigError, match=r"two plugins have a (strategy|regularizer) called"):
        tiny_config()
