"""Folders with what should not be there: links, pipes, other systems' files, names, and files that come and go."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.conftest import make_photos, tiny_config
from tests.faults.hostile_input import ids_of, loaded, quoted, refused, small_photos, untouched

from headstart.cli import main
from headstart.config.schema.data import ImageFolderConfig
from headstart.data import ImageDataModule
from headstart.data.dataset import Batch
from headstart.data.fingerprint import scan
from headstart.data.load import chosen_source, load_data
from headstart.errors import DataError, HeadstartError
from headstart.experiment import run
from headstart.records.store import read_record
from headstart.resolve import resolve, spec_of

Spoil = Callable[[Path], object]


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has a hundred bytes at most
        one.bind(path.name)
        os.chdir(here)


def in_splits(root: Path, *, without: str = "", more: str = "") -> None:
    shutil.rmtree(root)
    for split in ("train", "test"):
        make_photos(root / split, per_class=3, size=(18, 16))
    if without:
        shutil.rmtree(root / without)
    if more:
        shutil.copytree(root / "test" / "red", root / more)


REFUSED: dict[str, tuple[Spoil, str]] = {
    "a link to itself": (lambda p: (p / "red/x.jpg").symlink_to("x.jpg"), r"red/x\.jpg': is a link to nothing; remove"),
    "links in a ring": (
        lambda p: [(p / "red/a.png").symlink_to("b.png"), (p / "red/b.png").symlink_to("a.png")],
        r"red/a\.png': is a link to nothing",
    ),
    "a link to nothing": (lambda p: (p / "red/x.jpg").symlink_to("/nowhere/x.jpg"), r"red/x\.jpg': is a link to nothing"),
    "a pipe": (lambda p: os.mkfifo(p / "red/x.jpg"), r"red/x\.jpg': is a pipe, socket or device, no file"),
    "a socket": (lambda p: a_socket(p / "red/x.jpg"), r"red/x\.jpg': is a pipe, socket or device"),
    "a link to endless zeros": (lambda p: (p / "red/x.jpg").symlink_to("/dev/zero"), r"x\.jpg': is a pipe, socket or device"),
    "a class of one pipe": (
        lambda p: [(p / "pipes").mkdir(), os.mkfifo(p / "pipes/x.gif")], r"pipes/x\.gif': is a pipe"
    ),
    "an empty class": (lambda p: (p / "violet").mkdir(), "the class folder .*/violet has no images"),
    "a class of links to itself": (
        lambda p: [(p / "violet").mkdir(), (p / "violet/again").symlink_to(".")], "the class folder .*/violet has no images"
    ),
    "a class of notes": (
        lambda p: [(p / "violet").mkdir(), (p / "violet/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")],
        "the class folder .*/violet has no images",
    ),
    "what macOS packs beside the images": (
        lambda p: [(p / "__MACOSX/red").mkdir(parents=True), (p / "__MACOSX/red/._00.jpg").write_bytes(b"\0\5\x16\7")],
        "the class folder .*/__MACOSX has no images",
    ),
    "a class with one image": (
        lambda p: [shutil.rmtree(p / "red"), (p / "one").mkdir(), shutil.copy(p / "blue/00.jpg", p / "one")],
        "leaves out the class 'one' and 1 more; 1 image of it can be used",
    ),
    "a class that test lacks": (lambda p: in_splits(p, without="test/red"), "test lacks the class folder 'red'"),
    "a class that train lacks": (lambda p: in_splits(p, more="test/violet"), "test has the class folder 'violet', unlike"),
    "two folders for one split": (
        lambda p: [in_splits(p), shutil.copytree(p / "train", p / "Training")], "Training and train may both be the train split"
    ),
    "no train": (lambda p: in_splits(p, without="train"), r"has test/ but no train/ folder"),
    "one class": (lambda p: [shutil.rmtree(p / "red"), shutil.rmtree(p / "green")], r"has one class only \(blue\)"),
    "no class": (lambda p: [shutil.rmtree(p / c) for c in ("red", "green", "blue")], "has no class folders"),
    "a newline in a class": (lambda p: (p / "red").rename(p / "re\nd"), r"the class folder 're\\nd' .* is no line of text"),
    "a command in a class": (lambda p: (p / "red").rename(p / "\x1b[2Jred"), r"the class folder '\\x1b\[2Jred' .* no line"),
    "a class that is no UTF-8": (
        lambda p: os.rename(p / "red", os.fsencode(p) + b"/\xff"), r"the class folder '\\udcff' .* no line of text"  # noqa: PTH104
    ),
    "a name that is no UTF-8": (
        lambda p: os.rename(p / "red/00.jpg", os.fsencode(p) + b"/red/\xff.jpg"), r"red/\?\.jpg: its name is not UTF-8; rename"  # noqa: PTH104
    ),
    "a newline in the name of a broken file": (
        lambda p: (p / "red/a\nb.jpg").write_bytes(b""), r"red/a\\nb\.jpg: cannot be decoded \(the file is empty"
    ),
    "a command in the name of a broken file": (
        lambda p: (p / "red/\x1b]0;x\x07.jpg").write_bytes(b""), r"red/\\x1b\]0;x\\x07\.jpg: cannot be decoded"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = REFUSED[name]
    words = small_photos(tmp_path / "set")
    spoil(tmp_path / "set")
    with untouched(tmp_path / "set"):
        text = refused(words, said)
        assert not any(sign in text for sign in "\x1b\x07")
        assert main(["train", "backbone.name=test_resnet", "weights=scratch", *words]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "\x1b" not in shown


def renamed(name: str) -> Spoil:
    return lambda p: (p / "red/00.jpg").rename(p / "red" / name)


def hidden(path: Path) -> Spoil:
    """A copy that an editor has put away."""
    return lambda p: [(p / path).parent.mkdir(exist_ok=True), shutil.copy(p / "red/01.jpg", p / path)]


ACCEPTED: dict[str, tuple[Spoil, int, str]] = {
    "a newline": (renamed("a\nb.jpg"), 9, "red/a\nb.jpg"),
    "spaces, quotes and a reference": (renamed(" a 'b' \"c\" ${oops} x=1, {d}.JPEG"), 9, "red/ a 'b' \"c\" ${oops} x=1, {d}.JPEG"),
    "another alphabet": (renamed("фото-猫-با\u200cهم.jpg"), 9, "red/фото-猫-با\u200cهم.jpg"),
    "an emoji": (renamed("🍓🏳️‍🌈.jpg"), 9, "red/🍓🏳️‍🌈.jpg"),
    "a command": (renamed("\x1b[2J.jpg"), 9, "red/\x1b[2J.jpg"),
    "as long as can be": (renamed("x" * 251 + ".jpg"), 9, "red/" + "x" * 251 + ".jpg"),
    "a wildcard and a parent": (renamed("a..*?[a]\\..png"), 9, ""),
    "a formula": (renamed("=cmd('calc')!A1.jpg"), 9, "red/=cmd('calc')!A1.jpg"),
    "names that differ in case": (lambda p: shutil.copy(p / "red/00.jpg", p / "red/00.JPG"), 10, "red/00.JPG"),
    "classes that differ in case": (lambda p: shutil.copytree(p / "red", p / "Red"), 12, "Red/00.jpg"),
    "a class of spaces and quotes": (lambda p: (p / "red").rename(p / " 'r' \"e\" ${d}=1"), 9, " 'r' \"e\" ${d}=1/00.jpg"),
    "a class that looks like a list": (lambda p: (p / "red").rename(p / "[null, 1]"), 9, "[null, 1]/00.jpg"),
    "a folder called .jpg": (
        lambda p: [(p / "red/x.jpg").mkdir(), shutil.copy(p / "red/00.jpg", p / "red/x.jpg/y.jpg")], 10, "red/x.jpg/y.jpg"
    ),
    "deep folders": (
        lambda p: [(p / "red" / "/".join("d" * 60)).mkdir(parents=True), (p / "red/00.jpg").rename(p / "red" / "/".join("d" * 60) / "x.jpg")],
        9, "red/" + "/".join("d" * 60) + "/x.jpg",
    ),
    "a link out of the folder": (
        lambda p: [shutil.copy(p / "red/00.jpg", p.parent / "o.jpg"), (p / "red/o.jpg").symlink_to(p.parent / "o.jpg")],
        10, "red/o.jpg",
    ),
    "a link to the folder above": (lambda p: (p / "red/up").symlink_to(".."), 9 + 6, "red/up/blue/00.jpg"),
    "one file under three names": (lambda p: [os.link(p / "red/00.jpg", p / f"red/{i}.jpg") for i in "ab"], 11, "red/a.jpg"),
    "a hidden file": (lambda p: shutil.copy(p / "red/00.jpg", p / "red/.00.jpg"), 9, ""),
    "what macOS keeps beside a file": (lambda p: (p / "red/._00.jpg").write_bytes(b"\0\5\x16\7"), 9, ""),
    "copies of an editor": (hidden(Path("red/.ipynb_checkpoints/01-checkpoint.jpg")), 9, ""),
    "a hidden class": (hidden(Path(".trash/01.jpg")), 9, ""),
    "what Windows and macOS leave": (
        lambda p: [(p / "red" / name).write_bytes(b"x") for name in ("Thumbs.db", ".DS_Store", "desktop.ini")], 9, ""
    ),
    "an image beside the classes": (lambda p: shutil.copy(p / "red/00.jpg", p / "00.jpg"), 9, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_folder_that_is_used(tmp_path: Path, name: str) -> None:
    spoil, count, expected = ACCEPTED[name]
    words = small_photos(tmp_path / "set")
    spoil(tmp_path / "set")
    with untouched(tmp_path):
        ids = list(chosen_source(ImageFolderConfig(path=str(tmp_path / "set"))).splits["train"].ids)
    assert len(ids) == len(set(ids)) == count
    assert not expected or expected in ids
    with untouched(tmp_path / "set"):
        assert ids_of(loaded(words)) == set(ids)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", r"data\.path=.*nowhere: there is no such folder"),
        ("set/red/00.jpg", "there is no such folder"),
        ("x" * 300, "there is no such folder"),
        ("~nobody.at.all/photos", "there is no such folder"),
        ("ring", "there is no such folder"),
        ("/dev/null", "there is no such folder"),
    ],
)
def test_a_path_that_is_no_folder(tmp_path: Path, path: str, said: str) -> None:
    small_photos(tmp_path / "set")
    (tmp_path / "ring").symlink_to("ring")
    with untouched(tmp_path):
        refused(["data=image_folder", f"data.path={quoted(path)}"], said)


def test_a_path_of_odd_signs(tmp_path: Path) -> None:
    odd = "a 'b' \"c\" $HOME x=1 猫 🍓"
    small_photos(tmp_path / odd)
    with untouched(tmp_path / odd):
        assert len(ids_of(loaded(["data=image_folder", f"data.path={quoted(odd)}"]))) == 9


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a person: root may list everything."""
    words, scandir = small_photos(tmp_path / "set"), os.scandir
    (tmp_path / "set" / "red" / "secret").mkdir(mode=0)

    def refuse(path: os.PathLike[str] | str) -> object:
        if str(path).endswith("/red/secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("headstart.data.image_folder.os.scandir", refuse)
    with pytest.raises(DataError, match=r"red/secret: cannot be listed \(Permission denied\)"):
        loaded(words)


def test_copies_and_leaks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    root.mkdir()
    in_splits(root)
    (root / "test/red/00.jpg").unlink()
    os.link(root / "train/red/02.jpg", root / "test/red/00.jpg")
    with untouched(root):
        assert main(["data", "data=image_folder", f"data.path={root}", "backbone.name=test_resnet"]) == 3
    said = capsys.readouterr().out
    assert "train/red/02.jpg" in said
    assert "test/red/00.jpg" in said


# --- files that come and go


def test_a_file_that_vanishes_before_it_is_read(tmp_path: Path) -> None:
    small_photos(tmp_path / "set")
    source = chosen_source(ImageFolderConfig(path=str(tmp_path / "set")))
    (tmp_path / "set/red/01.jpg").unlink()
    with pytest.raises(DataError, match=r"red/01\.jpg: cannot be decoded \(.*No such file"):
        scan(source, threads=1, on_bad_image="error")
    assert scan(source, threads=2, on_bad_image="skip").skipped == (str(tmp_path / "set/red/01.jpg"),)


TRAINING = ("data.image_size=16", "data.train_size=null", "data.test_size=null", "trainer.max_epochs=3")


def spoiled_while_training(path: Path, spoil: Spoil, *words: str) -> None:
    """Train; once it has begun, something happens to all images of a folder."""
    config = tiny_config(*TRAINING, *words)
    transfer, begun = ImageDataModule.on_after_batch_transfer, list[Path]()

    def spoiling(self: ImageDataModule, batch: Batch, index: int) -> Batch:
        if not begun:
            begun.append(path)
            for file in sorted(path.iterdir()):
                spoil(file)
        return transfer(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDataModule, "on_after_batch_transfer", spoiling)
        try:
            run(config, command=["test"])
        finally:
            assert begun


def overwrite(path: Path) -> None:
    Image.new("RGB", (18, 16), (1, 2, 3)).save(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(missing_ok=True), r"red/0\d\.jpg: cannot be decoded any more .*No such file"),
        (lambda path: path.write_bytes(b""), r"red/0\d\.jpg: cannot be decoded any more .the file is empty"),
        (overwrite, r"red/0\d\.jpg: was changed after it was checked; start again"),
    ],
)
def test_a_file_that_changes_while_training(tmp_path: Path, spoil: Spoil, said: str) -> None:
    words = small_photos(tmp_path / "set", per_class=8)
    with pytest.raises(HeadstartError, match=said):
        spoiled_while_training(tmp_path / "set/red", spoil, *words, "data.cache=false")
    record = read_record(next((tmp_path / "outputs" / "runs").iterdir()))
    assert record.status == "failed"


