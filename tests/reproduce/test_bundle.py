"""Bundles: what is packed is what is unpacked and reproduced, and a hostile one gets no further than a line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import RunTiny, make_photos, tiny_config
from tests.reproduce.test_identical import MOVING, elsewhere

from headstart.cli import main
from headstart.experiment import run
from headstart.records.schema import RunRecord
from headstart.records.store import read_record

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its bundle."""
    root = tmp_path_factory.mktemp("bundled")
    words = [word for word in MOVING if not word.startswith("trainer")]
    folder, _ = run(tiny_config(*words, f"output_dir={root}"), command=["headstart", "train", "a b"])
    folder.rename(root / "run")
    assert main(["bundle", str(root / "run"), "-o", str(root / "run.zip"), "--weights", "all"]) == 0
    return root


def record_of(root: Path) -> RunRecord:
    return read_record(root / "run")


def test_a_bundle_is_reproduced_where_nothing_else_is(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    shutil.copy(made / "run.zip", tmp_path / "far" / "result.zip")
    monkeypatch.chdir(tmp_path / "far")
    monkeypatch.setenv("HEADSTART_OUTPUTS", "outputs")
    status, said = elsewhere("reproduce", "result.zip")
    assert status == 0, said
    assert "identical: predictions and final weights are the same" in said
    assert "Every ingredient is what it was" in said
    # the same bundle is not unpacked twice, and one that was changed since is not trusted
    assert main(["reproduce", "result.zip", "--check-only"]) == 0
    assert len(list(Path("outputs/bundles").iterdir())) == 1
    (unpacked,) = Path("outputs/bundles").iterdir()
    (unpacked / "config.yaml").write_text("nothing")
    assert main(["reproduce", "result.zip", "--check-only"]) == 0
    assert len(list(Path("outputs/bundles").iterdir())) == 2


def test_what_is_in_it(made: Path, tmp_path: Path, capsys: Capture) -> None:
    record = record_of(made)
    assert main(["bundle", "--unpack", str(made / "run.zip"), "-o", "here"]) == 0
    folder = Path("here") / record.id
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names - {"code.patch"} == {
        "README.md", "requirements.txt", "run.json", "config.yaml", "metrics.csv", "predictions.parquet",
        "examples.parquet", "checkpoints/best.safetensors", "checkpoints/last.safetensors",
    }  # fmt: skip
    for name in ("config.yaml", "metrics.csv", "predictions.parquet", "examples.parquet"):
        assert (folder / name).read_bytes() == (made / "run" / name).read_bytes()
    assert read_record(folder) == record
    readme = (folder / "README.md").read_text()
    assert "headstart train 'a b'" in readme
    assert record.data["fingerprint"] in readme
    shutil.copytree(made / "run", "copy")
    for name in ("one.zip", "two.zip"):
        assert main(["bundle", "copy", "-o", name, "--weights", "none"]) == 0
    assert Path("one.zip").read_bytes() == Path("two.zip").read_bytes()
    assert not any("safetensors" in name for name in zipfile.ZipFile("one.zip").namelist())
    capsys.readouterr()
    assert main(["reproduce", "one.zip"]) == 0
    assert "identical: predictions and final weights" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["file", "run"])
def test_the_weights_that_it_started_from_come_along(tmp_path: Path, kind: str, capsys: Capture) -> None:
    torch.manual_seed(0)
    if kind == "file":
        start = tmp_path / "moco v2.pth (1)"
        torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), start)
    else:
        start, _ = run(tiny_config(), command=["test"])
    config = tiny_config(f"weights={kind}", "weights.path=later", "seed=5")
    config = replace(config, weights=replace(config.weights, path=str(start)))
    folder, _ = run(config, command=["test"])
    assert main(["bundle", str(folder), "-o", "result.zip", "--start"]) == 0
    shutil.rmtree(start) if start.is_dir() else start.unlink()
    shutil.rmtree(folder)
    capsys.readouterr()
    assert main(["reproduce", "result.zip"]) == 0
    said = capsys.readouterr().out
    assert "identical" in said
    assert "Every ingredient is what it was" in said


def test_pictures_are_found_where_they_are_now(tmp_path: Path, capsys: Capture) -> None:
    make_photos(tmp_path / "photos")
    words = ("data=image_folder", f"data.path={tmp_path / 'photos'}", "data.train_size=null", "data.test_size=null")
    folder, _ = run(tiny_config(*words), command=["test"])
    main(["bundle", str(folder), "-o", "result.zip"])
    (tmp_path / "photos").rename(tmp_path / "images")
    assert main(["reproduce", "result.zip"]) == 2
    assert "say where it is now: headstart reproduce result.zip data.path=..." in capsys.readouterr().err
    assert main(["reproduce", "result.zip", "data.path=images"]) == 0


