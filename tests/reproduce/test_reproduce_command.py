"""`headstart reproduce` as people use it: what can be named, what it says, and its exit status."""

from __future__ import annotations

import json
import shutil
import signal
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tests.compare.test_compare import ARMS, made
from tests.conftest import RunTiny, make_photos, tiny_config
from tests.fake_wandb import FakeWandb
from tests.reproduce.test_identical import MOVING, elsewhere
from tests.test_experiment import LONG, stopped_at

from headstart.cli import main
from headstart.experiment import resume, run
from headstart.records.store import find_runs, read_record
from headstart.reproduce.tolerance import check_metrics, find_siblings

Capture = pytest.CaptureFixture[str]


def edit_record(folder: Path, **changes: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_config(folder: Path, group: str, **changes: object) -> None:
    path = folder / "config.yaml"
    plain = yaml.safe_load(path.read_text())
    plain[group] |= changes
    path.write_text(yaml.safe_dump(plain))


def refused(words: list[str], capsys: Capture) -> str:
    """The one line that a mistake gets."""
    capsys.readouterr()
    assert main(words) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


# --- what comes of it


def test_a_config_alone_is_enough(run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, in another process, with nothing else of the run."""
    folder, record = run_tiny(*MOVING)
    (tmp_path / "far").mkdir()
    shutil.copy(folder / "config.yaml", tmp_path / "far" / "config.yaml")
    folder.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path / "far")
    monkeypatch.setenv("HEADSTART_OUTPUTS", "outputs")
    status, said = elsewhere("reproduce", "config.yaml")
    assert status == 0, said
    assert "nothing to compare with: config.yaml is a config alone. It gave test/accuracy_micro" in said
    (again,) = Path("outputs/reproductions").iterdir()
    assert read_record(again).predictions_sha256 == record.predictions_sha256
    assert main(["reproduce", "config.yaml", "--check-only"]) == 0


def test_different_within_tolerance_and_where_they_part(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, _ = run_tiny(*MOVING, "schedule=step", "schedule.milestones=[1]")
    edit_config(folder, "schedule", gamma=0.099999)  # a rate that differs from the second epoch on, by a hair
    assert main(["reproduce", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "within tolerance: not the same bits, but every metric agrees." in said
    assert "They part in epoch 2: " in said
    assert "The likeliest reason: config: schedule.gamma: 0.1 -> 0.099999." in said
    edit_config(folder, "schedule", gamma=0.9)
    edit_config(folder, "optimizer", lr=0.1)
    assert main(["reproduce", str(folder)]) == 3
    said = capsys.readouterr().out
    assert "different: at least one metric is further off than its tolerance." in said
    assert "They part in epoch 1: " in said
    kept = max(Path("outputs/reproductions").iterdir(), key=lambda path: path.stat().st_mtime)
    verdict = json.loads((kept / "reproduction.json").read_text())
    assert (verdict["verdict"], verdict["reproduces"], verdict["parted"]["epoch"]) == ("different", folder.name, 1)
    assert verdict["changes"][0]["kind"] == "config"


def test_reproductions_are_no_new_results(run_tiny: RunTiny, capsys: Capture) -> None:
    """A seed that ran twice counts once."""
    folder, _ = run_tiny(*MOVING)
    main(["reproduce", str(folder)])
    assert [path for path, _ in find_runs([Path("outputs")])[0]] == [folder]


def test_tolerances_of_numbers_have_no_unit() -> None:
    record = made(ARMS[0], 0, 0.5)
    record.data = {**record.data, "sizes": {"test": 10}}
    record.metrics = {
        "test/r2": -9.0,
        "test/rmse": 3000.0,
        "test/mae": 0.002,
        "test/mse": 9e6,
        "val/threshold": 0.3,
    }
    found = {check.name: check.tolerance for check in check_metrics(record, record, siblings=())}
    # 2 % of an error, and of 1 - R2, which is one; what one test image is worth cannot be said
    expected = {"test/r2": 0.2, "test/rmse": 60.0, "test/mae": 0.00004, "test/mse": 180_000.0}
    assert found == pytest.approx(expected)
    record.metrics = {"val/f1": 0.9, "val/threshold": 0.3}
    assert [check.name for check in check_metrics(record, record, siblings=())] == ["val/f1"]


def test_tolerances_are_the_spread_of_the_seeds(run_tiny: RunTiny) -> None:
    runs = [run_tiny(*MOVING, f"seed={seed}") for seed in (0, 1, 2)]
    folder, record = runs[0]
    siblings = find_siblings(record, folder)
    assert [one.seed for one in siblings] == [1, 2]
    checks = {check.name: check for check in check_metrics(record, record, siblings=siblings)}
    losses = [one.metrics["test/log_loss"] for _, one in runs]
    assert checks["test/log_loss"].basis == "spread of 3 seeds"
    assert checks["test/log_loss"].tolerance == pytest.approx(
        max(statistics.stdev(losses), 0.002 * losses[0]), rel=1e-12
    )
    # the same seed twice is one seed
    twice = [siblings[0], replace(siblings[0], id="again")]
    assert {check.basis for check in check_metrics(record, record, siblings=twice)} == {"default"}
    worse = replace(record, metrics={**record.metrics, "test/log_loss": losses[0] + 1})
    assert [check.name for check in check_metrics(record, worse, siblings=siblings) if not check.is_within] == [
        "test/log_loss"
    ]


def test_two_runs_that_are_there(run_tiny: RunTiny, capsys: Capture) -> None:
    first, _ = run_tiny(*MOVING)
    same, _ = run_tiny(*MOVING, "data.num_workers=2")
    other, _ = run_tiny(*MOVING, "seed=3")
    assert main(["reproduce", str(first), "--against", str(same)]) == 0
    assert "identical: " in capsys.readouterr().out
    main(["reproduce", str(first), "--against", str(other)])
    assert "The likeliest reason: config: seed: 0 -> 3." in capsys.readouterr().out
    assert "--against: compares two runs; it takes no overrides" in refused(
        ["reproduce", str(first), "seed=1", "--against", str(same)], capsys
    )


def test_requirements(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, record = run_tiny()
    assert main(["reproduce", str(folder), "--requirements", "needs.txt"]) == 0
    lines = Path("needs.txt").read_text().splitlines()
    assert f"timm=={record.environment['packages']['timm']}" in lines
    assert f"torch=={torch.__version__.partition('+')[0]}" in lines
    assert not any(line.startswith("headstart==") for line in lines)
    # whoever wrote the record gets nothing else into what pip is given
    packages = {"x @ https://evil/x.whl #": "1", "a\n--index-url https://evil\nb": "1", "y": "1 --hash", "z": "1.0"}
    edit_record(folder, environment=record.environment | {"packages": packages, "python": "3\n--pre"})
    assert main(["reproduce", str(folder), "--requirements", "needs.txt"]) == 0
    assert [line for line in Path("needs.txt").read_text().splitlines() if not line.startswith("#")] == ["z==1.0"]


@pytest.mark.slow
def test_a_sample_of_a_sweep(capsys: Capture) -> None:
    words = [*MOVING, "backbone.name=test_resnet", "weights=scratch", "data.image_size=32", "logger=none"]
    words += ["trainer.progress=none", "trainer.threads=1"]
    assert main(["train", "-m", *words, "strategy=full,linear_probe", "seed=0,1"]) == 0
    capsys.readouterr()
    (sweep,) = Path("outputs/sweeps").iterdir()
    assert main(["reproduce", sweep.name, "--sample", "2"]) == 0
    caught = capsys.readouterr()
    assert caught.out.endswith("\n2 identical\n")
    assert "2 of 4 runs" in caught.err
    names = [line.split()[1] for line in caught.out.splitlines() if line.startswith("identical")]
    assert len({"linear_probe" in name for name in names}) == 2, "one of each arm"
    assert main(["reproduce", str(sweep), "--check-only"]) == 0
    assert capsys.readouterr().out.endswith("\n4 as it was\n")
    assert main(["reproduce", str(sweep), "--check-only", "weights.path=x"]) == 0
    assert "weights.path=x: none of these runs has a use for it." in capsys.readouterr().err
    assert "Did you mean 'trainer.threads'?" in refused(["reproduce", str(sweep), "trainer.thread=2"], capsys)
    # a run in W&B, or a folder that is not there, is no sweep of the same name
    assert "wandb:team/birds/" in refused(["reproduce", f"wandb:team/birds/{sweep.name}"], capsys)
    assert "there is no such run" in refused(["reproduce", f"/other/{sweep.name}"], capsys)
    assert "--sample 0: must be 1 or more" in refused(["reproduce", str(sweep), "--sample", "0"], capsys)


@pytest.mark.slow
def test_out_of_wandb(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with FakeWandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        folder, record = run(tiny_config(*MOVING, "logger=wandb", "logger.project=birds"), command=["test"])
        capsys.readouterr()
        shutil.move(folder, "elsewhere")
        entity = next(iter(server.runs))[0]
        assert main(["reproduce", f"wandb:{entity}/birds/{record.id}"]) == 0
        said = capsys.readouterr().out
        assert "identical: " in said
        assert "Every ingredient is what it was" in said
        assert "W&B has no such run" in refused(["reproduce", f"wandb:{entity}/birds/nothing"], capsys)
    assert "must be wandb:entity/project/run" in refused(["reproduce", "wandb:birds/x"], capsys)


# --- what cannot be


@pytest.mark.slow
def test_a_run_that_did_not_complete(capsys: Capture) -> None:
    folder = stopped_at(6, signal.SIGKILL, *LONG)
    line = refused(["reproduce", str(folder)], capsys)
    assert "has no final weights, no predictions to compare with. `headstart resume" in line
    assert f"`headstart reproduce {folder}/config.yaml` runs it anew" in line
    assert main(["reproduce", str(folder), "--check-only"]) == 0


def test_records_of_other_versions(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, record = run_tiny(*MOVING)
    packages = record.environment["packages"] | {"headstart": "9.1"}
    edit_record(folder, schema_version=3, environment=record.environment | {"packages": packages})
    line = refused(["reproduce", str(folder)], capsys)
    assert "has schema 3, and this version of Headstart reads up to 2: upgrade to headstart 9.1 or later" in line
    # what version 1 knew: neither digests of weights and files, nor examples
    plain = json.loads((folder / "run.json").read_text())
    for later in ("final_weights", "files", "reproduces"):
        plain.pop(later)
    plain["schema_version"], plain["environment"] = 1, record.environment
    (folder / "run.json").write_text(json.dumps(plain))
    (folder / "examples.parquet").unlink()
    assert main(["reproduce", str(folder)]) == 0
    assert "identical: predictions and final weights are the same" in capsys.readouterr().out


def test_data_and_weights_that_moved(tmp_path: Path, capsys: Capture) -> None:
    make_photos(tmp_path / "photos")
    parent, _ = run(tiny_config(), command=["test"])
    words = ("data=image_folder", f"data.path={tmp_path / 'photos'}", "data.train_size=null", "data.test_size=null")
    folder, _ = run(tiny_config(*words, "weights=run", f"weights.path={parent}"), command=["test"])
    (tmp_path / "photos").rename(tmp_path / "2024_06")
    line = refused(["reproduce", str(folder)], capsys)
    assert "the data is not there any more; say where it is now: headstart reproduce" in line
    assert line.endswith("data.path=...")
    parent.rename(tmp_path / "parent")
    now = f"data.path={tmp_path / '2024_06'}"
    line = refused(["reproduce", str(folder), now], capsys)
    assert "the run that the weights come from is not there any more" in line
    assert line.endswith("weights.path=...")
    assert main(["reproduce", str(folder), now, f"weights.path={tmp_path / 'parent'}"]) == 0
    assert "identical" in capsys.readouterr().out
    # a folder of runs that was moved as a whole
    (tmp_path / "parent").rename(parent)
    shutil.move(tmp_path / "outputs", tmp_path / "old")
    assert main(["reproduce", str(tmp_path / "old" / "runs" / folder.name), now]) == 0


def test_no_gpu_where_the_run_had_one(run_tiny: RunTiny, capsys: Capture) -> None:
    """The record of a GPU's run, on a machine without one."""
    folder, record = run_tiny(*MOVING)
    edit_config(folder, "trainer", accelerator="gpu")
    plain = json.loads((folder / "run.json").read_text())
    plain["config"]["trainer"]["accelerator"] = "gpu"
    plain["environment"] |= {"gpu": "NVIDIA H100 80GB HBM3", "gpus": 1}
    plain["predictions_sha256"] = "0" * 64
    plain["final_weights"] = dict.fromkeys(plain["final_weights"], "0" * 64)
    (folder / "run.json").write_text(json.dumps(plain))
    assert main(["reproduce", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "machine: no GPU here: the run had NVIDIA H100 80GB HBM3; its bits cannot be expected again" in said
    assert "within tolerance: not the same bits, but every metric agrees." in said
    assert record.status == "completed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing: there is no such run, config or bundle."),
        (["~nobody/x"], "~nobody/x: there is no such run, config or bundle."),
        (["x" * 5000], "there is no such run, config or bundle."),
        (["notes.txt"], "notes.txt: is neither a config (.yaml) nor a bundle (.zip)."),
        (["RUN", "optimizer.lr=1"], "optimizer.lr=1: would make another experiment of it; reproducing takes"),
        (["RUN", "data.num_worker=1"], "Did you mean 'data.num_workers'?"),
        (
            ["RUN", "trainer.threads=[1"],
            "trainer.threads=[1: cannot be read; quote a value with special characters.",
        ),
        (["RUN", "--sample", "2"], "--sample: is for a sweep; this is one run."),
        (
            ["RUN/config.yaml", "--requirements", "x"],
            "a config alone does not know versions; name the run's folder.",
        ),
        (["RUN/config.yaml", "--against", "RUN"], "is a config alone; there is nothing to compare with."),
    ],
)
def test_mistakes(run_tiny: RunTiny, capsys: Capture, words: list[str], said: str) -> None:
    folder, _ = run_tiny()
    Path("notes.txt").write_text("notes")
    assert said in refused(["reproduce", *(word.replace("RUN", str(folder)) for word in words)], capsys)


# --- interrupted and changed in between


def test_an_interrupted_reproduction_of_other_data_is_not_gone_on_with(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = make_photos(tmp_path / "photos")
    words = ("data=image_folder", f"data.path={photos}", "data.train_size=null", "data.test_size=null")
    folder, _ = run(tiny_config(*words), command=["test"])
    image = photos / "red" / "03.jpg"
    image.rename(tmp_path / "kept.jpg")
    shutil.copy(photos / "red" / "04.jpg", image)

    def stop(*rest: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headstart.experiment.fit", stop)
        assert main(["reproduce", str(folder)]) == 130
    (tmp_path / "kept.jpg").rename(image)
    capsys.readouterr()
    assert main(["reproduce", str(folder)]) == 0
    caught = capsys.readouterr()
    assert "going on with" not in caught.err
    assert "identical" in caught.out


@pytest.mark.slow
def test_a_run_that_was_resumed_under_other_code_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    folder = stopped_at(6, signal.SIGKILL, *LONG)
    plain = json.loads((folder / "run.json").read_text())
    plain["environment"]["code"]["training"] = "0" * 16
    (folder / "run.json").write_text(json.dumps(plain))
    record = resume(folder)
    assert record.environment["earlier"][0]["code"]["training"] == "0" * 16
    again = json.loads((folder / "run.json").read_text())
    again["environment"]["earlier"][0] |= {"gpu": "NVIDIA A100", "threads": 3}
    (folder / "run.json").write_text(json.dumps(again))
    assert main(["reproduce", str(folder), "--check-only"]) == 3
    said = capsys.readouterr().out
    assert "code: the run began under another, and was resumed: Headstart's own: training" in said
    assert "machine: the run began under another, and was resumed: no GPU here: the run had NVIDIA A100" in said


@pytest.mark.parametrize("field", ["predictions_sha256", "final_weights"])
def test_identical_means_both(run_tiny: RunTiny, field: str, capsys: Capture) -> None:
    """Other predictions, or other weights, alone."""
    folder, record = run_tiny(*MOVING)
    other = "0" * 64 if field == "predictions_sha256" else record.final_weights | {"best": "0" * 64}
    edit_record(folder, **{field: other})
    assert main(["reproduce", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "within tolerance: not the same bits, but every metric agrees." in said
    assert "No recorded ingredient has changed; an operation without a fixed order may be why." in said


def test_a_run_without_a_test(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, _ = run_tiny(*MOVING, "trainer.test=false")
    assert main(["reproduce", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "identical: predictions and final weights" not in said
    assert "final weights are the same, bit for bit (val/accuracy_micro" in said


@pytest.mark.parametrize(
    "words",
    [
        ("data.refit_on_val=true", "trainer.checkpoint=last"),
        ("data.classes=[0,3,7]", "data.train_size=30", "data.test_size=30"),
        ("regularizer=[l2_sp]", "weights=run"),
        pytest.param(("trainer.devices=2", "data.batch_size=16"), marks=pytest.mark.slow),
        pytest.param(("data.mixup_alpha=0.4", "strategy.normalization=stochnorm"), marks=pytest.mark.slow),
        pytest.param(("regularizer=[co_tuning]", "weights=run"), marks=pytest.mark.slow),
    ],
)
def test_other_ways_to_run(run_tiny: RunTiny, words: tuple[str, ...], capsys: Capture) -> None:
    parent, _ = run_tiny()
    words = tuple(
        word for text in words for word in ((text, f"weights.path={parent}") if text == "weights=run" else (text,))
    )
    own = {word.partition("=")[0] for word in words}
    folder, _ = run_tiny(*(word for word in MOVING if word.partition("=")[0] not in own), *words)
    assert main(["reproduce", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "identical" in said, said
    assert "Every ingredient is what it was" in said
