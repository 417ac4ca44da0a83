"""`headstart evaluate`: a completed run on further data and on spoilt copies, into its record."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk
from tests.conftest import make_photos, tiny_config
from torch.nn import functional as F

import headstart
from headstart.cli import main
from headstart.data.corruptions import corrupt
from headstart.data.elsewhere import _require_apart
from headstart.data.pictures import as_channels
from headstart.errors import ConfigError
from headstart.records.evaluations import CORRUPTIONS, further_metrics
from headstart.records.store import read_record, write_record
from headstart.records.tables import predictions_digest, read_predictions
from headstart.trained.judging import metrics_of

COLOURS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `photos/` and a run that learned to tell them apart a little; made once."""
    from headstart.experiment import run

    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(home / "cache"))
        photos = make_photos(home / "photos")
        config = tiny_config(
            "data=image_folder", f"data.path={photos}", "data.train_size=18", "data.test_size=12", "data.batch_size=5",
            "trainer.max_epochs=2", "optimizer.lr=0.01", f"output_dir={home / 'outputs'}",
        )  # fmt: skip
        run(config, command=["test"])
        yield home


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    (folder,) = (trained / "outputs" / "runs").iterdir()
    return Path(shutil.copytree(folder, tmp_path / "outputs" / "runs" / folder.name))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Other photographs of the same classes, of another size, grey level and order of classes on disk."""
    random = np.random.default_rng(5)
    for channel, name in enumerate(("red", "green", "blue")):
        folder = tmp_path / "elsewhere" / name
        folder.mkdir(parents=True)
        for i in range(4 + channel):
            pixels = random.integers(0, 120, (50, 61, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "elsewhere"


def directly(run: Path, images: list[tuple[Path, str]], *, spoil: tuple[str, int] | None = None) -> torch.Tensor:
    """Scores of images (file, id) by the loaded model, one at a time, in float32."""
    model, transform = headstart.load(run)
    scores = []
    for path, name in images:
        pixels = transform.geometry(as_channels(Image.open(path), 3))  # type: ignore[attr-defined]
        if spoil:
            pixels = torch.from_numpy(corrupt(pixels.numpy(), *spoil, example=name))
        with torch.no_grad():
            scores.append(model(transform.normalize(pixels)[None])[0])  # type: ignore[attr-defined]
    return torch.stack(scores)


def evaluations(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())["evaluations"]
    return found


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a mistake gets."""
    assert main(["evaluate", *map(str, words)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("headstart: ")
    assert len(text.strip().splitlines()) <= 2
    return text


def test_other_data_is_scored_as_the_loaded_model_scores_it(
    run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((run / "run.json").read_text())
    digests = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != "run.json"}
    assert main(["evaluate", str(run), f"data.path={elsewhere}"]) == 0
    shown = capsys.readouterr().out
    assert "elsewhere" in shown
    assert "home" in shown
    images = [(path, "") for name in COLOURS for path in sorted((elsewhere / name).iterdir())]
    targets = torch.tensor([COLOURS.index(path.parent.name) for path, _ in images])
    scores = directly(run, images).double()
    entry = evaluations(run)["elsewhere"]
    right = (scores.argmax(dim=1) == targets).double()
    assert entry["metrics"]["accuracy_micro"] == pytest.approx(float(right.mean()))
    assert entry["metrics"]["log_loss"] == pytest.approx(float(F.cross_entropy(scores, targets)), rel=1e-5)
    macro = np.mean([float(right[targets == i].mean()) for i in range(3)])
    assert entry["metrics"]["accuracy_macro"] == pytest.approx(macro)
    assert entry["data"] | {"fingerprint": "", "split_fingerprint": ""} == {
        "source": "image_folder", "path": str(elsewhere), "split": "all", "fingerprint": "", "split_fingerprint": "",
        "examples": 15, "class_counts": [6, 5, 4], "ignored": {}, "skipped": [], "seen_in_training": 0,
    }  # fmt: skip
    assert entry["weights_sha256"] == before["final_weights"]["best"]
    rows = read_predictions(run / entry["predictions"]["file"])
    np.testing.assert_allclose(rows["probability"], scores.softmax(dim=1), atol=1e-5)
    digest = predictions_digest(rows["id"].tolist(), rows["target"], rows["probability"].astype(np.float32))
    assert digest == entry["predictions"]["sha256"]
    # nothing else has changed
    after = json.loads((run / "run.json").read_text())
    assert {key: value for key, value in after.items() if key != "evaluations"} == {
        key: value for key, value in before.items() if key != "evaluations"
    }
    assert {name: (run / name).read_bytes() for name in digests} == digests


def test_the_runs_own_test_images_come_to_the_runs_own_test(run: Path, trained: Path) -> None:
    """From a folder that holds them alone, whatever the batch size, the workers and the threads."""
    record = read_record(run)
    for name in read_predictions(run / "predictions.parquet")["id"]:
        target = Path("own") / "test" / str(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trained / "photos" / str(name), target)
    shutil.copytree("own/test", "own/train")
    words = ["evaluate", str(run), "data.path=own"]
    assert main([*words, "--name", "same"]) == 0
    assert main([*words, "--name", "again", "data.batch_size=12", "data.num_workers=2", "trainer.threads=2"]) == 0
    for name in ("same", "again"):
        metrics = evaluations(run)[name]["metrics"]
        assert metrics == pytest.approx({key: record.metrics[f"test/{key}"] for key in metrics}, rel=1e-5)
    assert evaluations(run)["same"]["metrics"] == {
        key: record.metrics[f"test/{key}"] for key in evaluations(run)["same"]["metrics"]
    }
    assert evaluations(run)["same"]["data"]["split"] == "test"
    assert evaluations(run)["same"]["data"]["seen_in_training"] == 0


def test_the_precision_is_the_runs_unless_it_is_said(run: Path, elsewhere: Path) -> None:
    words = ["evaluate", str(run), f"data.path={elsewhere}"]
    assert main([*words, "--name", "full"]) == 0
    assert main([*words, "--name", "half", "trainer.precision=bf16-mixed"]) == 0
    full, half = (read_predictions(run / f"predictions-{name}.parquet")["probability"] for name in ("full", "half"))
    assert 0 < np.abs(full - half).max() < 0.1
    assert [evaluations(run)[name]["environment"]["precision"] for name in ("full", "half")] == [
        "32-true",
        "bf16-mixed",
    ]


def test_images_that_were_trained_on_are_told(run: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), f"data.path={trained / 'photos'}"]) == 0
    assert "18 of 36 images are among those that the run trained on." in capsys.readouterr().out
    assert evaluations(run)["photos"]["data"]["seen_in_training"] == 18