def test_what_cannot_be_packed(run_tiny: RunTiny, made: Path, capsys: Capture) -> None:
    folder, _ = run_tiny()
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    for words, said in {
        (str(folder),): "kept no weights (best.safetensors); pack it with --weights none.",
        (str(made / "run.zip"),): "is a file; `headstart bundle --unpack",
        (str(made / "run"), "-o", "no/where.zip"): "--output no/where.zip: there is no folder no.",
        ("nothing",): "nothing: is not a run folder (it has no run.json).",
        ("--unpack", str(made / "run" / "run.json")): "is no bundle.",
        ("--unpack", "nothing.zip"): "nothing.zip: there is no such file.",
    }.items():
        assert main(["bundle", *words]) == 2, words
        assert said in capsys.readouterr().err
    assert not list(Path.cwd().glob("*.zip"))


# --- hostile ones


def entries(made: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(made / "run.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(files: dict[str, bytes], *, manifest: bool = True, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A bundle with these files, and a manifest that agrees with them."""
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in files.items()
        if name != "manifest.json"
    }
    with zipfile.ZipFile("bad.zip", "w", compression) as archive:
        for name, content in files.items():
            if not (manifest and name == "manifest.json"):
                archive.writestr(name, content)
        if manifest:
            plain = {"format": "headstart bundle", "version": 1, "run": "evil", "files": listed}
            archive.writestr("manifest.json", json.dumps(plain))
    return Path("bad.zip")


def with_name(name: str) -> Callable[[dict[str, bytes]], None]:
    def make(files: dict[str, bytes]) -> None:
        write(files | {name: b"evil"})

    return make


def kind_of_entry(kind: int) -> Callable[[dict[str, bytes]], None]:
    def make(files: dict[str, bytes]) -> None:
        path = write(files | {"link": b"/etc/passwd"})
        content = path.read_bytes()
        place = content.rindex(b"link") - 46  # of the central directory's entry
        attributes = struct.pack("<I", (kind | 0o777) << 16)
        path.write_bytes(content[: place + 38] + attributes + content[place + 42 :])

    return make


def manifest_with(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def make(files: dict[str, bytes]) -> None:
        plain = json.loads(files["manifest.json"]) | changes
        write(files | {"manifest.json": json.dumps(plain).encode()}, manifest=False)

    return make


def twice(files: dict[str, bytes]) -> None:
    write(files)
    with zipfile.ZipFile("bad.zip", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("run.json", b"{}")


def bomb(files: dict[str, bytes]) -> None:
    write(files | {"predictions.parquet": bytes(200 * 2**20)})


def text_bomb(files: dict[str, bytes]) -> None:
    write(files | {"config.yaml": b"# " + os.urandom(3 * 2**20) * 90})


def lying_bomb(files: dict[str, bytes]) -> None:
    """A size in the list that is not the file's."""
    path = write(files | {"metrics.csv": bytes(50 * 2**20)})
    content = path.read_bytes().replace(struct.pack("<I", 50 * 2**20), struct.pack("<I", 1000))
    content = content.replace(b'"size": 52428800', b'"size": 1000    ')
    path.write_bytes(content)


def bz2_bomb(files: dict[str, bytes]) -> None:
    write(files | {"metrics.csv": bytes(3 * 2**20)}, compression=zipfile.ZIP_BZIP2)


def changed(files: dict[str, bytes]) -> None:
    """Another file behind the same list, with a right CRC."""
    write(
        files | {"config.yaml": files["config.yaml"].replace(b"seed: 0", b"seed: 1")},
        manifest=False,
    )


def flipped(files: dict[str, bytes]) -> None:
    path = write(files, compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(b"accuracy_micro")] ^= 1
    path.write_bytes(content)


def encrypted(files: dict[str, bytes]) -> None:
    path = write(files)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"run.json") - 46
    content[place + 8] |= 1
    path.write_bytes(content)


def cut(files: dict[str, bytes]) -> None:
    path = write(files)
    path.write_bytes(path.read_bytes()[:5000])


def missing(files: dict[str, bytes]) -> None:
    write({name: content for name, content in files.items() if name != "run.json"}, manifest=False)


def extra(files: dict[str, bytes]) -> None:
    write(files | {"surprise.py": b"import os"}, manifest=False)


def many(files: dict[str, bytes]) -> None:
    write(files | {f"file{i}": b"" for i in range(200)})


def not_ours(files: dict[str, bytes]) -> None:
    write({"readme": b"hello"}, manifest=False)


def no_record(files: dict[str, bytes]) -> None:
    write({name: content for name, content in files.items() if name not in ("run.json", "manifest.json")})


def deep(files: dict[str, bytes]) -> None:
    write(files | {"manifest.json": b"[" * 100_000 + b"]" * 100_000}, manifest=False)


def large_manifest(files: dict[str, bytes]) -> None:
    write(files | {"manifest.json": os.urandom(5 * 2**20)}, manifest=False)


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "parent": (with_name("../evil"), "a name that no bundle has"),
    "parent inside": (with_name("checkpoints/../../evil"), "a name that no bundle has"),
    "absolute": (with_name("/tmp/evil"), "a name that no bundle has"),
    "drive": (with_name("C:evil"), "a name that no bundle has"),
    "backslash": (with_name("..\\evil"), "a name that no bundle has"),
    "hidden": (with_name(".bashrc"), "a name that no bundle has"),
    "control characters": (with_name("a\x1b[2Jb"), "a name that no bundle has"),
    "folder": (with_name("folder/"), "a name that no bundle has"),
    "file and folder": (with_name("run.json/evil"), "run.json is a file and a folder"),
    "link": (kind_of_entry(stat.S_IFLNK), "links and devices are refused"),
    "device": (kind_of_entry(stat.S_IFCHR), "links and devices are refused"),
    "pipe": (kind_of_entry(stat.S_IFIFO), "links and devices are refused"),
    "two of one name": (twice, "two files of one name"),
    "two of one name, but for capitals": (with_name("RUN.json"), "two files of one name"),
    "bomb": (bomb, "would grow "),
    "bomb of text": (text_bomb, "more than such a file can have"),
    "bomb that lies": (lying_bomb, "metrics.csv"),
    "bz2": (bz2_bomb, "packed in a way that no bundle is"),
    "changed": (changed, "config.yaml is not what its checksum says"),
    "flipped bit": (flipped, "is damaged"),
    "encrypted": (encrypted, "is encrypted"),
    "cut off": (cut, "is neither a config (.yaml) nor a bundle (.zip)"),
    "file missing": (missing, "run.json is missing"),
    "file too many": (extra, "surprise.py is not in its manifest"),
    "many files": (many, "a bundle has 100 at most"),
    "no manifest": (not_ours, "is no bundle of Headstart (it has no manifest.json)"),
    "no record": (no_record, "has no run.json"),
    "deep": (deep, "its manifest.json is damaged"),
    "large manifest": (large_manifest, "its manifest.json is too large"),
    "newer": (manifest_with(version=7), "is of version 7; this Headstart reads 1: upgrade it"),
    "another format": (manifest_with(format="docx"), "is no bundle of Headstart"),
    "run outside": (manifest_with(run="../../evil"), "names no run"),
    "sizes": (manifest_with(files={"run.json": {"sha256": "x", "size": -1}}), "is damaged"),
    "shape": (manifest_with(files=["run.json"]), "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle(made: Path, tmp_path: Path, name: str, capsys: Capture) -> None:
    make, said = HOSTILE[name]
    (tmp_path / "in").mkdir()
    os.chdir(tmp_path / "in")
    make(entries(made))
    before = sorted(path for path in tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(["reproduce", "bad.zip"]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert len(line.strip().splitlines()) == 1
    assert "\x1b" not in line
    left = [path for path in tmp_path.rglob("*") if path not in before]
    assert all(path.name in ("outputs", "bundles") for path in left), left


def test_weights_of_a_bundle_are_plain_tensors(made: Path, capsys: Capture) -> None:
    """Final weights come as safetensors alone: a pickle under that name is not opened as one."""
    files = entries(made)
    save_file(load_file(made / "run" / "checkpoints" / "best.safetensors"), "fine.safetensors")
    torch.save({"a": torch.zeros(1)}, "pickle")
    write(files | {"checkpoints/best.safetensors": Path("pickle").read_bytes()})
    assert main(["bundle", "--unpack", "bad.zip", "-o", "here"]) == 0
    capsys.readouterr()
    assert main(["predict", "here/evil", "fine.safetensors"]) == 2
    assert "best.safetensors" in capsys.readouterr().err
