"""W&B: the real client against a local server that records what it is sent, and misbehaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import TINY
from tests.fake_wandb import FakeWandb, Run

from headstart.records.amend import add_evaluations
from headstart.records.schema import RunRecord
from headstart.records.store import find_runs

WORDS = (*(text for text in TINY if not text.startswith("logger")), "trainer.max_epochs=2", "logger.entity=fake")


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as found:
        yield found
    assert found.unknown == []


def headstart(server: FakeWandb, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as a person would run it."""
    own = {
        "WANDB_CONFIG_DIR": str(Path("wandb-config").absolute()),
        "WANDB_HTTP_TIMEOUT": "4",
        "HOME": str(Path.cwd()),
    }
    return subprocess.run(
        [sys.executable, "-m", "headstart", *words],
        env={**os.environ, **server.environment(), **own, **environment},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def train(server: FakeWandb, *words: str, **environment: str) -> tuple[Path, RunRecord, str]:
    """Run the tiny experiment; its folder, its record and what was said."""
    done = headstart(server, "train", *WORDS, *words, **environment)
    assert done.returncode == 0, done.stderr
    folder, record = max(find_runs([Path("outputs")])[0], key=lambda one: one[0].stat().st_mtime)
    return folder, record, done.stderr


def only_run(server: FakeWandb) -> Run:
    (run,) = server.runs.values()
    return run


def check_whole(server: FakeWandb, run: Run, folder: Path, record: RunRecord) -> None:
    """Everything that a run has at home is there too."""
    assert run.config["strategy"]["name"] == record.config["strategy"]["name"]
    assert run.config["optimizer"] == record.config["optimizer"]
    assert run.config["headstart"]["folder"] == str(folder)
    epochs = [row for row in run.history if "val/accuracy_micro" in row]
    assert [row["trainer/step"] for row in epochs] == [4, 8]
    best = next(row for row in epochs if row["trainer/step"] == record.best["step"])
    assert best["val/log_loss"] == pytest.approx(record.metrics["val/log_loss"])
    for key, value in record.metrics.items():
        assert run.summary[key] == pytest.approx(value)
    assert run.summary["best/val/accuracy_micro"] == max(row["val/accuracy_micro"] for row in epochs)
    assert run.summary["run_id"] == record.id
    kinds = {artifact.type: server.artifact_files(artifact) for artifact in server.logged(run)}
    assert set(kinds["run"]) == {"run.json", "config.yaml", "examples.parquet", "metrics.csv"}
    assert json.loads(kinds["run"]["run.json"])["metrics"] == record.metrics
    tables = [name for artifact in server.logged(run) for name in server.artifact_files(artifact)]
    assert any(name.endswith("mistakes.table.json") for name in tables)
    assert any("confusion_table" in name for name in tables)
    assert any(name.startswith("media/images/") for name in tables)


def test_online_offline_sync_compare_and_dashboard(server: FakeWandb) -> None:
    """A sweep online, a run offline that is sent twice, all read back and compared, a dashboard saved twice."""
    done = headstart(
        server, "train", "-m", *WORDS, "strategy=full,linear_probe", "sweep.name=mine", "logger.tags=[a,b]"
    )
    assert done.returncode == 0, done.stderr
    runs = find_runs([Path("outputs")])[0]
    assert len(server.runs) == 2
    for folder, record in runs:
        run = server.runs["fake", "headstart", record.logger["wandb_id"]]
        check_whole(server, run, folder, record)
        assert (run.group, run.tags, run.state) == ("mine", ["a", "b"], "finished")
        assert run.job_type == f"test_resnet scratch {record.config['strategy']['name']}"
        assert not any(artifact.type == "model" for artifact in server.logged(run))

    folder, record, _ = train(server, "seed=1", "logger.checkpoints=true", WANDB_MODE="offline")
    assert len(server.runs) == 2
    done = headstart(server, "sync")
    assert (done.returncode, done.stdout.strip()) == (0, "1 sent, 2 there already"), done.stderr
    run = server.runs["fake", "headstart", record.logger["wandb_id"]]
    check_whole(server, run, folder, record)
    (weights,) = [artifact for artifact in server.logged(run) if artifact.type == "model"]
    assert set(server.artifact_files(weights)) == {"best.safetensors", "last.safetensors"}
    before = len(run.history), len(server.logged(run))
    done = headstart(server, "sync")
    assert (done.returncode, done.stdout.strip()) == (0, "3 there already")
    assert (len(run.history), len(server.logged(run))) == before

    # evaluated since: the record is sent anew, and nothing else of the run
    found = {"stl10": {"metrics": {"accuracy_micro": 0.5}, "data": {"examples": 4}}}
    for evaluated, _ in runs:
        add_evaluations(evaluated, found, predicted={})
    done = headstart(server, "sync")
    assert (done.returncode, done.stdout.strip()) == (0, "2 sent, 1 there already"), done.stderr
    assert headstart(server, "sync").stdout.strip() == "3 there already"
    for evaluated, record in runs:
        assert evaluated.is_dir()
        check_whole(server, server.runs["fake", "headstart", record.logger["wandb_id"]], evaluated, record)

    done = headstart(server, "compare", "wandb:fake/headstart/mine", "--format", "json")
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    here = json.loads(headstart(server, "compare", "outputs/sweeps/mine", "--format", "json").stdout)
    assert [one["metric"] for one in there["abroad"]] == ["test@stl10/accuracy_micro"]
    assert {row["arm"]: (row["value"], row["gain"]) for row in there["rows"]} == {
        row["arm"]: (row["value"], row["gain"]) for row in here["rows"]
    }

    saved = [headstart(server, "dashboard", "fake/headstart", "--group", "mine") for _ in range(2)]
    assert [one.returncode for one in saved] == [0, 0], saved[0].stderr
    assert saved[0].stdout.splitlines()[1:] == saved[1].stdout.splitlines()[1:]
    assert saved[1].stdout.startswith("2 runs, 0 of them told")
    assert sorted(view["type"] for view in server.views.values()) == ["project-view", "runs"]
    specs = [json.dumps(view["spec"]) for view in server.views.values()]
    for part in (
        "Gain over training from scratch, by arm",
        "Learning curves, by arm",
        "Result against cost",
        "strategy.name",
    ):
        assert any(part in spec for spec in specs), part
    probe = next(run for run in server.runs.values() if run.config["strategy"]["name"] == "linear_probe")
    gain = next(row["gain"]["mean"] for row in here["rows"] if row["gain"])
    assert probe.summary["gain/test/accuracy_micro"] == pytest.approx(gain)
    assert probe.config["arm"] == "strategy=linear_probe"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["401", "500", "hang"])
