"""What every test has: no network, folders of its own, and the smallest run there is."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# two test processes with two threads each take several times as long on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
for name in ("WANDB_API_KEY", "WANDB_MODE", "HEADSTART_OUTPUTS", "HEADSTART_CACHE"):
    os.environ.pop(name, None)

import pytest
import torch

import headstart.experiment  # noqa: F401 - before the freeze below
from headstart.config.compose import configs
from headstart.config.schema.root import Config
from headstart.records.schema import RunRecord
from headstart.sweep.composer import Composer

TINY = (
    "backbone.name=test_resnet",
    "weights=scratch",
    "data.image_size=32",
    "data.train_size=100",
    "data.test_size=100",
    "trainer.max_epochs=1",
    "trainer.progress=none",
    "trainer.threads=1",
    "logger=none",
)
"""A run of a second: timm's smallest ResNet on 100 digits."""

RunTiny = Callable[..., tuple[Path, RunRecord]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the full counts too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs --slow"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there now stays: a run collects garbage at its end, and should not look through all of PyTorch."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test in an empty folder, with outputs, caches and home settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run_tiny() -> RunTiny:
    """Run the tiny experiment with further overrides; returns its folder and record."""

    def run(*overrides: str) -> tuple[Path, RunRecord]:
        from headstart.experiment import run as run_experiment

        return run_experiment(tiny_config(*overrides), command=["test"])

    return run


def tiny_config(*overrides: str) -> Config:
    """The tiny experiment's config; an override replaces the tiny one of the same key."""
    keys = {text.partition("=")[0] for text in overrides}
    texts = [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]
    with configs():
        return _COMPOSER.config(dict(text.split("=", 1) for text in texts))


_COMPOSER = Composer()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder per class with small JPEGs: red, green and blue ones, 12 each."""
    return make_photos(tmp_path / "photos")


def make_photos(root: Path, *, per_class: int = 12, size: tuple[int, int] = (40, 30)) -> Path:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            pixels = random.integers(0, 80, (size[1], size[0], 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(folder / f"{i:02d}.jpg")
    return root
