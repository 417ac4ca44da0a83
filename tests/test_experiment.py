"""One run: the record, the same bits again, an effect of every option, and failures that are written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import TINY, RunTiny, make_photos

from headstart.config.identity import config_hash
from headstart.config.plain import read_config
from headstart.errors import ConfigError, HeadstartError, RecordError, RunFailed
from headstart.experiment import resume
from headstart.records.store import find_runs, read_record
from headstart.records.tables import read_rows
from headstart.training.module import TransferModule


def test_what_a_run_leaves(run_tiny: RunTiny) -> None:
    folder, record = run_tiny("trainer.max_epochs=2", "strategy=linear_probe")
    assert sorted(p.name for p in folder.iterdir() if p.name != "code.patch") == [
        "checkpoints", "config.yaml", "examples.parquet", "metrics.csv", "pictures.parquet", "predictions.parquet", "run.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "best.safetensors", "frozen.safetensors", "last.safetensors",
    ]  # fmt: skip
    assert record == read_record(folder)
    assert record.status == "completed"
    assert record.stopped_by == "budget"
    assert (record.epochs, record.steps) == (2, 8)
    assert record.parameters == {"total": 373658, "trainable": 970, "frozen": 372688}
    names = ("accuracy_micro", "accuracy_macro", "accuracy_top5", "f1_macro", "auroc", "ece", "log_loss")
    assert set(record.metrics) == {f"{split}/{name}" for split in ("val", "test") for name in names}
    assert record.data["sizes"] == {"train": 100, "val": 170, "test": 100}
    assert set(record.seconds) == {"setup", "decode", "features", "fit", "test", "total"}
    assert record.peak_memory["cpu"]
    assert torch.__version__.startswith(record.environment["packages"]["torch"])
    assert record.determinism["same_bits_expected"] is True
    plain = yaml.safe_load((folder / "config.yaml").read_text())
    assert "auto" not in json.dumps({k: v for k, v in plain.items() if k not in ("logger", "head")}).replace(
        '"progress": "auto"', ""
    )
    assert config_hash(read_config(folder / "config.yaml")) == record.config_hash


def test_predictions_and_metrics_agree(run_tiny: RunTiny) -> None:
    folder, record = run_tiny()
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    assert len(set(table["id"])) == 100
    assert all(name.startswith("digits/") for name in table["id"])
    right = np.mean([t == p for t, p in zip(table["target"], table["predicted"], strict=True)])
    assert record.metrics["test/accuracy_micro"] == pytest.approx(right)
    assert sum(map(sum, record.confusion["counts"])) == 100
    rows = read_rows(folder / "metrics.csv")
    assert rows[-1]["val/accuracy_micro"] == record.metrics["val/accuracy_micro"]


def test_the_same_seed_gives_the_same_bits(run_tiny: RunTiny) -> None:
    options = ("head.dropout=0.3", "data.augment=light", "trainer.max_epochs=2")
    first, again = run_tiny(*options)[1], run_tiny(*options, "data.num_workers=2")[1]
    assert first.predictions_sha256 == again.predictions_sha256
    assert first.config_hash == again.config_hash
    assert first.job_key == again.job_key
    other = run_tiny(*options, "seed=1")[1]
    assert other.predictions_sha256 != first.predictions_sha256
    assert other.arm == first.arm
    assert other.data["split_fingerprint"] == first.data["split_fingerprint"]


EFFECTS = (
    "optimizer.lr=0.003",
    "optimizer.weight_decay=0.5",
    "optimizer.betas=[0.5,0.9]",
    "optimizer.eps=0.1",
    "optimizer=adam",
    "optimizer=sgd",
    "optimizer=sgd optimizer.momentum=0.5",
    "optimizer=sgd optimizer.nesterov=false",
    "schedule=constant",
    "schedule=one_cycle",
    "schedule=one_cycle schedule.pct_start=0.6",
    "schedule=one_cycle schedule.div_factor=3",
    "schedule=one_cycle schedule.final_div_factor=2",
    "schedule=step schedule.milestones=[2] schedule.unit=step",
    "schedule=step schedule.milestones=[2] schedule.unit=step schedule.gamma=0.5",
    "schedule=step schedule.milestones=[1]",
    "schedule.min_factor=0.5",
    "schedule.warmup_steps=2",
    "schedule.warmup_epochs=0.3",
    "strategy=linear_probe",
    "strategy=last_k",
    "strategy=last_k strategy.k=2",
    "strategy=first_k",
    "strategy=freeze_first_k",
    "strategy=freeze_first_k strategy.k=2",
    "strategy=groups strategy.groups=[block.1]",
    "strategy=groups strategy.groups=[block.1,stem]",
    "strategy=gradual strategy.milestones=[1] strategy.groups_per_step=3 trainer.checkpoint=last",
    "strategy=gradual strategy.milestones=[3] strategy.unit=step trainer.checkpoint=last",
    "strategy=gradual strategy.milestones=[1] strategy.groups_per_step=2 trainer.checkpoint=last",
    "strategy=lp_ft trainer.checkpoint=last",
    "strategy=lp_ft strategy.probe_share=0.25 trainer.checkpoint=last",
    "strategy=lp_ft strategy.finetune_lr_mult=0.3 trainer.checkpoint=last",
    "strategy=lp_ft schedule.restart=run trainer.checkpoint=last",
    "strategy=phases strategy.phases=[{start:0,groups:[head]},{start:1,groups:[stem,head]}] trainer.checkpoint=last",
    "strategy=phases strategy.phases=[{start:0,groups:[head]},{start:5,groups:[stem,head]}] strategy.unit=step trainer.checkpoint=last",
    "strategy=norm_only",
    "strategy=bitfit",
    "strategy=auto_rgn",
    "strategy=ssf",
    "strategy=ssf strategy.init_std=0.2",
    "strategy=lora",
    "strategy.backbone_lr_mult=0.1",
    "strategy.layer_decay=0.5",
    "strategy.layer_decay=0.5 strategy.layer_decay_min=0.2",
    "strategy.discriminative=2.6",
    "strategy.lr_span=100",
    "strategy.normalization=eval",
    "strategy.normalization=batch_stats",
    "strategy.normalization=stochnorm",
    "strategy.normalization=stochnorm strategy.stochnorm_p=0.1",
    "strategy=gradual strategy.milestones=[1] strategy.normalization=[train,eval] trainer.checkpoint=last",
    "regularizer=bss",
    "schedule=bit_hyperrule",
    "head.init=zero",
    "data.mixup_alpha=0.4",
    "data.cutmix_alpha=0.4",
    "data.cutmix_alpha=0.4 data.mixup_alpha=0.4",
    "data.augment=bit",
    "data.augment=randaugment",
    "data.augment=randaugment data.augment_magnitude=20",
    "data.augment=trivial",
    "data.augment=augmix",
    "data.augment=augmix data.augment_magnitude=9",
    "data.augment=light data.keep_side=5",
    "data.sampling=balanced",
    "head=mlp",
    "head=mlp head.hidden=[8]",
    "head=mlp head.activation=tanh",
    "head.dropout=0.4",
    "head.pool=catavgmax",
    "loss.label_smoothing=0.2",
    "loss.class_weights=[1,1,1,1,9,1,1,1,1,1]",
    "trainer.gradient_clip_val=0.01",
    "trainer.max_steps=3 trainer.max_epochs=null",
    "trainer.max_epochs=3",
    "trainer.precision=bf16-mixed",
    "data.batch_size=16",
    "data.image_size=40",
    "data.image_size=[32,48]",
    "data.channels=1",
    "data.mean=[0.1]",
    "data.std=[0.9]",
    "data.interpolation=nearest",
    "data.crop_pct=0.6",
    "data.augment=light",
    "data.train_size=120",
    "data.val_size=0.2",
    "data.test_size=120",
    "data.train_size=null data.shots=5",
    "data.split_seed=1",
    "seed=1",
    "backbone.name=test_efficientnet",
)


@pytest.fixture(scope="module")
def seen() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("option", EFFECTS)
def test_every_option_changes_the_predictions(run_tiny: RunTiny, seen: dict[str, str], option: str) -> None:
    """All differ from one another too, so that no option is only its group's default again."""
    if "default" not in seen:
        seen["default"] = str(run_tiny("trainer.max_epochs=2")[1].predictions_sha256)
    overrides = option.split(" ")  # none has a space inside
    if not any(text.startswith("trainer.max") for text in overrides):
        overrides.append("trainer.max_epochs=2")
    digest = str(run_tiny(*overrides)[1].predictions_sha256)
    assert digest not in seen.values(), next(k for k, v in seen.items() if v == digest)
    seen[option] = digest


