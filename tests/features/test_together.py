"""Runs fitted together: each as if alone, each with all its files, each with its own end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import RunTiny, tiny_config

from headstart.cli.clean import freed_by, runs_hold
from headstart.config.schema.regularizer import RegularizerConfig
from headstart.config.schema.root import Config
from headstart.errors import ConfigError, RecordError, RunFailed, RunPruned
from headstart.experiment import Asked, resume, run, run_together
from headstart.features.eligible import fits_on_features
from headstart.preparation import prepare
from headstart.records.schema import RunRecord
from headstart.records.store import read_record
from headstart.records.tables import read_rows
from headstart.reproduce.pack import pack
from headstart.trained.load import load_run
from headstart.trained.scoring import Scorer
from headstart.training.checkpoints import load_weights, state_sha256, weights_sha256

PROBE = ("strategy=linear_probe", "trainer.max_epochs=2")


def probe(*overrides: str) -> Config:
    keys = {text.partition("=")[0] for text in overrides}
    solved = any(text.startswith("head.solver") for text in overrides)
    given = [text for text in PROBE if text.partition("=")[0] not in keys]
    if solved:  # it takes no steps
        given = ["strategy=linear_probe", "trainer.max_epochs=null"]
    return tiny_config(*given, *overrides)


def outputs() -> Path:
    return Path(os.environ["HEADSTART_OUTPUTS"])


def folder_of(record: Any) -> Path:
    assert isinstance(record, RunRecord), record
    return outputs() / "runs" / record.id


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_rows(folder / "metrics.csv")]


JOBS = (
    ("seed=0",),
    ("seed=0", "optimizer.lr=0.01"),
    ("seed=0", "optimizer=sgd", "optimizer.lr=0.3", "schedule=constant", "trainer.max_epochs=3"),
    ("seed=1", "data.split_seed=1"),
    ("seed=1", "data.train_size=60", "data.batch_size=16"),
    ("seed=0", "head=mlp", "head.hidden=[8]", "head.dropout=0.3"),
    ("seed=0", "head.dropout=0.3", "loss.label_smoothing=0.1", "loss.class_weights=balanced"),
    ("seed=0", "trainer.checkpoint=last", "data.sampling=balanced", "trainer.gradient_clip_val=0.1"),
    ("seed=0", "head.solver=ridge", "head.penalties=[1,100]"),
)


def test_a_run_has_the_same_bits_alone_and_among_others() -> None:
    shared = ("weights=file", f"weights.path={_weights()}", "logger=csv", "logger.every_n_steps=2")
    configs = [probe(*shared, *job) for job in JOBS]
    assert len({prepare(config).together for config in configs}) == 1
    together = run_together([Asked(config, command=["test"], launched_by="s") for config in configs])
    backbones = {(folder_of(one) / "checkpoints" / "frozen.safetensors").stat().st_ino for one in together}
    assert len(backbones) == 1
    for config, found in zip(configs, together, strict=True):
        folder, record = run(config, command=["test"], launched_by="s")
        beside = folder_of(found)
        assert isinstance(found, RunRecord)
        assert found == read_record(beside)
        assert found.features["heads"] == len(JOBS)
        for name in (
            "predictions_sha256",
            "final_weights",
            "metrics",
            "best",
            "job_key",
            "weights",
            "data",
            "drift",
        ):
            assert getattr(found, name) == getattr(record, name), name
        assert rows_of(beside) == rows_of(folder)
        assert (beside / "steps.csv").read_bytes() == (folder / "steps.csv").read_bytes()
        assert sorted(p.name for p in beside.iterdir()) == sorted(p.name for p in folder.iterdir())
        assert set(found.files) == set(record.files)
        assert (beside / "examples.parquet").read_bytes() == (folder / "examples.parquet").read_bytes()


def _weights() -> Path:
    """A backbone that is the same for every seed, as a pretrained one is."""
    from safetensors.torch import save_file

    path = Path("backbone.safetensors").absolute()
    state = prepare(probe("seed=7")).built.model.backbone.state_dict()
    save_file({key: value.clone() for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("head=mlp", "head.hidden=[16]", "head.dropout=0.2"),
        ("optimizer=sgd", "data.sampling=balanced", "loss.class_weights=balanced", "trainer.gradient_clip_val=0.5"),
        ("trainer.max_epochs=null", "trainer.max_steps=2", "data.classes=[3,5]", "data.positive=3", "schedule=step", "schedule.milestones=[1]",
         "schedule.unit=step"),
    ],
    ids=["linear", "mlp", "sgd", "binary"],
)  # fmt: skip
def test_it_comes_out_as_the_whole_model_does(run_tiny: RunTiny, options: tuple[str, ...]) -> None:
    """The same order, batches, masks, updates and metrics; only the sums are in another order."""
    keys = {text.partition("=")[0] for text in options}
    words = [*(text for text in PROBE if text.partition("=")[0] not in keys), "data.batch_size=33", *options]
    folder, record = run_tiny(*words)
    plain, other = run_tiny(*words, "features.use=false")
    assert record.features
    assert not other.features
    assert record.config_hash != other.config_hash
    for name in ("epochs", "steps", "stopped_by", "parameters", "plan", "threshold"):
        assert getattr(record, name) == pytest.approx(getattr(other, name)) if name == "threshold" else True
        if name != "threshold":
            assert getattr(record, name) == getattr(other, name), name
    ours, theirs = rows_of(folder), rows_of(plain)
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    for mine, one in zip(ours, theirs, strict=True):
        for key, value in mine.items():
            loose = key.startswith("val/") and not key.endswith("log_loss")  # an image may change sides
            assert value == pytest.approx(one[key], rel=1e-3, abs=0.02 if loose else 1e-5), key
    whole, kept = load_file(plain / "checkpoints" / "last.safetensors"), _whole(folder, "last")
    assert set(whole) == set(kept)
    for key, value in whole.items():
        torch.testing.assert_close(kept[key], value, rtol=1e-3, atol=1e-5, msg=key)


def _whole(folder: Path, name: str) -> dict[str, torch.Tensor]:
    checkpoints = folder / "checkpoints"
    return {**load_file(checkpoints / "frozen.safetensors"), **load_file(checkpoints / f"{name}.safetensors")}


def test_what_is_kept_apart_is_one_model_again(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, record = run_tiny(*PROBE)
    assert all(key.startswith("head.") for key in load_file(folder / "checkpoints" / "best.safetensors"))
    assert record.final_weights == {name: state_sha256(_whole(folder, name)) for name in ("best", "last")}
    assert record.final_weights == weights_sha256(folder)
    model, _ = load_run(folder)
    assert all(torch.equal(value, _whole(folder, "best")[key]) for key, value in model.state_dict().items())
    started = run_tiny("weights=run", f"weights.path={folder}", *PROBE)[1]
    first, second = (load_file(folder_of(one) / "checkpoints" / "frozen.safetensors") for one in (record, started))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    parts = [name for name, _ in pack(folder, Path("bundle.zip"))]
    assert {"checkpoints/best.safetensors", "checkpoints/frozen.safetensors"} <= set(parts)
    assert "checkpoints/frozen.safetensors" not in [name for name, _ in pack(folder, Path("n.zip"), weights="none")]
    kept = runs_hold(folder, weights=False)["checkpoints of completed runs"]
    assert [path.name for path in kept] == ["last.safetensors"]
    state = load_file(folder / "checkpoints" / "frozen.safetensors")
    key = next(key for key, value in state.items() if value.is_floating_point())
    state[key] += 1
    from safetensors.torch import save_file

    save_file(state, folder / "checkpoints" / "frozen.safetensors")
    with pytest.raises(RecordError, match="were changed after the run"):
        Scorer(folder, tiny_config(*PROBE))
    (folder / "checkpoints" / "frozen.safetensors").unlink()
    with pytest.raises(RecordError, match=r"frozen\.safetensors: is not there any more"):
        load_weights(folder / "checkpoints" / "best.safetensors", model)


def test_freeing_counts_a_shared_file_once(tmp_path: Path) -> None:
    one, other, own = tmp_path / "one", tmp_path / "other", tmp_path / "own"
    one.write_bytes(b"x" * 1000)
    os.link(one, other)
    own.write_bytes(b"x" * 10)
    assert freed_by([one, own]) == 10
    assert freed_by([one, other, own]) == 1010


def test_each_failure_is_a_runs_own() -> None:
    def no_room(folder: Path) -> None:
        (folder / "checkpoints").write_text("in the way")

    wild = probe("optimizer=sgd", "optimizer.lr=1e38", "trainer.max_epochs=4")
    mistake = probe("data.path=nowhere", "data=image_folder")
    fine, diverged, lost, unknown, full = run_together(
        [
            Asked(probe()), Asked(wild), Asked(probe("seed=3"), announce=no_room), Asked(mistake),
            Asked(probe("strategy=full", "trainer.max_epochs=1")),
        ]
    )  # fmt: skip
    assert isinstance(fine, RunRecord)
    assert fine.predictions_sha256 == run(probe())[1].predictions_sha256
    assert isinstance(diverged, RunFailed)
    assert isinstance(lost, OSError)
    assert isinstance(unknown, Exception)
    assert isinstance(full, RunRecord)
    assert not full.features
    records = [read_record(path.parent) for path in sorted((outputs() / "runs").glob("*/run.json"))]
    assert sorted(one.status for one in records) == ["completed"] * 3 + ["failed"] * 2
    assert any("not finite" in (one.error or "") for one in records)


def test_a_completed_run_stays_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(opened: Any) -> RunRecord:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.together.end_well", lost)
    results = run_together([Asked(probe()), Asked(probe("seed=1"))])
    assert all(isinstance(one, RunRecord) and one.status == "completed" for one in results)
    assert "completed, but could not be tidied up" in capsys.readouterr().err
    records = [read_record(path.parent) for path in (outputs() / "runs").glob("*/run.json")]
    assert [one.status for one in records] == ["completed"] * 2


def test_a_head_that_fails_among_others_keeps_its_rows() -> None:
    late = {"before": 0}

    def stop() -> bool:
        late["before"] += 1
        return late["before"] == 2

    pruned, fine = run_together([Asked(probe("trainer.max_epochs=4"), prune=stop), Asked(probe("seed=1"))])
    assert isinstance(pruned, RunPruned)
    assert isinstance(fine, RunRecord)
    (folder,) = [one for one in (outputs() / "runs").iterdir() if read_record(one).status == "pruned"]
    assert [row["epoch"] for row in rows_of(folder)] == [1, 2]


def test_what_was_interrupted_goes_on_to_the_same_bits() -> None:
    def stop() -> bool:
        raise KeyboardInterrupt

    short, long = probe("trainer.max_epochs=1"), probe("seed=1", "trainer.max_epochs=3")
    asks = iter([False, True])
    results = run_together([Asked(short), Asked(long, prune=lambda: next(asks) and stop())])
    assert isinstance(results[0], RunRecord)  # it was over by then
    assert isinstance(results[1], KeyboardInterrupt)
    folders = sorted((outputs() / "runs").glob("*"))
    (left,) = [folder for folder in folders if read_record(folder).status == "interrupted"]
    assert len(read_rows(left / "metrics.csv")) == 2
    whole = run(long)
    (again,) = run_together([Asked(long, resumes=left)])
    assert folder_of(again) == left
    assert again == read_record(left)
    assert isinstance(again, RunRecord)
    assert again.predictions_sha256 == whole[1].predictions_sha256
    assert again.final_weights == whole[1].final_weights
    assert rows_of(left) == rows_of(whole[0])
    with pytest.raises(RecordError, match="completed"):
        resume(left)


def test_what_cannot_be_fitted_on_features_says_why(run_tiny: RunTiny) -> None:
    wanted = {
        "strategy=full": "strategy=full trains more than the head",
        "data.augment=light": "data.augment=light draws anew in every epoch; set features.views",
        "data.mixup_alpha=0.2": "data.mixup_alpha=0.2 mixes images",
        "data.cutmix_alpha=0.2": "data.cutmix_alpha=0.2 mixes images",
        "trainer.devices=2": "trainer.devices=2 trains in several processes",
        "trainer.ema_decay=0.9": "trainer.ema_decay averages",
    }
    for option, reason in wanted.items():
        words = [option] if option.startswith("strategy") else ["strategy=linear_probe", option]
        with pytest.raises(ConfigError, match=f"features.use=true: {reason}"):
            prepare(tiny_config(*words, "features.use=true"))
        assert prepare(tiny_config(*words)).together == ""
    with pytest.raises(ConfigError, match=r"features\.views=2: .*but strategy=full trains more"):
        prepare(tiny_config("strategy=full", "data.augment=light", "features.views=2"))
    with pytest.raises(ConfigError, match=r"head\.solver=ridge: .*but features.use=false"):
        prepare(probe("head.solver=ridge", "features.use=false"))
    prepared = prepare(probe())
    plugged = replace(prepared.config, regularizer={"own": RegularizerConfig()})  # a plugin's
    assert not fits_on_features(plugged, prepared.plan)
    views = prepare(probe("data.augment=light", "features.views=2"))
    assert views.together not in ("", prepare(probe()).together)


def test_runs_share_a_process_where_their_features_are_the_same() -> None:
    base = prepare(probe()).together
    for same in (
        "optimizer.lr=1",
        "data.train_size=50",
        "data.split_seed=2",
        "head.dropout=0.1",
        "data.batch_size=8",
    ):
        assert prepare(probe(same)).together == base, same
    other = ("seed=1", "data.image_size=40", "head.pool=max", "data.mean=[0.1]", "trainer.threads=2",
             "features.dtype=float16", "features.batch_size=8", "backbone.name=test_vit", "trainer.deterministic=true",
             "data.interpolation=nearest", "features.cache=false")  # fmt: skip
    found = [prepare(probe(one)).together for one in other]
    assert len({base, *found}) == len(other) + 1
    torch.use_deterministic_algorithms(False)


def test_augmented_versions_take_turns(run_tiny: RunTiny) -> None:
    """Version v is what epoch v draws; with as many versions as epochs it is the whole model's training."""
    words = (*PROBE, "data.augment=light")
    whole = run_tiny(*words, "features.use=false")[0]
    every, one = (run_tiny(*words, f"features.views={views}") for views in (2, 1))
    assert every[1].features
    losses = [[row["train/loss"] for row in rows_of(folder)] for folder in (whole, every[0], one[0])]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2][0] == pytest.approx(losses[0][0], rel=1e-3)
    assert losses[2][1] != pytest.approx(losses[0][1], rel=1e-3)
    shared = ("data.augment=light", "features.views=2", "data.split_seed=3")
    pair = run_together([Asked(probe(*shared, f"seed={seed}")) for seed in (0, 1)])
    for seed, found in enumerate(pair):
        assert isinstance(found, RunRecord)
        assert found.predictions_sha256 == run(probe(*shared, f"seed={seed}"))[1].predictions_sha256
