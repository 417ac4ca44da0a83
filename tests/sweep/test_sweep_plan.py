"""From checked jobs to a sweep on disk: names, the part that is fixed, and frozen configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.conftest import TINY

from headstart.errors import ConfigError
from headstart.records.sweeps import JobState, Sweep, SweepJob, read_sweep, write_state, write_sweep
from headstart.sweep.expand import expand
from headstart.sweep.plan import Planned, open_sweep, plan_sweep
from headstart.sweep.preflight import Checked


def planned(*words: str) -> Planned:
    """As if every job had been checked."""
    keys = {text.partition("=")[0] for text in words}
    jobs = expand([*(text for text in TINY if text.partition("=")[0] not in keys), *words])
    checked = [
        Checked(key=f"{i:03}{abs(hash(job.varied)):x}".ljust(64, "0"), config={"seed": i})
        for i, job in enumerate(jobs.jobs)
    ]
    return plan_sweep(jobs, checked, command=["test"], output_dir=Path("outputs").absolute())


def test_a_sweep_keeps_its_name_while_its_axes_grow() -> None:
    assert planned("seed=0,1").sweep.name == planned("seed=0,1,2").sweep.name
    assert planned("seed=0,1").sweep.name != planned("seed=0,1", "head.dropout=0.5").sweep.name
    assert planned("seed=0,1").sweep.name != planned("optimizer.lr=0.1,0.2").sweep.name
    assert planned("seed=0,1", "logger=csv").sweep.name == planned("seed=0,1").sweep.name
    assert planned("seed=0,1", "sweep.name=mine").sweep.name == "mine"
    assert planned("experiment=quickstart", "data.train_size=100").sweep.name.startswith("quickstart-")


def test_sixty_overrides_make_short_unique_readable_folders() -> None:
    values = [f"'tag {i} / ü {'x' * 30}'" for i in range(60)]
    words = ("logger=wandb", f"logger.tags={','.join(f'[{value}]' for value in values)}", "seed=0,1")
    found = planned(*words)
    ids = [job.id for job in found.sweep.jobs]
    assert len(ids) == len(set(ids))
    assert all(len(id) < 80 and id.isascii() and "/" not in id and " " not in id for id in ids)
    assert all(id.startswith("tag") for id in ids)
    assert len(found.sweep.name) < 60


def test_configs_are_frozen_and_stay() -> None:
    folder, sweep = open_sweep(planned("seed=0,1"))
    files = sorted(folder.glob("jobs/*/config.yaml"))
    frozen = [yaml.safe_load(file.read_text()) for file in files]
    assert frozen == [{"seed": i, "output_dir": str(Path("outputs").absolute())} for i in (0, 1)]
    files[0].write_text("seed: 7\n")
    open_sweep(planned("seed=0,1"))
    assert files[0].read_text() == "seed: 7\n"
    assert read_sweep(folder) == sweep


def test_another_fixed_part_is_refused_with_what_differs() -> None:
    open_sweep(planned("seed=0,1", "sweep.name=mine"))
    with pytest.raises(ConfigError) as caught:
        open_sweep(planned("seed=0,1", "sweep.name=mine", "head.dropout=0.5"))
    assert str(caught.value).splitlines() == [
        "sweep mine: there is one of that name with another fixed part; give sweep.name=..., or --force-new to begin another beside it.",
        "  head.dropout: was 0.0, is 0.5",
    ]
    folder, sweep = open_sweep(planned("seed=0,1", "sweep.name=mine", "head.dropout=0.5"), force_new=True)
    assert folder.name == sweep.name == "mine-2"


def test_states_of_runs_that_are_gone_are_forgotten() -> None:
    folder, sweep = open_sweep(planned("seed=0,1"))
    job = sweep.jobs[0].id
    write_state(folder, job, JobState("completed", "a-run-that-is-not-there"))
    _, sweep = open_sweep(planned("seed=0,1"))
    from headstart.records.sweeps import read_state

    assert read_state(folder, job) == JobState()


def test_a_damaged_or_newer_definition_is_named(tmp_path: Path) -> None:
    from headstart.errors import RecordError

    write_sweep(tmp_path, Sweep("x", (), "now", (SweepJob("a", "k", "seed=0"),)))
    assert read_sweep(tmp_path).jobs[0].varied == "seed=0"
    before = json.loads((tmp_path / "sweep.json").read_text()) | {"schema_version": 2}
    for key in ("compared", "tuned", "search", "studies", "chosen"):
        del before[key]
    del before["jobs"][0]["together"]
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "sweep.json").write_text(json.dumps(before))
    assert read_sweep(tmp_path / "older") == read_sweep(tmp_path)
    text = (tmp_path / "sweep.json").read_text()
    for changed, said in (
        (text[:40], "is damaged"),
        (text.replace('version": 4', 'version": 9'), "schema version 9, not 4"),
    ):
        (tmp_path / "sweep.json").write_text(changed)
        with pytest.raises(RecordError, match=said):
            read_sweep(tmp_path)