def test_the_tested_checkpoint_is_the_one_that_validation_chose(run_tiny: RunTiny) -> None:
    options = ("trainer.max_epochs=8", "optimizer.lr=0.02", "schedule=constant", "data.train_size=60")
    folder, best = run_tiny(*options, "trainer.monitor=val/log_loss")
    rows = read_rows(folder / "metrics.csv")
    lowest = min(rows, key=lambda row: row["val/log_loss"])
    assert lowest["epoch"] < 8, "the case must have its best before its end"
    assert best.best == {
        "epoch": lowest["epoch"], "step": lowest["step"], "monitor": "val/log_loss", "value": lowest["val/log_loss"],
    }  # fmt: skip
    assert best.metrics["val/log_loss"] == lowest["val/log_loss"]
    _, last = run_tiny(*options, "trainer.monitor=val/log_loss", "trainer.checkpoint=last")
    assert last.best == best.best
    assert last.predictions_sha256 != best.predictions_sha256
    kept = {name: load_file(folder / "checkpoints" / f"{name}.safetensors") for name in ("best", "last")}
    assert any(not torch.equal(kept["best"][key], kept["last"][key]) for key in kept["best"])
    _, early = run_tiny(*options, f"trainer.max_epochs={lowest['epoch']}", "trainer.checkpoint=last")
    assert early.predictions_sha256 == best.predictions_sha256


