"""What a run leaves: written whole, read back strictly, never colliding."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from headstart.errors import ConfigError, RecordError
from headstart.records.atomic import write_json, write_text, write_with
from headstart.records.schema import SCHEMA_VERSION, RunRecord
from headstart.records.store import (
    check_writable,
    find_runs,
    new_run_folder,
    read_record,
    run_folders,
    slug,
    write_record,
)
from headstart.records.sweeps import JobState, Sweep, SweepJob, write_state, write_sweep
from headstart.records.tables import predictions_digest, read_rows, write_predictions, write_rows


def record(**changes: object) -> RunRecord:
    base = {
        "id": "r", "status": "completed", "config_hash": "h", "job_key": "j", "arm": "a", "seed": 0,
        "split_seed": 0, "command": ["x"], "started": "2026-01-01T00:00:00Z",
        "config": {
            "backbone": {"name": "b"}, "weights": {"source": "scratch"}, "strategy": {"name": "full"},
            "head": {"name": "linear"}, "data": {"source": "digits"}, "trainer": {},
        },
    }  # fmt: skip
    return RunRecord(**{**base, **changes})  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else() -> None:
    path = Path("f.txt")
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_with(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in Path().iterdir()] == ["f.txt"]


def test_json_has_no_nan() -> None:
    write_json(Path("x.json"), {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads(Path("x.json").read_text()) == {"a": None, "b": [None, 1.5]}


def test_twenty_launches_at_once_get_twenty_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        folders = list(pool.map(lambda _: new_run_folder(tmp_path, words=["a"], digest="1" * 64), range(20)))
    assert len(set(folders)) == 20


def test_names_are_short_and_safe() -> None:
    name = slug(["ä/b c", "..", "x" * 200, "naïve/é"])
    assert len(name) <= 60
    assert "/" not in name
    assert not name.startswith(".")


def test_an_output_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        check_writable(tmp_path / "file" / "outputs")
    with pytest.raises(ConfigError, match="cannot write to"):
        new_run_folder(tmp_path / "file" / "outputs", words=["a"], digest="0" * 8)


def test_record_and_back(tmp_path: Path) -> None:
    write_record(tmp_path, record(metrics={"test/accuracy_micro": 0.5}))
    assert read_record(tmp_path) == record(metrics={"test/accuracy_micro": 0.5})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, "upgrade to"),
        ({"schema_version": None}, "has no schema_version"),
        ({"status": "fine"}, "unknown status 'fine'"),
        ({"metrics": [1]}, "metrics that is no mapping"),
        ({"config": {}}, "has a config without backbone, weights"),
    ],
)
def test_a_record_that_cannot_be_read_says_why(tmp_path: Path, change: dict[str, object], said: str) -> None:
    write_json(tmp_path / "run.json", {**record().to_dict(), **change})
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path)
    assert said in str(caught.value)
    assert "run.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema_version": 1}', "\x00", "[" * 100_000])
def test_a_damaged_record_is_named_and_counted(tmp_path: Path, text: str) -> None:
    for name in ("good", "bad"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    write_record(tmp_path / "runs" / "good", record())
    (tmp_path / "runs" / "bad" / "run.json").write_text(text)
    runs, damaged = find_runs([tmp_path])
    assert [folder.name for folder, _ in runs] == ["good"]
    assert len(damaged) == 1
    assert "bad/run.json" in damaged[0]


def test_runs_are_found_from_every_side(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    write_record(run, record())
    sweep = tmp_path / "sweeps" / "s"
    sweep.mkdir(parents=True)
    rows = (SweepJob("a", "k1", "seed=0"), SweepJob("b", "k2", "seed=1"))
    write_sweep(sweep, Sweep("s", (), "now", rows))
    (sweep / "jobs" / "a").mkdir(parents=True)
    write_state(sweep, "a", JobState("completed", "one"))
    for path in (run, tmp_path, tmp_path / "runs", sweep, tmp_path / "sweeps"):
        assert run_folders(path) == [run]
    with pytest.raises(RecordError, match="has no runs"):
        run_folders(_empty(tmp_path))
    with pytest.raises(RecordError, match="there is no such folder"):
        run_folders(tmp_path / "nope")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_rows_and_back() -> None:
    rows = [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 0.30000000000000004, "note": "a,b"}]
    write_rows(Path("m.csv"), rows)
    assert read_rows(Path("m.csv")) == rows


def test_predictions_keep_ids_and_exact_numbers() -> None:
    probabilities = np.array([[0.25, 0.75], [0.6, 0.4]], dtype=np.float32)
    digest = write_predictions(
        Path("p.parquet"),
        ids=["a", "b"],
        targets=np.array([1, 1]),
        predicted=np.array([1, 0]),
        probabilities=probabilities,
    )
    table = pyarrow.parquet.read_table("p.parquet").to_pydict()
    assert table["id"] == ["a", "b"]
    assert table["predicted"] == [1, 0]
    assert np.array_equal(np.array(table["probability"], dtype=np.float32), probabilities)
    assert digest == predictions_digest(["a", "b"], np.array([1, 1]), probabilities)


def test_the_digest_sees_every_bit() -> None:
    ids, targets, p = ["a"], np.array([0]), np.array([[0.5, 0.5]], dtype=np.float32)
    nudged = np.nextafter(p, np.float32(1))
    digests = {
        predictions_digest(ids, targets, p),
        predictions_digest(ids, targets, nudged),
        predictions_digest(["b"], targets, p),
        predictions_digest(ids, np.array([1]), p),
    }
    assert len(digests) == 4
