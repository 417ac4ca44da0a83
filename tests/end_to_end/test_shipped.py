"""What ships works: every experiment in a shrunken form, and a wheel in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import make_photos
from tests.test_experiment import write_two_colours

from headstart.cli.options import group_choices
from headstart.config.paths import package_conf
from headstart.config.schema.regularizer import OPTIONS as REGULARIZERS
from headstart.config.schema.strategy import OPTIONS as STRATEGIES
from headstart.errors import WeightsError
from headstart.experiment import run
from headstart.preparation import Rehearsal, prepare
from headstart.records.store import find_runs
from headstart.records.tables import read_rows
from headstart.sweep.expand import expand
from headstart.sweep.launch import launch

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("trainer.max_epochs=1", "trainer.progress=none", "logger=none", "trainer.threads=1")


def test_every_experiment_is_tried_here_and_says_how_it_is_run() -> None:
    assert group_choices("experiment") == [
        "bit_hyperrule",
        "kornblith_linear",
        "layer_transferability",
        "multilabel",
        "quickstart",
        "resnet50_article",
        "source_then_target",
        "strategies",
        "vtab1k",
    ]
    for path in (package_conf() / "experiment").glob("*.yaml"):
        assert (
            f"#   headstart train {'-m ' if 'sweep:' in path.read_text() else ''}experiment={path.stem}"
            in path.read_text()
        )


def test_quickstart() -> None:
    jobs = expand(["experiment=quickstart", *SMALL, "data.image_size=32", "data.train_size=40", "seed=0,1"])
    launched = launch(jobs, command=["test"])
    folder, outcomes = launched.folder, [launched.states[job.id] for job in launched.sweep.jobs]
    assert [outcome.status for outcome in outcomes] == ["completed"] * 6
    runs = [record for _, record in find_runs([folder])[0]]
    assert len({record.arm for record in runs}) == 3
    assert {r.weights["origin"] for r in runs if r.config["weights"]["source"] == "pretrained"} == {"package"}
    probe = next(r for r in runs if r.config["strategy"]["name"] == "linear_probe")
    assert probe.parameters["trainable"] == 1280 * 10 + 10
    assert probe.weights["matched"] == 294


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet50",
        pytest.param("vgg16", marks=pytest.mark.slow),
        pytest.param("inception_v3", marks=pytest.mark.slow),
        pytest.param("alexnet", marks=pytest.mark.slow),
    ],
)
def test_resnet50_article(tmp_path: Path, backbone: str) -> None:
    """The recipe itself, on few images; its weights cannot be had without a network, and it says so."""
    photos = make_photos(tmp_path / "photos", per_class=5)
    asked = ["experiment=resnet50_article", f"data.path={photos}", f"backbone={backbone}", *SMALL]
    jobs = expand(asked)
    config = jobs.jobs[0].config
    assert (config.head.name, config.head.hidden) == ("mlp", [1024])  # type: ignore[attr-defined]
    assert (config.optimizer.name, config.data.batch_size, config.data.image_size) == ("adam", 32, 224)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        run(config)
    folder, record = run(expand([*asked, "weights=scratch", "data.image_size=96"]).jobs[0].config)
    features = {"resnet50": 2048, "vgg16": 4096, "inception_v3": 2048, "alexnet": 4096}[backbone]
    assert record.parameters["trainable"] == features * 1024 + 1024 + 1024 * 3 + 3
    assert not set(record.data["sizes"]) ^ {"train", "val", "test"}
    assert (folder / "predictions.parquet").is_file()


def test_bit_hyperrule(tmp_path: Path) -> None:
    """The recipe itself, on few small images: 128 pixels, 500 steps, no mixup; shortened here after the check."""
    photos = make_photos(tmp_path / "photos", per_class=5)
    (job,) = expand(
        ["experiment=bit_hyperrule", f"data.path={photos}", "weights=scratch", "trainer.progress=none"]
    ).jobs
    config = job.config
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.momentum) == (0.003, 0.0, 0.9)  # type: ignore[attr-defined]
    prepared = prepare(config)
    assert prepared.budget.total_steps == 500
    assert prepared.facts.image_size == (128, 128)
    assert prepared.config.data.mixup_alpha == 0
    assert all(not bool(p.any()) for p in prepared.built.model.head.parameters())
    small = ["backbone.name=test_resnet", "trainer.max_steps=10", "logger=none", "trainer.threads=1"]
    _, record = run(expand([*job.overrides, *small]).jobs[0].config)
    assert record.steps == 10
    assert record.config["data"]["image_size"] == [128, 128]


def test_kornblith_linear() -> None:
    """The protocol itself, with a small backbone on digits: 45 penalties, one chosen, then all images."""
    words = ["experiment=kornblith_linear", "backbone.name=test_resnet", "weights=scratch", "data=digits"]
    config = expand([*words, *SMALL[1:]]).jobs[0].config
    assert (config.data.image_size, config.data.crop_pct, config.data.augment) == (224, 1.0, "none")
    small = ["data.image_size=32", "data.train_size=80", "data.val_size=40", "data.test_size=40"]
    folder, record = run(expand([*words, *SMALL[1:], *small]).jobs[0].config)
    rows = read_rows(folder / "metrics.csv")
    assert [rows[0]["penalty"], rows[44]["penalty"]] == pytest.approx([1e5, 1e-6])
    assert len(rows) == 46
    assert record.features["solver"]["refitted"]
    assert "fit/accuracy_micro" in record.metrics


@pytest.mark.slow
def test_source_then_target() -> None:
    words = ["experiment=source_then_target", *SMALL, "backbone.name=test_resnet", "seed=0"]
    launched = launch(expand(words), command=["test"])
    folder, outcomes = launched.folder, [launched.states[job.id] for job in launched.sweep.jobs]
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3
    runs = {record.id: record for _, record in find_runs([folder])[0]}
    source, target, scratch = (runs[str(outcome.run)] for outcome in outcomes)
    assert target.weights["name"] == source.id
    assert scratch.weights["source"] == "scratch"
    assert target.data["fingerprint"] == scratch.data["fingerprint"] != source.data["fingerprint"]


@pytest.mark.slow
def test_layer_transferability() -> None:
    jobs = expand(["experiment=layer_transferability", *SMALL])
    counts = {
        name: sum(job.name == name for job in jobs.jobs) for name in dict.fromkeys(job.name for job in jobs.jobs)
    }
    assert counts == {"base_a": 3, "base_b": 3, "BnB": 15, "AnB": 15, "BnB+": 15, "AnB+": 15, "random frozen": 15}
    assert jobs.curve == ("weights.first_k", "strategy.k")
    frozen = {job.name: job.config.strategy.name for job in jobs.jobs}
    assert frozen["AnB"] == frozen["BnB"] == frozen["random frozen"] == "freeze_first_k"
    assert frozen["AnB+"] == frozen["BnB+"] == "full"
    names = {job.name: jobs.jobs[job.needs].name for job in jobs.jobs if job.needs is not None}
    assert names == {"BnB": "base_b", "AnB": "base_a", "BnB+": "base_b", "AnB+": "base_a"}


@pytest.mark.slow
def test_strategies_are_all_in_the_table() -> None:
    """Every strategy and regulariser that fits a convolutional network, and each can start."""
    jobs = expand(
        ["experiment=strategies", "data=digits", "data.train_size=60", "data.test_size=60", *SMALL[1:], "seed=0"]
    )
    strategies = {job.config.strategy.name for job in jobs.jobs}
    assert strategies == set(STRATEGIES) - {"adapter", "visual_prompts"}
    assert {name for job in jobs.jobs for name in job.config.regularizer} == set(REGULARIZERS)
    rehearsal = Rehearsal()
    for job in jobs.jobs:
        prepare(job.config, rehearsal=rehearsal)


def test_multilabel(tmp_path: Path) -> None:
    write_two_colours(tmp_path / "set", rows=60)
    (job,) = expand(["experiment=multilabel", f"data.path={tmp_path / 'set'}", *SMALL, "data.image_size=32"]).jobs
    _, record = run(job.config)
    assert record.config["loss"]["name"] == "binary_cross_entropy"
    assert "test/map_macro" in record.metrics


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sources without a network and unpacked by pip."""
    built, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    quiet = {"check": True, "capture_output": True}
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(ROOT)], **quiet
    )  # type: ignore[call-overload]
    (file,) = built.glob("*.whl")
    words = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(file)]
    subprocess.run(words, **quiet)  # type: ignore[call-overload]
    return site