def test_early_stopping_and_wall_clock(run_tiny: RunTiny) -> None:
    early = run_tiny("trainer.max_epochs=50", "trainer.early_stopping_patience=1", "optimizer.lr=1e-9")[1]
    assert early.stopped_by == "early_stopping"
    assert early.epochs == 2
    timed = run_tiny("trainer.max_epochs=100000", "trainer.max_time=00:00:00:01", "data.train_size=1000")[1]
    assert timed.stopped_by == "max_time"
    assert timed.status == "completed"
    assert timed.seconds["fit"] < 10
    assert "test/accuracy_micro" in timed.metrics


def test_a_budget_in_steps_ends_inside_an_epoch(run_tiny: RunTiny) -> None:
    folder, record = run_tiny("trainer.max_steps=6", "trainer.max_epochs=null")
    assert (record.steps, record.epochs, record.stopped_by) == (6, 2, "budget")
    assert [row["step"] for row in read_rows(folder / "metrics.csv")] == [4, 6]


def test_rates_are_logged_per_layer_group(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny("strategy=last_k", "trainer.max_epochs=2", "schedule=constant", "optimizer.lr=0.02")
    row = read_rows(folder / "metrics.csv")[0]
    assert {key: value for key, value in row.items() if key.startswith("lr/")} == {
        "lr/block.3": 0.02,
        "lr/head": 0.02,
    }


def test_several_labels(run_tiny: RunTiny, tmp_path: Path) -> None:
    write_two_colours(tmp_path / "set")
    options = ("data=hf", f"data.path={tmp_path / 'set'}", "data.train_size=null", "data.test_size=0.2")
    folder, record = run_tiny(*options, "trainer.max_epochs=12", "optimizer.lr=0.01")
    assert record.data["task"] == "multilabel"
    assert record.best["monitor"] == "val/map_macro"
    names = ("map_macro", "f1_micro", "f1_macro", "log_loss")
    assert set(record.metrics) == {f"{s}/{m}" for s in ("val", "test") for m in names} | {"val/threshold"}
    assert record.metrics["test/map_macro"] > 0.9
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    assert all(len(row) == 3 for row in table["target"] + table["predicted"] + table["probability"])


def write_two_colours(path: Path, rows: int = 120) -> None:
    """Left half of one colour, right half of another; the labels are the colours."""
    import datasets
    from PIL import Image

    random = np.random.default_rng(0)
    images, labels = [], []
    for _ in range(rows):
        pair = random.integers(0, 3, 2)
        pixels = random.integers(0, 60, (16, 16, 3), dtype=np.uint8)
        pixels[:, :8, pair[0]] += 180
        pixels[:, 8:, pair[1]] += 180
        images.append(Image.fromarray(pixels))
        labels.append(sorted({int(p) for p in pair}))
    features = datasets.Features(
        {"image": datasets.Image(), "labels": datasets.List(datasets.ClassLabel(names=["red", "green", "blue"]))}
    )
    datasets.Dataset.from_dict({"image": images, "labels": labels}, features=features).save_to_disk(path)


# --- failures


def test_a_loss_that_is_not_finite_stops_the_run(run_tiny: RunTiny) -> None:
    with pytest.raises(RunFailed, match=r"the loss was not finite at step \d+, learning rate \S+; try a lower"):
        run_tiny("optimizer=sgd", "optimizer.lr=1e12", "trainer.max_epochs=3")
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"
    assert "not finite at step" in str(record.error)


def test_a_fault_of_ours_is_recorded_with_its_traceback(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(TransferModule, "training_step", broken)
    with pytest.raises(ZeroDivisionError):
        run_tiny()
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.status == "failed"
    assert "ZeroDivisionError: planted" in str(record.error)


@pytest.mark.parametrize(
    "override",
    [
        "backbone.name=test_resne",
        "data.batch_size=1",
        "trainer.precision=16-mixed",
        "trainer.max_time=00:00:00:00",
        "data.interpolation=lanczos data.channels=5",
        "data=null",
        "hydra.run.dir=x",
        "sweep.list=[{seed:1}]",
        "strategy=last_k strategy.k=99",
        "data=image_folder data.path=nowhere",
        "weights=file weights.path=nowhere.pth",
        "data.train_size=99999",
        "loss.class_weights=[1,2]",
        "trainer.monitor=val/map_macro",
        "schedule.warmup_steps=100",
        "trainer.accelerator=gpu",
        "backbone.name=inception_v3",
        "data.channels=2",
        "loss.name=binary_cross_entropy",
    ],
)
def test_a_mistake_leaves_nothing_behind(run_tiny: RunTiny, override: str) -> None:
    if "gpu" in override and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(HeadstartError) as caught:
        run_tiny(*override.split(" "))
    assert len(str(caught.value).splitlines()) <= 2
    assert not Path("outputs").exists()


def test_an_output_folder_that_cannot_be_written(run_tiny: RunTiny) -> None:
    Path("taken").write_text("")
    with pytest.raises(ConfigError, match=r"output_dir=taken/x: .*taken is a file"):
        run_tiny("output_dir=taken/x")


# --- resuming


PROGRAM = """
import os, sys
from headstart.training.history import History
stop, how = int(sys.argv[1]), sys.argv[2]
def end(self, trainer, *rest, original=History.on_train_batch_end):
    original(self, trainer, *rest)
    if trainer.global_step == stop:
        os.kill(os.getpid(), int(how))
History.on_train_batch_end = end
from headstart.cli import main
sys.exit(main(["train", *sys.argv[3:]]))
"""
LONG = (
    "backbone.name=test_vit", "trainer.max_epochs=4", "head.dropout=0.3", "data.augment=light", "logger=csv",
    "logger.every_n_steps=1", "schedule=one_cycle",
)  # fmt: skip


def stopped_at(step: int, how: int, *overrides: str, program: str = PROGRAM) -> Path:
    """Start the run in a process of its own, which ends itself by a signal after `step` steps."""
    keys = {text.partition("=")[0] for text in overrides}
    words = [*(text for text in TINY if text.partition("=")[0] not in keys), *overrides]
    before = set(Path("outputs/runs").glob("*")) if Path("outputs/runs").exists() else set()
    subprocess.run([sys.executable, "-c", program, str(step), str(how), *words], check=False, capture_output=True)
    return next(iter(set(Path("outputs/runs").glob("*")) - before))


@pytest.mark.parametrize(
    ("step", "how", "status"),
    [
        pytest.param(2, signal.SIGKILL, "running", marks=pytest.mark.slow),
        (6, signal.SIGTERM, "interrupted"),
        pytest.param(9, signal.SIGKILL, "running", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_as_the_unbroken_one(run_tiny: RunTiny, step: int, how: int, status: str) -> None:
    unbroken, expected = run_tiny(*LONG)
    folder = stopped_at(step, how, *LONG)
    assert read_record(folder).status == status
    record = resume(folder)
    assert record.status == "completed"
    assert record.error is None
    assert record.predictions_sha256 == expected.predictions_sha256
    kept = [load_file(f / "checkpoints" / "last.safetensors") for f in (unbroken, folder)]
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    for table in ("metrics.csv", "steps.csv"):
        rows = [
            [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(f / table)]
            for f in (unbroken, folder)
        ]
        assert rows[0] == rows[1]


AFTER = """
import os, sys
import pytorch_lightning as pl
def test(self, *rest, **more):
    os.kill(os.getpid(), int(sys.argv[2]))
pl.Trainer.test = test
from headstart.cli import main
sys.exit(main(["train", *sys.argv[3:]]))
"""


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(("trainer.checkpoint=last",), marks=pytest.mark.slow),
        pytest.param(("trainer.early_stopping_patience=1", "optimizer.lr=1e-9"), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_ended_before_its_test_is_resumed(run_tiny: RunTiny, more: tuple[str, ...]) -> None:
    words = (*LONG, *more)
    unbroken, expected = run_tiny(*words)
    folder = stopped_at(0, signal.SIGKILL, *words, program=AFTER)
    record = resume(folder)
    assert record.predictions_sha256 == expected.predictions_sha256
    assert (record.epochs, record.steps, record.stopped_by) == (
        expected.epochs,
        expected.steps,
        expected.stopped_by,
    )
    assert record.best == expected.best
    assert len(read_rows(folder / "metrics.csv")) == len(read_rows(unbroken / "metrics.csv"))


def test_a_damaged_checkpoint_is_named() -> None:
    folder = stopped_at(6, signal.SIGKILL, *LONG)
    path = folder / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RecordError, match=r"last\.ckpt: is damaged; remove it"):
        resume(folder)


@pytest.mark.slow
def test_a_run_can_be_resumed_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photos(tmp_path / "photos")
    options = ("data=image_folder", "data.path=photos", "data.train_size=null", "data.test_size=null")
    folder = stopped_at(1, signal.SIGKILL, *options).resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(folder).status == "completed"


def test_checkpoints_load_as_plain_tensors() -> None:
    folder = stopped_at(6, signal.SIGKILL, *LONG)
    torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_what_cannot_be_resumed(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder, _ = run_tiny()
    with pytest.raises(RecordError, match="has completed; there is nothing to resume"):
        resume(folder)
    with pytest.raises(RecordError, match="is not a run folder"):
        resume(tmp_path)
    photos = make_photos(tmp_path / "photos")
    broken = stopped_at(
        1, signal.SIGKILL, "data=image_folder", f"data.path={photos}", "data.train_size=null", "data.test_size=null"
    )
    (photos / "red" / "00.jpg").write_bytes((photos / "red" / "01.jpg").read_bytes())
    with pytest.raises(HeadstartError, match="the data has changed since this run began"):
        resume(broken)


def test_a_run_that_is_still_going_is_left_alone(run_tiny: RunTiny) -> None:
    # a script's background jobs ignore Ctrl-C, and so would what these tests start in one
    program = (
        "import signal, sys\nfrom headstart.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "train", *TINY, "trainer.max_epochs=100000"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not list(Path("outputs").glob("runs/*/metrics.csv")) and time.monotonic() < end:
            time.sleep(0.1)
        folder = next(iter(Path("outputs/runs").iterdir()))
        with pytest.raises(RecordError, match=f"this run is still running .process {process.pid}."):
            resume(folder)
    finally:
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert read_record(folder).status == "interrupted"
