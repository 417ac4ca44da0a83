"""`headstart cache`: what is there, and clearing it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.conftest import RunTiny

from headstart.cli import main


def test_caches_are_shown_and_cleared(
    run_tiny: RunTiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cache"]) == 0
    assert "Nothing is cached." in capsys.readouterr().out
    run_tiny()
    run_tiny("data.image_size=40")
    (tmp_path / "cache" / "mine").mkdir()
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    assert "images: decoded images" in said
    assert said.count("used just now") == 2
    assert said.count("digits, Finished(") == 2
    assert main(["cache", "--clear", "images"]) == 2
    assert "nothing was cleared; add --yes" in capsys.readouterr().err
    old, new = sorted((tmp_path / "cache" / "images").iterdir())
    os.utime(old / "about.json", (time.time() - 3 * 86400,) * 2)
    assert main(["cache", "--clear", "all", "--unused", "2", "--yes"]) == 0
    assert not old.exists()
    assert new.exists()
    assert main(["cache", "--clear", "images", "--yes"]) == 0
    assert list((tmp_path / "cache" / "images").iterdir()) == []
    assert (tmp_path / "cache" / "mine").is_dir()
    assert main(["cache", "--clear", "images", "--yes"]) == 0
    assert "Nothing to clear." in capsys.readouterr().out


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--unused", "3"]) == 2
    assert main(["cache", "--clear", "all", "--unused", "-1"]) == 2
    assert "--unused -1: must be at least 0." in capsys.readouterr().err