def test_an_installed_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(wheel), "HEADSTART_OUTPUTS": "outputs"}

    def headstart(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "headstart", *words],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import headstart.config.paths as p; print(p.package_conf())"],
        cwd=empty, env=environment, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert where == str(wheel / "headstart" / "conf")
    assert "experiment=bit_hyperrule | kornblith_linear | layer_transferability | multilabel" in headstart(
        "train", "--help"
    )
    out = headstart("train", *SMALL, "data.image_size=32", "data.train_size=40", "strategy=linear_probe")
    assert (empty / out.strip().splitlines()[-1] / "run.json").is_file()
    assert "completed" in headstart("runs")


def test_the_real_photographs() -> None:
    """CIFAR-10 in a small dose: ImageNet weights are worth something on photographs."""
    path = next(
        (p / "shared" / "data" / "cifar10" for p in ROOT.parents if (p / "shared/data/cifar10").is_dir()), None
    )
    if path is None:
        pytest.skip("the photographs are not here")
    values = {}
    for weights in ("pretrained", "scratch"):
        words = [
            "strategy=linear_probe", "data=hf", f"data.path={path}", "data.image_size=64", "data.train_size=300",
            "data.val_size=100", "data.test_size=300", "trainer.max_epochs=5", "optimizer.lr=0.003", *SMALL[1:],
            f"weights={weights}",
        ]  # fmt: skip
        values[weights] = run(expand(words).jobs[0].config)[1].metrics["test/accuracy_micro"]
    assert values["pretrained"] > 0.45
    assert values["scratch"] < 0.35
