"""Each task from training to reproducing: what is recorded, and what every command makes of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn import metrics as sk
from tests.conftest import RunTiny, tiny_config
from tests.test_experiment import write_two_colours

import headstart
from headstart.cli import main
from headstart.compare.details import details_of
from headstart.data.digits import DigitExamples
from headstart.data.source import Source
from headstart.errors import ConfigError, RecordError, WeightsError
from headstart.experiment import resume
from headstart.records.schema import RunRecord
from headstart.records.store import read_record
from headstart.records.tables import read_rows
from headstart.training.module import TransferModule
from headstart.training.wandb_tables import confusion_of, mistakes_of

BINARY = ("data.classes=[3,8]", "data.positive=3", "optimizer.lr=0.003")


class Numbers(DigitExamples):
    """The digits with two numbers each: an offset grade, and a share of ink, of very different sizes."""

    def __init__(self, *, numbers: int = 2, constant: bool = False) -> None:
        super().__init__()
        grade = 1000.0 + 30 * self.targets
        ink = self.pixels.reshape(len(grade), -1).mean(axis=1) / 1000
        self.targets = np.stack([grade * 0 + 7 if constant else grade, ink], axis=1)[:, :numbers]  # type: ignore[assignment]


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the digits have numbers."""

    give_numbers(monkeypatch)
    return partial(give_numbers, monkeypatch)


def give_numbers(patch: pytest.MonkeyPatch, *, count: int = 2, constant: bool = False) -> None:
    examples = Numbers(numbers=count, constant=constant)
    source = Source(("grade", "ink")[:count], "regression", {"train": examples})
    patch.setattr("headstart.data.opening.open_source", lambda data: source)


def predictions(folder: Path) -> dict[str, list[object]]:
    found: dict[str, list[object]] = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    return found


