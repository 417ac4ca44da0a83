"""The benchmarks' command line: each parses, the smallest runs, and rows say whether a bar is reached."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))


def names() -> list[str]:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return list(importlib.import_module("bench").BENCHMARKS)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize("name", names())
def test_each_has_arguments_of_its_own(name: str) -> None:
    if importlib.util.find_spec(f"bench_{name}") is None:
        pytest.skip(f"bench_{name}.py is not here")
    module = importlib.import_module(f"bench_{name}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    parser.parse_args([])
    assert module.__doc__
    assert callable(module.run)


def test_the_list_and_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    bench = importlib.import_module("bench")
    assert bench.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in bench.BENCHMARKS)
    assert bench.main(["spede"]) == 2
    assert "there is no such benchmark" in capsys.readouterr().err


def test_rows_compare_round_by_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = importlib.import_module("bench_rows")
    faster = rows.compared("a", [1.0, 2.0, 4.0], [10.0, 10.0, 10.0], unit="s", bar=4.0, faster=True)
    assert (faster.ratio, faster.lowest, faster.highest, faster.reached) == (5.0, 2.5, 10.0, True)
    rate = rows.compared("b", [90.0, 99.0], [100.0, 100.0], unit="img/s", bar=0.98, faster=False)
    assert rate.ratio == pytest.approx(0.945)
    assert rate.reached is False
    limit = rows.alone("c", [0.5, 0.7], unit="s", bar=0.6)
    assert limit.reached is True
    assert rows.show([faster, rate, limit], device="cpu", path=tmp_path / "x.json") == 3
    assert "NOT REACHED" in capsys.readouterr().out
    assert rows.read(tmp_path / "x.json") == [faster, rate, limit]
    assert json.loads((tmp_path / "x.json").read_text())["rows"][0]["rounds"]["plain"] == [10.0] * 3


def test_a_score_beside_the_plain_loop(tmp_path: Path) -> None:
    """Small, in processes of their own; without steps of training."""
    bench = importlib.import_module("bench")
    small = ["--images=200", "--width=20", "--classes=3", "--rounds=1", "--plain-rounds=1", "--steps=0"]
    assert bench.main(["rank", *small, "--json", str(tmp_path / "rank.json")]) == 0
    found = json.loads((tmp_path / "rank.json").read_text())["rows"]
    assert [row["unit"] for row in found] == ["s", "GB", "s", "GB"]
    assert all(row["ours"] > 0 for row in found)
    assert float(found[2]["note"].split()[1]) < 1e-6  # values apart


@pytest.mark.slow
def test_all_that_has_a_bar_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As small as can be; ratios say nothing."""
    bench = importlib.import_module("bench")
    assert bench.main(["speed", "--quick", "--json", str(tmp_path / "all.json")]) in (0, 3)
    found = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert {"linear probe", "step of full", "headstart --"} <= {row["what"][:12] for row in found}


@pytest.mark.slow
def test_what_needs_a_gpu_can_be_tried_without(tmp_path: Path) -> None:
    bench = importlib.import_module("bench")
    small = ["--backbones", "test_resnet", "--size=32", "--batch=16", "--images=100", "--steps=3", "--rounds=1", "--small=test_resnet", "--small-size=32", "--small-images=60", "--small-epochs=1", "--runs=2"]  # fmt: skip
    assert bench.main(["gpu", "--device=cpu", *small, "--json", str(tmp_path / "gpu.json")]) in (0, 3)
    found = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert len(found) >= 5
