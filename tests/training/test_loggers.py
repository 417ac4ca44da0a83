"""Loggers: what they are given arrives, and their failures never reach the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunTiny

from headstart.config.wandb_access import wandb_key_configured, wandb_mode
from headstart.records.tables import read_rows


def test_wandb_offline_holds_config_group_and_summary(run_tiny: RunTiny) -> None:
    from tests.conftest import tiny_config

    from headstart.experiment import run

    folder, record = run(
        tiny_config("logger=wandb", "logger.tags=[one,two]"), command=["test"], launched_by="my-sweep"
    )
    assert record.logger["wandb_mode"] == "offline"
    assert record.logger["wandb_id"]
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    wandb = str(Path(sys.executable).parent / "wandb")
    words = [wandb, "leet", "inspect", str(file.parent), "--summary"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for expected in ("test_resnet", "test/accuracy_micro", record.arm):
        assert expected in shown


@pytest.mark.parametrize("when", ["init", "log", "finish"])
def test_a_run_goes_on_when_wandb_fails(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    import wandb

    from headstart.training.wandb_logger import WandbLogger

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("planted")

    if when == "init":
        monkeypatch.setattr(wandb, "init", broken)
    else:
        monkeypatch.setattr(WandbLogger, {"log": "epoch", "finish": "finish"}[when], broken)
    folder, record = run_tiny("logger=wandb")
    assert record.status == "completed"
    assert read_rows(folder / "metrics.csv")
    assert capsys.readouterr().err.count("W&B is off for this run (planted); the run goes on.") == 1
    if when != "init":
        assert record.logger["failed"] == "planted"


def test_no_network_means_offline_and_no_question(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    record = run_tiny("logger=wandb")[1]
    assert record.status == "completed"
    assert record.logger.get("wandb_mode") == "offline"


def test_the_mode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "1" * 40 + "\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_key_configured()
    assert wandb_mode("auto") == "online"
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("online") == "disabled"


def test_steps_of_the_csv_logger(run_tiny: RunTiny) -> None:
    folder, _ = run_tiny("logger=csv", "logger.every_n_steps=2")
    rows = read_rows(folder / "steps.csv")
    assert [row["step"] for row in rows] == [2, 4]
    assert all(row["train/step_loss"] > 0 for row in rows)
    assert not (run_tiny("logger=none")[0] / "steps.csv").exists()


def test_tensorboard(run_tiny: RunTiny) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, record = run_tiny("logger=tensorboard")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert events.Scalars("val/accuracy_micro")[0].value == pytest.approx(record.metrics["val/accuracy_micro"])


def test_loggers_do_not_change_the_result(run_tiny: RunTiny) -> None:
    digests = {run_tiny(f"logger={name}")[1].predictions_sha256 for name in ("none", "csv", "tensorboard", "wandb")}
    assert len(digests) == 1