def test_two_classes(run_tiny: RunTiny, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, record = run_tiny(*BINARY, "trainer.max_epochs=3")
    assert (record.data["task"], record.data["class_names"]) == ("binary", ["8", "3"])
    assert load_file(folder / "checkpoints" / "best.safetensors")["head.0.weight"].shape[0] == 1
    table = predictions(folder)
    p, y = np.array(table["probability"]), np.array(table["target"])
    assert p.shape[1] == 2
    assert p.sum(axis=1) == pytest.approx(1)
    chosen = next(row for row in read_rows(folder / "metrics.csv") if row["step"] == record.best["step"])
    assert record.threshold == chosen["val/threshold"] == record.metrics["val/threshold"]
    assert record.threshold != 0.5
    said = (p[:, 1] > record.threshold).astype(int)
    assert table["predicted"] == said.tolist()
    assert record.confusion["counts"] == sk.confusion_matrix(y, said).tolist()
    assert record.metrics["test/f1"] == pytest.approx(sk.f1_score(y, said), abs=1e-6)
    assert record.metrics["test/auroc"] == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=1e-6)

    image = tmp_path / "a.png"
    DigitExamples().image(3).save(image)
    capsys.readouterr()
    assert main(["predict", str(folder), str(image), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    positive = row["probability_1"] if row["class_1"] == "3" else row["probability_2"]
    assert row["predicted"] == ("3" if positive > record.threshold else "8")
    assert main(["inspect", str(folder), "--images", str(image), "--format", "json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert sum(one["count"] for one in inspected["confused"]) == int((said != y).sum())
    assert inspected["calibration"]["ece"] == pytest.approx(record.metrics["test/ece"], abs=1e-5)
    assert inspected["threshold"] == record.threshold
    assert main(["reproduce", str(folder)]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_threshold_that_is_given_or_that_nothing_chose(run_tiny: RunTiny) -> None:
    folder, record = run_tiny(*BINARY, "trainer.threshold=0.2")
    assert record.threshold == 0.2
    table = predictions(folder)
    assert table["predicted"] == [int(row[1] > 0.2) for row in table["probability"]]  # type: ignore[index]
    assert "val/threshold" not in record.metrics
    _, refitted = run_tiny(*BINARY, "data.refit_on_val=true")
    assert (refitted.threshold, refitted.config["trainer"]["threshold"]) == (0.5, 0.5)
    _, plain = run_tiny()
    assert (plain.threshold, plain.config["trainer"]["threshold"]) == (None, None)
    with pytest.raises(
        ConfigError, match=r"trainer\.threshold=0\.3: is for several labels .* multiclass task has none"
    ):
        run_tiny("trainer.threshold=0.3")
    with pytest.raises(ConfigError, match=r"trainer\.threshold=high: must be auto, validation or a number"):
        tiny_config("trainer.threshold=high")


def test_the_threshold_is_that_of_the_tested_weights_after_a_resume(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*BINARY, "trainer.max_epochs=3", "trainer.monitor=val/accuracy_micro")
    first, whole = run_tiny(*options)
    assert whole.best["epoch"] == 1
    rows = read_rows(first / "metrics.csv")
    assert whole.threshold == rows[0]["val/threshold"] != rows[-1]["val/threshold"]

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TransferModule, "on_test_epoch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(*options)
    folder = max(Path("outputs/runs").iterdir())
    resumed = resume(folder)
    assert resumed.threshold == whole.threshold
    assert resumed.metrics == whole.metrics
    last = run_tiny(*options, "trainer.checkpoint=last")
    assert last[1].threshold == read_rows(last[0] / "metrics.csv")[-1]["val/threshold"]


def test_several_labels_have_one_threshold(
    run_tiny: RunTiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two_colours(tmp_path / "set")
    options = ("data=hf", f"data.path={tmp_path / 'set'}", "data.train_size=null", "data.test_size=0.3")
    folder, record = run_tiny(*options, "trainer.max_epochs=3")
    table = predictions(folder)
    p, y = np.array(table["probability"]), np.array(table["target"])
    assert record.threshold is not None
    assert np.array_equal(np.array(table["predicted"]), (p > record.threshold).astype(int))
    micro = sk.f1_score(y, p > record.threshold, average="micro")
    assert record.metrics["test/f1_micro"] == pytest.approx(micro, abs=1e-6)
    counts = sk.multilabel_confusion_matrix(y, p > record.threshold).reshape(3, 4).tolist()
    assert record.confusion["counts"] == counts
    capsys.readouterr()
    assert main(["inspect", str(folder), "--format", "json", "--count", "100"]) == 0
    wrong = {one["image"] for one in json.loads(capsys.readouterr().out)["mistakes"]}
    apart = ((p > record.threshold) != (y == 1)).any(axis=1)
    assert wrong == {name for name, off in zip(table["id"], apart, strict=True) if off}
    # a record of before there were thresholds counts at 0.5
    plain = json.loads((folder / "run.json").read_text())
    del plain["threshold"]
    (folder / "run.json").write_text(json.dumps(plain))
    assert read_record(folder).threshold is None


def test_numbers(run_tiny: RunTiny, numbers: object, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, record = run_tiny(
        "data.train_size=200", "trainer.max_epochs=3", "optimizer.lr=0.01", "trainer.pictures=5"
    )
    assert record.data["class_counts"] == {"train": [], "val": [], "test": []}
    assert record.best["monitor"] == "val/r2"
    assert record.confusion == {}
    table = predictions(folder)
    assert "probability" not in table
    targets, said = np.array(table["target"]), np.array(table["predicted"])
    exact = dict(zip(Numbers().ids, Numbers().targets.tolist(), strict=True))
    assert targets.tolist() == [exact[str(name)] for name in table["id"]]
    assert record.metrics["test/r2"] == pytest.approx(sk.r2_score(targets, said), abs=1e-5)
    assert record.metrics["test/mae"] == pytest.approx(sk.mean_absolute_error(targets, said), rel=1e-5)
    weights = load_file(folder / "checkpoints" / "best.safetensors")
    assert weights["head.1.mean"].tolist() == pytest.approx(record.data["target_mean"])
    assert weights["head.1.std"].tolist() == pytest.approx(record.data["target_std"])
    # the pictures are those that are furthest off in standard deviations
    off = (np.abs(said - targets) / record.data["target_std"]).max(axis=1)
    worst = [str(table["id"][i]) for i in np.argsort(-off)[:5]]
    kept = pyarrow.parquet.read_table(folder / "pictures.parquet").to_pydict()["id"]
    assert sorted(kept) == sorted(worst)

    image = tmp_path / "a.png"
    DigitExamples().image(int(str(table["id"][0]).rpartition("/")[2])).save(image)
    capsys.readouterr()
    assert main(["predict", str(folder), str(image), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (float(row["grade"]), float(row["ink"])) == pytest.approx(tuple(said[0]), rel=1e-4)
    assert main(["predict", str(folder), str(image), "--top", "2"]) == 2
    assert "--top 2: is for classes" in capsys.readouterr().err
    assert main(["inspect", str(folder), "--images", str(image), "--class", "ink", "--format", "json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in inspected["errors"][:5]] == worst
    assert inspected["errors"][0]["deviations"] == pytest.approx(off.max())
    assert inspected["numbers"][1]["r2"] == pytest.approx(sk.r2_score(targets[:, 1], said[:, 1]))
    assert all(Path(path).is_file() for path in inspected["pictures"])
    assert main(["reproduce", str(folder)]) == 0
    assert "identical" in capsys.readouterr().out


def test_numbers_leave_as_onnx_in_their_own_units(run_tiny: RunTiny, numbers: object, tmp_path: Path) -> None:
    folder, _ = run_tiny()
    model, transform = headstart.load(folder)
    image = transform(DigitExamples().image(5))[None]
    assert main(["export", str(folder), "--to", "onnx", "--output", str(tmp_path / "m.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, model(image).numpy(), rtol=1e-5, atol=1e-6)
    assert 900 < float(got[0, 0]) < 1400
    about = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert about["outputs"] == "numbers in the data's own units"


def test_numbers_are_compared(run_tiny: RunTiny, numbers: object, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        for strategy in ("full", "linear_probe"):
            run_tiny(f"strategy={strategy}", f"seed={seed}", "optimizer.lr=0.01", "trainer.max_epochs=2")
    capsys.readouterr()
    assert main(["compare", "outputs", "--details", "--report", "r.html"]) == 0
    said = capsys.readouterr().out
    assert "test/r2" in said
    assert "best constant 0.000" in said
    comparison = headstart.compare("outputs", metric="test/mse")
    assert comparison.lower_is_better
    (probe,) = (row for row in comparison.rows if not row.is_baseline)
    test = details_of(comparison).examples[probe.arm]
    assert probe.gain is not None
    assert test.difference == pytest.approx(probe.gain.mean, rel=1e-4)
    assert test.only_arm is None


def test_a_head_of_one_number_that_never_changes(run_tiny: RunTiny, numbers: Callable[..., None]) -> None:
    numbers(count=1, constant=True)
    folder, record = run_tiny("head.init=zero", "strategy=linear_probe", "optimizer.lr=1e-9")
    assert (record.data["target_mean"], record.data["target_std"]) == ([7.0], [1.0])
    table = predictions(folder)
    assert table["target"] == [7.0] * 100  # a number by itself, no list
    assert table["predicted"] == pytest.approx([7.0] * 100, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("data.mixup_alpha=0.2",), "data.mixup_alpha=0.2: mixes images of classes; these targets are numbers."),
        (("trainer.monitor=val/auroc",), "is no metric of a regression task; it has val/r2, val/rmse, val/mae, val/mse."),
        (("data.positive=grade",), "data.positive=grade: is for one of two classes per image; these images have numbers."),
        (("trainer.threshold=0.4",), "a regression task has none."),
    ],
)  # fmt: skip
def test_numbers_have_no_classes(run_tiny: RunTiny, numbers: object, options: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_tiny(*options)
    assert said in str(error.value)


@pytest.mark.parametrize("regularizer", ["co_tuning", "delta"])
def test_what_relates_classes_says_so(run_tiny: RunTiny, numbers: object, regularizer: str) -> None:
    source, _ = run_tiny("strategy=linear_probe")
    more = ("regularizer.delta.attention=true",) if regularizer == "delta" else ()
    with pytest.raises(ConfigError, match="is for one class per image"):
        run_tiny("weights=run", f"weights.path={source}", f"regularizer={regularizer}", *more)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_backbone_goes_on_to_another_task(run_tiny: RunTiny, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        if task == "regression":
            give_numbers(patched)
        source, _ = run_tiny(*(BINARY if task == "binary" else ()))
    _, record = run_tiny("weights=run", f"weights.path={source.absolute()}")
    assert record.weights["missing"] == []
    assert record.data["task"] == "multiclass"


EFFECTS = (
    (*BINARY, "loss.name=focal"),
    (*BINARY, "loss.name=focal", "loss.gamma=0.5"),
    (*BINARY, "loss.class_weights=[1.0,4.0]"),
    (*BINARY, "loss.label_smoothing=0.2"),
    BINARY,
    ("loss.name=focal",),
)


def test_every_loss_of_classes_gives_another_result(run_tiny: RunTiny) -> None:
    found = {run_tiny(*options)[1].final_weights["last"] for options in EFFECTS}
    assert len(found) == len(EFFECTS)


def test_every_loss_of_numbers_gives_another_result(run_tiny: RunTiny, numbers: object) -> None:
    found = {run_tiny(f"loss.name={name}")[1].final_weights["last"] for name in ("mse", "mae", "smooth_l1")}
    assert len(found) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("loss.gamma=1",), "loss.gamma=1: is of the focal loss; set loss.name=focal."),
        (("loss.name=focal", "loss.label_smoothing=0.1"), "loss.label_smoothing=0.1: the focal loss is of whole labels"),
        (("data.refit_on_val=true", "trainer.threshold=validation"), "leaves no validation to choose it on"),
        (("trainer.threshold=1",), "trainer.threshold=1: must be below 1."),
    ],
)  # fmt: skip
def test_what_excludes_each_other(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        tiny_config(*options)
    assert said in str(error.value)


def test_top5_may_choose_the_checkpoint_where_it_is_there(run_tiny: RunTiny) -> None:
    _, record = run_tiny("trainer.monitor=val/accuracy_top5")
    assert record.best["value"] == record.metrics["val/accuracy_top5"]
    with pytest.raises(ConfigError, match=r"no metric of a multiclass task of 3 classes"):
        run_tiny("trainer.monitor=val/accuracy_top5", "data.classes=[1,2,3]")


def test_the_saved_config_says_how_the_threshold_is_found(run_tiny: RunTiny) -> None:
    folder, record = run_tiny(*BINARY)
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["threshold"] == "validation"
    assert record.config["loss"]["gamma"] is None
    with pytest.raises(RecordError, match="threshold that is no number between 0 and 1"):
        RunRecord.from_dict({**record.to_dict(), "threshold": 1.5})


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression"])
def test_a_head_that_tells_no_classes_apart_is_no_source_of_them(
    run_tiny: RunTiny, task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = {"binary": BINARY, "multilabel": ("data=hf", f"data.path={tmp_path / 'set'}", "data.train_size=null")}
    write_two_colours(tmp_path / "set")
    with monkeypatch.context() as patched:
        if task == "regression":
            give_numbers(patched)
        source, _ = run_tiny(*words.get(task, ()), "data.test_size=0.3")
    with pytest.raises(WeightsError, match=rf"the head of that run \({task}\) tells no classes apart"):
        run_tiny("weights=run", f"weights.path={source.absolute()}", "regularizer=co_tuning")


def test_wandb_is_shown_mistakes_of_every_task(run_tiny: RunTiny, numbers: object) -> None:
    folder, record = run_tiny("trainer.pictures=4")
    table = mistakes_of(folder, record)
    assert table.columns[-1] == "standard deviations off"
    (row, *_) = table.data
    place = predictions(folder)["id"].index(row[1])
    grade, ink = predictions(folder)["target"][place]  # type: ignore[misc]
    assert row[2] == f"grade {grade:.6g}, ink {ink:.6g}"
    assert confusion_of(folder, record) is None


def test_wandb_is_shown_the_confusion_of_two_classes(run_tiny: RunTiny) -> None:
    folder, record = run_tiny(*BINARY)
    chart = confusion_of(folder, record)
    assert chart is not None
    counts = {(row[0], row[1]): row[2] for row in chart.table.data}
    ((tn, fp), (fn, tp)) = record.confusion["counts"]
    assert counts == {("8", "8"): tn, ("8", "3"): fp, ("3", "8"): fn, ("3", "3"): tp}
    assert mistakes_of(folder, record).columns[-1] == "probability"