def test_classes_are_matched_by_name(run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other names by a map, fewer classes, and classes that the run does not know."""
    assert main(["evaluate", str(run), f"data.path={elsewhere}", "--name", "plain"]) == 0
    plain = read_predictions(run / "predictions-plain.parquet")
    names = {"red": "a_rosso", "green": "b_verde", "blue": "c_blu"}  # which turns their order round
    for old, new in names.items():
        (elsewhere / old).rename(elsewhere / new)
    text = said(capsys, run, f"data.path={elsewhere}", "--name", "mapped")
    assert "classes that the run does not know: 'a_rosso', 'b_verde', 'c_blu'" in text
    assert "--map" in text
    Path("map.csv").write_text("theirs,ours\n" + "".join(f"{new},{old}\n" for old, new in names.items()))
    assert main(["evaluate", str(run), f"data.path={elsewhere}", "--name", "mapped", "--map", "map.csv"]) == 0
    assert evaluations(run)["mapped"]["metrics"] == pytest.approx(evaluations(run)["plain"]["metrics"], rel=1e-6)
    mapped = read_predictions(run / "predictions-mapped.parquet")
    assert sorted(mapped["target"]) == sorted(plain["target"])

    shutil.rmtree(elsewhere / "c_blu")
    (elsewhere / "b_verde").rename(elsewhere / "green")
    (elsewhere / "a_rosso").rename(elsewhere / "redd")
    capsys.readouterr()
    assert "Did you mean 'red'?" in said(capsys, run, f"data.path={elsewhere}", "--name", "fewer")
    words = ["evaluate", str(run), f"data.path={elsewhere}", "--name", "fewer", "--ignore-unknown"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "Left out: 4 images of redd, which the run does not know." in shown
    assert "No images of blue, red: macro averages are over the other classes." in shown
    entry = evaluations(run)["fewer"]
    assert entry["data"]["class_counts"] == [0, 5, 0]
    assert entry["data"]["ignored"] == {"redd": 4}
    # one class is there: its recall is all there is to average, and its auroc is nothing
    assert entry["metrics"]["accuracy_macro"] == entry["metrics"]["accuracy_micro"]
    assert entry["metrics"]["auroc"] is None


def test_macro_averages_are_over_the_classes_that_are_there() -> None:
    """Against scikit-learn, over the labels that are there; torchmetrics counts the others as zero."""
    from sklearn.metrics import f1_score, recall_score, roc_auc_score

    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 5, generator=generator)
    targets = torch.tensor([0, 2, 3])[torch.randint(0, 3, (60,), generator=generator)]
    found = metrics_of(scores, targets, task="multiclass")
    predicted, there = scores.argmax(dim=1), [0, 2, 3]
    assert found["accuracy_macro"] == pytest.approx(
        recall_score(targets, predicted, labels=there, average="macro", zero_division=0)
    )
    assert found["f1_macro"] == pytest.approx(f1_score(targets, predicted, labels=there, average="macro"))
    areas = [roc_auc_score(targets == i, scores.double().softmax(dim=1)[:, i]) for i in there]
    assert found["auroc"] == pytest.approx(np.mean(areas))
    assert found["accuracy_micro"] == pytest.approx(float((predicted == targets).double().mean()))

    several = torch.randint(0, 2, (60, 4), generator=generator)
    several[:, 1] = 0
    kept = metrics_of(scores[:, [0, 2, 3]], several[:, [0, 2, 3]], task="multilabel")
    assert metrics_of(scores[:, :4], several, task="multilabel") == pytest.approx(kept)
    assert kept["map_macro"] is not None


def test_spoilt_copies_are_scored_as_the_loaded_model_scores_them(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run), "--corrupt", "fog,contrast", "--severity", "2,5"]
    assert main([*words, "data.batch_size=7", "data.num_workers=1", "trainer.threads=2"]) == 0
    assert "fog" in capsys.readouterr().out
    assert list(evaluations(run)) == ["fog-2", "fog-5", "contrast-2", "contrast-5"]
    rows = read_predictions(run / "predictions.parquet")
    images = [(trained / "photos" / str(name), str(name)) for name in rows["id"]]
    targets = torch.tensor(rows["target"])
    for name, spoil in (("fog-5", ("fog", 5)), ("contrast-2", ("contrast", 2))):
        scores = directly(run, images, spoil=spoil).double()
        entry = evaluations(run)[name]
        assert (entry["data"]["corruption"], entry["data"]["severity"]) == spoil
        assert entry["metrics"]["log_loss"] == pytest.approx(float(F.cross_entropy(scores, targets)), rel=1e-5)
        assert entry["metrics"]["accuracy_micro"] == float((scores.argmax(dim=1) == targets).double().mean())
    first = evaluations(run)
    # what is there is left as it is, and only what is missing is scored
    assert main(["evaluate", str(run), "--corrupt", "fog", "--severity", "2,3"]) == 0
    assert "There already, and left as they are: fog-2" in capsys.readouterr().out
    assert evaluations(run)["fog-2"] == first["fog-2"]
    # other batches, workers and threads: the same pictures
    assert main([*words, "--again", "data.batch_size=1", "data.num_workers=0", "--no-predictions"]) == 0
    for name in ("fog-2", "contrast-5"):
        assert evaluations(run)[name]["metrics"] == pytest.approx(first[name]["metrics"], rel=1e-5)
        assert evaluations(run)[name]["predictions"] is None
        assert not (run / f"predictions-{name}.parquet").exists()


def test_means_are_over_all_that_they_stand_for() -> None:
    values = {
        f"{name}-{severity}": {"metrics": {"accuracy_micro": (i + severity) / 20}}
        for i, name in enumerate(CORRUPTIONS)
        for severity in range(1, 6)
    }
    found = further_metrics(values)
    assert found["test@fog/accuracy_micro"] == pytest.approx((CORRUPTIONS.index("fog") + 3) / 20)
    assert found["test@corrupted/accuracy_micro"] == pytest.approx((5.5 + 3) / 20)
    del values["fog-4"]
    found = further_metrics(values)
    assert "test@fog/accuracy_micro" not in found
    assert "test@corrupted/accuracy_micro" not in found
    assert found["test@contrast/accuracy_micro"] == pytest.approx((CORRUPTIONS.index("contrast") + 3) / 20)


def test_changed_images_are_told(run: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "photos", "moved")
    words = [run, "--corrupt", "fog", "--severity", "1", f"data.path={Path('moved').resolve()}"]
    assert main(["evaluate", *map(str, words)]) == 0  # they may lie elsewhere now
    Image.new("RGB", (40, 30)).save("moved/red/03.jpg")
    Path("moved/blue/00.jpg").unlink()
    capsys.readouterr()
    text = said(capsys, *words, "--again")
    assert "the data is not what it was: 1 image changed: red/03.jpg; 1 image gone: blue/00.jpg" in text
    assert list(evaluations(run)) == ["fog-1"]


def test_a_name_is_taken_once(run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [run, f"data.path={elsewhere}", "--name", "there"]
    assert main(["evaluate", *map(str, words)]) == 0
    first = evaluations(run)["there"]
    assert "has an evaluation there already; --again replaces it" in said(capsys, *words)
    shutil.rmtree(elsewhere / "red")
    assert main(["evaluate", *map(str, words), "--again"]) == 0
    assert evaluations(run)["there"]["data"]["class_counts"] != first["data"]["class_counts"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "say on what"),
        (["data.path=nowhere"], "there is no such folder"),
        (["data.path=E", "data.image_size=64"], "data.image_size=64: the preprocessing is the run's own"),
        (["data.path=E", "data.train_size=5"], "data.train_size=5: has no part in scoring"),
        (["data.path=E", "optimizer.lr=1"], "optimizer.lr=1: has no part in scoring"),
        (
            ["data.path=E", "data.pth=1"],
            "data.pth: there is no such option of data=image_folder. Did you mean 'path'",
        ),
        (["data.path=E", "data.batch_size=0"], "data.batch_size=0: must be at least 1"),
        (["data=image_foldr", "data.path=E"], "Did you mean 'image_folder'"),
        (["data.path=E", "--split", "val"], "--split val: the data has no such split; it has train"),
        (["data.path=E", "--name", "../x"], "--name ../x: must be letters"),
        (["data.path=E", "--name", "fog-3"], "--name fog-3: is what --corrupt calls its own"),
        (["data.path=E", "--name", "corrupted"], "is what --corrupt calls its own"),
        (["data.path=E", "--map", "no.csv"], "--map no.csv: there is no such file"),
        (["--corrupt", "blurr"], "--corrupt blurr: there is no such corruption. Did you mean 'blur'"),
        (["--corrupt", "fog", "--severity", "0"], "--severity 0: must be of 1, 2, 3, 4, 5"),
        (["--corrupt", "fog", "data=digits"], "data=digits: spoilt copies are of the run's own test images"),
        (["--corrupt", "fog", "--name", "x"], "--name: is for other data"),
        (["data=digits"], "does not know: '0', '1'"),
    ],
)
def test_mistakes_get_a_line_and_change_nothing(
    run: Path, elsewhere: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "run.json").read_bytes()
    assert expected in said(capsys, run, *(word.replace("=E", f"={elsewhere}") for word in words))
    assert (run / "run.json").read_bytes() == before


def test_runs_that_cannot_be_scored(run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; the others of a folder are scored all the same."""
    gone = Path(shutil.copytree(run, run.with_name("gone")))
    (gone / "checkpoints" / "best.safetensors").unlink()
    failed = Path(shutil.copytree(run, run.with_name("failed")))
    record = read_record(failed)
    record.status = "failed"
    write_record(failed, record)
    changed = Path(shutil.copytree(run, run.with_name("changed")))
    path = changed / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert "this run (completed) kept no weights (best.safetensors)" in said(capsys, gone, f"data.path={elsewhere}")
    assert "this run is failed; only a completed one" in said(capsys, failed, f"data.path={elsewhere}")
    assert "its weights (best.safetensors) were changed after the run" in said(
        capsys, changed, f"data.path={elsewhere}"
    )
    shutil.rmtree(changed)
    assert main(["evaluate", str(run.parent), f"data.path={elsewhere}"]) == 3
    shown = capsys.readouterr()
    assert "kept no weights" in shown.err
    assert "this run is failed" in shown.err
    assert list(evaluations(run)) == ["elsewhere"]
    # again: what is there on the same data is left as it is, other data under its name is refused
    assert main(["evaluate", str(run.parent), f"data.path={elsewhere}"]) == 3
    assert "There already, and left as they are: elsewhere" in capsys.readouterr().out
    shutil.rmtree(elsewhere / "red")
    assert main(["evaluate", str(run.parent), f"data.path={elsewhere}"]) == 2
    assert "has an evaluation elsewhere on other data" in capsys.readouterr().err


def test_the_record_is_still_good_for_all_else(
    run: Path, trained: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), f"data.path={elsewhere}", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["name"]) == (run.name, "elsewhere")
    assert row["metrics"] == evaluations(run)["elsewhere"]["metrics"]
    assert main(["reproduce", str(run), "--check-only"]) == 0
    assert "elsewhere" not in capsys.readouterr().out
    assert main(["compare", str(run)]) == 0
    assert "elsewhere" in capsys.readouterr().out
    assert main(["bundle", str(run), "-o", "run.zip"]) == 0
    value = evaluations(run)["elsewhere"]["metrics"]["accuracy_micro"]
    capsys.readouterr()
    key = "test@elsewhere/accuracy_micro"
    assert main(["runs", str(run), "--filter", f"{key}>={value}", "--sort", key, "--format", "json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["metric"], listed["value"]) == (key, value)
    assert main(["runs", str(run), "--filter", f"{key}>{value}", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert headstart.runs(run)[f"metrics.{key}"].tolist() == [value]


ADD = """
import sys
from pathlib import Path
import numpy as np
from headstart.records.amend import Predicted, add_evaluations
folder, who, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
said = Predicted(["a"], np.array([0]), np.array([1]), np.array([[0.5, 0.5]], dtype=np.float32))
print("ready", flush=True)
for i in range(count):
    entry = {"metrics": {"accuracy_micro": i / count}, "data": {"examples": 1}}
    add_evaluations(folder, {f"{who}{i}": entry}, predicted={f"{who}{i}": said})
"""


def adder(run: Path, who: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ADD, str(run), who, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_two_at_once_lose_nothing(run: Path) -> None:
    several = [adder(run, who, 12) for who in ("a", "b", "c")]
    for one in several:
        one.communicate(timeout=120)
    assert [one.returncode for one in several] == [0, 0, 0]
    assert sorted(evaluations(run)) == sorted(f"{who}{i}" for who in "abc" for i in range(12))
    assert read_record(run).metrics == read_record(run).metrics


def test_killed_in_the_middle_the_record_is_whole(run: Path) -> None:
    before = {
        key: value for key, value in json.loads((run / "run.json").read_text()).items() if key != "evaluations"
    }
    for attempt, wait in enumerate((0.0, 0.03, 0.11)):
        process = adder(run, f"k{attempt}-", 100_000)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        record = read_record(run)
        value = json.loads((run / "run.json").read_text())
        assert {key: item for key, item in value.items() if key != "evaluations"} == before
        for entry in record.evaluations.values():
            rows = read_predictions(run / entry["predictions"]["file"])
            assert rows["id"].tolist() == ["a"]
    assert main(["evaluate", str(run), "--corrupt", "contrast", "--severity", "1"]) == 0
    assert "contrast-1" in evaluations(run)


def test_an_old_record_is_read_and_added_to(run: Path) -> None:
    value = json.loads((run / "run.json").read_text())
    del value["evaluations"]
    for key in ("reproduces", "final_weights", "files"):
        del value[key]
    value["schema_version"] = 1
    (run / "run.json").write_text(json.dumps(value))
    assert read_record(run).evaluations == {}
    assert main(["evaluate", str(run), "--corrupt", "contrast", "--severity", "1"]) == 0
    after = json.loads((run / "run.json").read_text())
    assert {key: item for key, item in after.items() if key != "evaluations"} == value
    assert math.isfinite(read_record(run).evaluations["contrast-1"]["metrics"]["log_loss"])


def test_one_bad_run_does_not_end_the_scoring_of_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(run, run.parent / "another"))
    weights = other / "checkpoints" / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert main(["evaluate", str(tmp_path / "outputs"), "--corrupt", "fog", "--severity", "1"]) == 3
    assert "its weights (best.safetensors) were changed after the run" in capsys.readouterr().err
    assert "fog-1" in read_record(run).evaluations
    assert "fog-1" not in json.loads((other / "run.json").read_text()).get("evaluations", {})


def test_options_that_would_do_nothing_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--severity", "3", "data=digits"]) == 2
    assert "--severity: is for spoilt copies; add --corrupt." in capsys.readouterr().err
    assert main(["evaluate", str(run), "--corrupt", "fog", "--ignore-unknown"]) == 2
    assert "--ignore-unknown: is for other data" in capsys.readouterr().err


def test_a_bundle_has_the_predictions_that_its_record_names(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run), "--corrupt", "fog", "--severity", "2"]) == 0
    assert main(["bundle", str(run), "--output", str(tmp_path / "b.zip")]) == 0
    named = read_record(run).evaluations["fog-2"]["predictions"]["file"]
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        assert any(name.endswith(named) for name in bundle.namelist())
    assert main(["bundle", "--unpack", str(tmp_path / "b.zip"), "--output", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / run.name / named).is_file()


def test_two_numbers_are_not_taken_for_one() -> None:
    with pytest.raises(ConfigError, match="--map: 'n1' and 'zz' would both be 'n1'"):
        _require_apart(["n1", "n2", "zz"], ["n1", "n2"], [0, 1, 0])


def test_images_with_one_label_of_several() -> None:
    scores = torch.tensor([[2.0, 1.0], [-1.0, 0.5], [0.5, -2.0], [-2.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = metrics_of(scores, targets, task="multilabel")
    p = scores[:, 0].sigmoid().numpy()
    assert found["map_macro"] == pytest.approx(sk.average_precision_score(targets[:, 0], p))
    assert found["f1_micro"] == found["f1_macro"] == pytest.approx(sk.f1_score(targets[:, 0], p > 0.5))
    assert found["log_loss"] == pytest.approx(sk.log_loss(targets[:, 0], p, labels=[0, 1]), rel=1e-5)
