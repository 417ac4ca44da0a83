"""What protocols ask of a run: no test where it is a trial, training on validation where all has been chosen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, make_photos, tiny_config

from headstart.errors import ConfigError
from headstart.preparation import prepare
from headstart.records.tables import read_rows


def test_a_trial_never_sees_the_test_split(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tested, whole = run_tiny("trainer.max_epochs=2")
    monkeypatch.setattr("headstart.data.ImageDataModule.test_dataloader", lambda self: pytest.fail("it was read"))
    folder, record = run_tiny("trainer.max_epochs=2", "trainer.test=false")
    assert record.status == "completed"
    assert set(record.metrics) == {key for key in whole.metrics if key.startswith("val/")}
    assert all(record.metrics[key] == whole.metrics[key] for key in record.metrics)
    assert record.predictions_sha256 is None
    assert not (folder / "predictions.parquet").exists()
    weights = [load_file(run / "checkpoints" / "last.safetensors") for run in (tested, folder)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert record.job_key != whole.job_key


def test_refitting_trains_on_validation_and_tests_the_last_weights(run_tiny: RunTiny) -> None:
    before = prepare(tiny_config()).data.splits
    _, plain = run_tiny("trainer.max_epochs=2", "trainer.checkpoint=last")
    folder, record = run_tiny("trainer.max_epochs=2", "data.refit_on_val=true")
    data = prepare(tiny_config("data.refit_on_val=true")).data
    assert set(data.splits["train"].ids) == {*before["train"].ids, *before["val"].ids}
    assert data.splits["test"].ids == before["test"].ids
    assert record.data["sizes"]["train"] == len(before["train"].ids) + len(before["val"].ids)
    assert record.predictions_sha256 != plain.predictions_sha256
    assert record.config["trainer"]["checkpoint"] == "last"
    assert record.best == {}
    assert not (folder / "checkpoints" / "best.safetensors").exists()
    assert not [key for key in (*record.metrics, *read_rows(folder / "metrics.csv")[0]) if key.startswith("val/")]
    assert record.metrics["fit/accuracy_micro"] == read_rows(folder / "metrics.csv")[-1]["fit/accuracy_micro"]


def test_refitting_joins_a_validation_split_of_its_own(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", per_class=6)
    whole = tmp_path / "whole"
    for name in ("train", "val", "test"):
        shutil.copytree(photos, whole / name)
    words = ("data=image_folder", f"data.path={whole}", "data.train_size=null", "data.test_size=null")
    data = prepare(tiny_config(*words, "data.refit_on_val=true")).data
    train = data.splits["train"]
    assert len(train.ids) == len(set(train.ids)) == 2 * len(data.splits["val"].ids)
    last = int(train.indices[-1])
    assert "val" in train.examples.where(last)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[0] == min(32, len(train.ids))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("trainer.early_stopping_patience=2", "leaves no validation to stop by"),
        ("trainer.test=false", "would measure nothing"),
    ],
)
def test_what_refitting_cannot_go_with(more: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny_config("data.refit_on_val=true", more)


def test_the_whole_as_a_share() -> None:
    whole, named = (
        prepare(tiny_config(f"data.train_size={size}")).data.splits["train"].ids for size in ("null", "1.0")
    )
    assert whole == named
