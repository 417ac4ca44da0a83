"""Presets of known sets: their wiring, on small sets in the original formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import RunTiny
from tests.data.fake_sets import FAKES, class_of

from headstart.cli import main
from headstart.cli.options import group_choices
from headstart.config.compose import compose
from headstart.config.schema.data import OPTIONS
from headstart.config.schema.root import Config
from headstart.data.fingerprint import scan
from headstart.data.opening import chosen_source
from headstart.data.splitting import split_source
from headstart.data.subset import Split
from headstart.errors import ConfigError, DataError

MD5 = {"cifar10": "cifar", "cifar100": "cifar", "flowers102": "flowers102", "svhn": "svhn", "stl10": "stl10"}
"""Modules whose sets look at their files' MD5, which no fake has."""

SIZES = {  # train, val, test of the fakes
    "aircraft": (12, 12, 12),  # its own three
    "caltech101": (81, 9, 33),  # 30 of each class, out of which validation is taken
    "cars": (27, 3, 30),
    "cifar10": (90, 10, 20),
    "cifar100": (9, 11, 20),  # validation has one of each class
    "dtd": (12, 12, 12),
    "eurosat": (43, 5, 12),  # 80 and 20 percent
    "fashion_mnist": (30, 10, 40),
    "flowers102": (12, 8, 20),
    "food101": (27, 3, 30),
    "kmnist": (30, 10, 40),
    "mnist": (30, 10, 40),
    "pets": (27, 3, 30),
    "stl10": (20, 10, 30),
    "sun397": (135, 15, 30),
    "svhn": (20, 10, 30),
}
PER_CLASS = {"flowers102", "pets", "aircraft", "caltech101", "sun397"}


@pytest.fixture
def lax(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in set(MD5.values()):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).is_file()
        )


def test_every_preset_is_tried_here() -> None:
    assert set(group_choices("data")) - set(OPTIONS) == set(FAKES) == set(SIZES)


def opened(name: str, root: Path) -> tuple[Config, dict[str, Split]]:
    root.mkdir(exist_ok=True)
    FAKES[name](root)
    config = compose([f"data={name}", f"data.path={root}"])
    source = chosen_source(config.data)
    found = scan(source, threads=1, on_bad_image="error")
    return config, split_source(source, config.data, found.usable)


@pytest.mark.usefixtures("lax")
@pytest.mark.parametrize("name", FAKES)
def test_splits_labels_and_metric(name: str, tmp_path: Path) -> None:
    config, splits = opened(name, tmp_path / "set")
    assert tuple(len(splits[split].indices) for split in ("train", "val", "test")) == SIZES[name]
    for split in splits.values():
        examples = split.examples
        for index in split.indices[:: max(1, len(split.indices) // 12)]:
            assert class_of(examples.image(int(index))) == examples.targets[index]  # type: ignore[arg-type]
    assert config.data.metric == ("accuracy_macro" if name in PER_CLASS else "accuracy_micro")


@pytest.mark.usefixtures("lax")
def test_ids_of_files_are_their_paths_and_names_are_the_sets_own(tmp_path: Path) -> None:
    for name in ("sun397", "pets", "aircraft", "eurosat"):
        (tmp_path / name).mkdir()
        FAKES[name](tmp_path / name)
    sources = {
        name: chosen_source(compose([f"data={name}", f"data.path={tmp_path / name}"]).data)
        for name in ("sun397", "pets", "aircraft", "eurosat")
    }
    assert "train/SUN397/a/apse/indoor/sun_1000005.jpg" in sources["sun397"].splits["train"].ids
    assert sources["sun397"].class_names == ("abbey", "apse/indoor", "beach")
    assert sources["pets"].class_names == ("Abyssinian", "American Bulldog", "Bengal")
    assert sources["aircraft"].class_names == ("707-320", "A340-200", "DC-9-30 long")
    assert "train/eurosat/2750/River/River_3.jpg" in sources["eurosat"].splits["train"].ids
    FAKES["dtd"](tmp_path)
    second = compose(["data=dtd", f"data.path={tmp_path}", "data.options={partition: 2}"])
    wanted = [
        f"train/dtd/dtd/images/{line}" for line in (tmp_path / "dtd/dtd/labels/train2.txt").read_text().split()
    ]
    assert chosen_source(second.data).splits["train"].ids == wanted


@pytest.mark.parametrize("name", sorted(set(FAKES) - {"cars"}))
def test_an_absent_set_is_said_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for path, said in ((tmp_path / "set", "is not in data.path="), (tmp_path / "none", "which is no folder")):
        with pytest.raises(DataError, match=said) as caught:
            chosen_source(compose([f"data={name}", f"data.path={path}"]).data)
        assert "data.download=true fetches it" in str(caught.value)
    assert list((tmp_path / "set").iterdir()) == []
    assert not (tmp_path / "none").exists()


def test_the_cars_are_the_hubs() -> None:
    with pytest.raises(DataError, match=r"data\.path=tanganke/stanford_cars"):
        chosen_source(compose(["data=cars"]).data)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_nothing_is_unpickled_before_its_md5_is_right(name: str, tmp_path: Path) -> None:
    """The fakes are pickles of another MD5: the set is not opened, and a file that would run code does not."""

    FAKES[name](tmp_path)
    bomb = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    for file in tmp_path.glob("*/*"):
        file.write_bytes(bomb)
    with pytest.raises(DataError, match=r"is not in data\.path=.*corrupted"):
        chosen_source(compose([f"data={name}", f"data.path={tmp_path}"]).data)
    assert not (tmp_path / "ran").exists()


def test_they_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "data", "*"]) == 0
    shown = capsys.readouterr().out
    for name in FAKES:
        assert f"data={name} " in shown
    assert "Mean accuracy per class (Kornblith et al. 2019)" in shown


# --- the metric that counts


def test_the_sets_metric_chooses_the_checkpoint_and_comes_first(
    run_tiny: RunTiny, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = run_tiny("data.metric=accuracy_macro")
    assert record.best["monitor"] == "val/accuracy_macro"
    assert record.config["trainer"]["monitor"] == "val/accuracy_macro"
    _, named = run_tiny("data.metric=accuracy_macro", "trainer.monitor=val/log_loss")
    assert named.best["monitor"] == "val/log_loss"
    assert main(["compare", str(folder)]) == 0
    assert "test/accuracy_macro" in capsys.readouterr().out
    plain, record = run_tiny()
    assert record.best["monitor"] == "val/accuracy_micro"
    assert main(["compare", str(plain)]) == 0
    assert "test/accuracy_micro" in capsys.readouterr().out


def test_a_metric_that_is_none_or_of_another_task(run_tiny: RunTiny) -> None:
    with pytest.raises(ConfigError, match=r"data\.metric=acuracy_macro: .*Did you mean 'accuracy_macro'"):
        compose(["data.metric=acuracy_macro"])
    with pytest.raises(ConfigError, match=r"data\.metric=map_macro: is no metric of a multiclass task"):
        run_tiny("data.metric=map_macro")


def test_vtab_1k_as_an_experiment(run_tiny: RunTiny) -> None:
    words = ("data.train_size=80", "data.val_size=20", "data.test_size=null", "trainer.max_epochs=null")
    words += (
        "schedule.milestones=[3,6,9]",
        "schedule.warmup_steps=2",
        "trainer.max_steps=10",
        "data.batch_size=16",
    )
    _, record = run_tiny("experiment=vtab1k", *words)
    assert record.data["sizes"]["train"] == 100
    assert record.steps == 10
    assert record.config["optimizer"]["lr"] == 0.01
    assert record.config["trainer"]["checkpoint"] == "last"