def test_a_server_that_is_no_help_from_the_start(server: FakeWandb, fault: str) -> None:
    """The run completes, nothing is lost, and a later sync sends it."""
    server.faults["*"] = fault
    folder, record, said = train(server)
    assert record.status == "completed"
    assert record.logger["wandb_mode"] == "offline"
    assert "this run is logged offline" in said
    server.faults.clear()
    done = headstart(server, "sync")
    assert done.stdout.strip() == "1 sent", done.stderr
    check_whole(server, only_run(server), folder, record)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "hang", "401", "gone"])
def test_a_connection_lost_in_mid_run(server: FakeWandb, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "gone":
        server.stop_after = 12
    else:
        server.faults |= {"graphql:CreateArtifact": fault, "blob:*": fault, "graphql:ArtifactType": fault}
    folder, record, _ = train(server)
    assert record.status == "completed"
    assert (folder / "predictions.parquet").is_file()
    server.faults.clear()
    server.stop_after = None
    if fault == "gone":
        server.start()
    done = headstart(server, "sync")
    assert done.stdout.strip() == "1 sent", done.stderr + done.stdout
    check_whole(server, only_run(server), folder, record)
    assert headstart(server, "sync").stdout.strip() == "1 there already"


@pytest.mark.slow
def test_a_run_that_was_interrupted_and_resumed_is_one_whole_history(server: FakeWandb) -> None:
    code = (
        "import sys; from headstart.training.history import History; from headstart.cli import main\n"
        "add = History.add\n"
        "def stop(self, *a):\n    add(self, *a)\n    raise KeyboardInterrupt\n"
        "History.add = stop\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, **server.environment(), "WANDB_MODE": "offline"}
    words = [sys.executable, "-c", code, "train", *WORDS]
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 130
    ((folder, before),) = find_runs([Path("outputs")])[0]
    assert before.status == "interrupted"
    assert headstart(server, "resume", str(folder), WANDB_MODE="offline").returncode == 0
    ((_, record),) = find_runs([Path("outputs")])[0]
    assert record.logger["wandb_id"] == before.logger["wandb_id"]
    done = headstart(server, "sync")
    assert done.stdout.strip() == "1 sent", done.stderr
    check_whole(server, only_run(server), folder, record)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_head_that_begins_again_says_nothing_twice(server: FakeWandb, mode: str) -> None:
    code = (
        "import sys; from headstart.features.course import Course; from headstart.cli import main\n"
        "def stop(self, *a):\n    raise KeyboardInterrupt\n"
        "Course._keep_best = stop\n"  # what came before it has been sent
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, **server.environment(), "WANDB_MODE": mode}
    probe = ("strategy=linear_probe", "logger.every_n_steps=2")
    words = [sys.executable, "-c", code, "train", *WORDS, *probe]
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == 130
    ((folder, before),) = find_runs([Path("outputs")])[0]
    assert before.status == "interrupted"
    assert headstart(server, "resume", str(folder), WANDB_MODE=mode).returncode == 0
    ((_, record),) = find_runs([Path("outputs")])[0]
    if mode == "offline":
        assert headstart(server, "sync").stdout.strip() == "1 sent"
    check_whole(server, only_run(server), folder, record)
    steps = [row["trainer/step"] for row in only_run(server).history if "train/step_loss" in row]
    assert steps == [2, 4, 6, 8]


@pytest.mark.slow
def test_what_cannot_be_read_back_or_sent(server: FakeWandb) -> None:
    def said(*words: str, **environment: str) -> str:
        done = headstart(server, *words, **environment)
        assert done.returncode == 2, (words, done.stdout)
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "W&B has no such project, or none that this key may see" in said("compare", "wandb:fake/absent")
    assert "must be wandb:entity/project" in said("compare", "wandb:fake")
    assert "must be `project` or `entity/project`" in said("dashboard", "a/b/c")
    server.faults["graphql:*"] = "401"
    assert "W&B refuses the key" in said("compare", "wandb:fake/absent")
    assert "no W&B key" in said("compare", "wandb:fake/absent", WANDB_API_KEY="", NETRC="none")
    Path("outputs/runs/r").mkdir(parents=True)
    Path("outputs/runs/r/run.json").write_text("{")
    assert "there is no W&B key" in said("sync", WANDB_API_KEY="", NETRC="none")
    assert "W&B refuses the key" in said("sync")


def test_reading_a_record_back() -> None:
    from tests.compare.test_compare import ARMS, made

    from headstart.errors import RecordError
    from headstart.records.wandb_copy import record_as_summary, record_from_wandb

    record = made(ARMS[0], 3, 0.75)
    summary = record_as_summary(record)
    config: dict[str, Any] = {**record.config, "arm": "x", "headstart": {"folder": "y"}}
    back = record_from_wandb(config, summary)
    assert back.to_dict() | {"command": record.command} == record.to_dict()
    for bad in (
        {},
        {"headstart_record": 3},
        {"headstart_record": "{"},
        {"headstart_record": "[]"},
        {"headstart_record": "{}"},
    ):
        with pytest.raises(RecordError):
            record_from_wandb(config, bad)