def test_what_is_decoded_already_is_not_read_again(tmp_path: Path) -> None:
    words = small_photos(tmp_path / "set", per_class=8)
    run(tiny_config(*TRAINING, *words), command=["test"])
    spoiled_while_training(tmp_path / "set/red", overwrite, *words)
    runs = [read_record(folder) for folder in (tmp_path / "outputs" / "runs").iterdir()]
    assert len(runs) == 2
    assert runs[0].final_weights == runs[1].final_weights
    assert runs[0].metrics == runs[1].metrics


def test_a_file_that_changes_before_it_is_decoded_is_not_kept(tmp_path: Path) -> None:
    """Else every later run on the images as they were would be given the wrong ones."""
    words = [*small_photos(tmp_path / "set"), "data.cache=true"]
    before = {path: path.read_bytes() for path in (tmp_path / "set/red").iterdir()}
    config = resolve(tiny_config(*TRAINING, *words))
    data = load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)
    for path in before:
        overwrite(path)
    with pytest.raises(DataError, match=r"red/0\d\.jpg: was changed after it was checked"):
        data.warm(threads=1, test=True)
    with pytest.raises(DataError, match=r"red/0\d\.jpg: was changed after it was checked"):
        [data.sample(name, 9) for name in data.splits]
    for path, content in before.items():
        path.write_bytes(content)
    again = load_data(config.data, spec_of(config), seed=0, threads=1, num_workers=0)
    again.warm(threads=1, test=True)
    plain = loaded(words[:2])
    for name in plain.splits:
        assert torch.equal(again.sample(name, 9), plain.sample(name, 9))
