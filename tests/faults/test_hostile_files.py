"""Files from somebody else: none runs code, none leads out of its folder, each gets a line."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image
from pyarrow import parquet
from tests.conftest import RunTiny, make_photos, tiny_config

from headstart.cli import main
from headstart.errors import HeadstartError
from headstart.experiment import run
from headstart.records.store import read_record

Capture = pytest.CaptureFixture[str]
PROOF = Path("proof")
"""What a hostile file writes, if it can."""


class Evil:
    """Pickled, it writes the proof wherever it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch proof",)


def one_line(words: list[str], capsys: Capture) -> str:
    """What a person reads of the mistake."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert not PROOF.exists()
    assert not any(line.startswith("Traceback") for line in said), said
    return said[-1]


# --- weights and checkpoints


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def pickled_by_torch(path: Path) -> None:
    torch.save({"state_dict": {"a": Evil()}}, path)


def pickled_without_zip(path: Path) -> None:
    torch.save(Evil(), path, _use_new_zipfile_serialization=False)


def a_whole_model(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still found in the wild
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def nonsense(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def grows(path: Path) -> None:
    torch.save({"a": torch.zeros(2**24)}, "large")
    with zipfile.ZipFile("large") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))


def no_tensors(path: Path) -> None:
    torch.save({"a": 1}, path)


WEIGHTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "pickle": ("w.pth", pickled, "pickled objects are refused"),
    "pickle in a state_dict": ("w.pt", pickled_by_torch, "pickled objects are refused"),
    "old format": ("w.bin", pickled_without_zip, "pickled objects are refused"),
    "module": ("w.pth", a_whole_model, "pickled objects are refused"),
    "TorchScript": ("w.pt", script, "weights: "),
    "nonsense": ("w.pth", nonsense, "weights: "),
    "empty": ("w.pth", empty, "cannot be read"),
    "bomb": ("w.pth", grows, "would grow to"),
    "no tensors": ("w.pth", no_tensors, "holds no tensors"),
    "pickle as safetensors": ("w.safetensors", pickled, "cannot be read"),
    "header of safetensors": (
        "w.safetensors",
        lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}") and None,
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str) -> None:
    file, make, said = WEIGHTS[name]
    make(Path(file))
    with pytest.raises(HeadstartError) as caught:
        run(tiny_config("weights=file", f"weights.path={file}"), command=["test"])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not PROOF.exists()


def test_a_checkpoint(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, record = run_tiny()
    plain = json.loads((folder / "run.json").read_text()) | {"status": "interrupted"}
    (folder / "run.json").write_text(json.dumps(plain))
    torch.save({"state_dict": Evil(), "epoch": 0}, folder / "checkpoints" / "last.ckpt")
    assert "last.ckpt: is damaged; remove it" in one_line(["resume", str(folder)], capsys)
    assert record.status == "completed"


# --- configs


def deep(depth: int) -> str:
    return "backbone: " + "[" * depth + "]" * depth


LAUGHS = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFIGS = {
    "python object": "seed: !!python/object/apply:os.system ['touch proof']\n",
    "python name": "seed: !!python/name:os.system\n",
    "python module": "seed: !!python/module:antigravity\n",
    "target": "backbone: {_target_: os.system, command: touch proof}\n",
    "target above": "_target_: os.system\n_args_: [touch proof]\n",
    "interpolation of the environment": "output_dir: ${oc.env:HOME}\n",
    "interpolation of code": "seed: ${python:__import__('os').system('touch proof')}\n",
    "laughs": LAUGHS,
    "laughs about nothing": LAUGHS.replace("lol, " * 8 + "lol", ", ".join(["[]"] * 9)),
    "a list in itself": "a: &a [*a]\n",
    "deep": deep(5000),
    "binary": "\x00\x01\x02",
    "not UTF-8": "seed: \udcff\n",
    "a list": "- 1\n- 2\n",
    "a date": "seed: 2024-01-01\n",
    "a set": "seed: !!set {a, b}\n",
    "keys that are no text": "{1: 2, [3]: 4}\n",
    "a number out of all bounds": f"seed: {'9' * 5000}\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config(run_tiny: RunTiny, name: str, capsys: Capture) -> None:
    folder, _ = run_tiny()
    content = CONFIGS[name].encode("utf-8", "surrogateescape")
    Path("alone.yaml").write_bytes(content)
    assert "alone.yaml" in one_line(["reproduce", "alone.yaml"], capsys)
    # in the place of a value of a config that is whole
    text = (folder / "config.yaml").read_text()
    key = CONFIGS[name].partition(":")[0]
    if any(line.startswith(f"{key}:") for line in text.splitlines()) and content.isascii():
        plain = text.splitlines()
        start = next(i for i, line in enumerate(plain) if line.startswith(f"{key}:"))
        end = next((i for i in range(start + 1, len(plain)) if not plain[i].startswith((" ", "-"))), len(plain))
        (folder / "config.yaml").write_text(
            "\n".join([*plain[:start], CONFIGS[name].rstrip("\n"), *plain[end:], ""])
        )
        one_line(["reproduce", str(folder)], capsys)


def test_a_config_in_a_folder_of_configs(capsys: Capture) -> None:
    Path("conf/experiment").mkdir(parents=True)
    for i, text in enumerate(
        ("seed: !!python/object/apply:os.system ['touch proof']", "backbone: {_target_: os.system}")
    ):
        Path(f"conf/experiment/evil{i}.yaml").write_text(f"# @package _global_\n{text}\n")
        one_line(["train", f"experiment=evil{i}"], capsys)


def test_a_config_cannot_make_this_machine_download(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, _ = run_tiny()
    plain = yaml.safe_load((folder / "config.yaml").read_text())
    keep = {key: plain["data"][key] for key in plain["data"] if key not in ("source",)}
    plain["data"] = keep | {
        "source": "torchvision", "name": "CIFAR10", "path": str(Path("home").absolute()), "download": True,
        "options": {},
    }  # fmt: skip
    Path("evil.yaml").write_text(yaml.safe_dump(plain))
    Path("home").mkdir()
    assert "data.download=true fetches it" in one_line(["reproduce", "evil.yaml"], capsys)
    assert not list(Path("home").iterdir())


# --- records


RECORDS: dict[str, Callable[[dict[str, object]], object]] = {
    "no mapping": lambda plain: [],
    "packages": lambda plain: plain["environment"].update(packages=["a"]) or plain,  # type: ignore[attr-defined]
    "plugins": lambda plain: plain["environment"].update(plugins=7) or plain,  # type: ignore[attr-defined]
    "code": lambda plain: plain["environment"].update(code="x") or plain,  # type: ignore[attr-defined]
    "settings": lambda plain: plain["environment"].update(settings={"a": [1]}) or plain,  # type: ignore[attr-defined]
    "earlier": lambda plain: plain["environment"].update(earlier=[3]) or plain,  # type: ignore[attr-defined]
    "transform": lambda plain: plain["data"].update(transform="x") or plain,  # type: ignore[attr-defined]
    "command": lambda plain: plain | {"command": [1]},
    "digests": lambda plain: plain | {"files": {"run.json": 3}},
    "weights": lambda plain: plain | {"weights": "none"},
    "schema": lambda plain: plain | {"schema_version": "2"},
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record(run_tiny: RunTiny, name: str, capsys: Capture) -> None:
    folder, _ = run_tiny()
    path = folder / "run.json"
    path.write_text(json.dumps(RECORDS[name](json.loads(path.read_text()))))
    assert "run.json" in one_line(["reproduce", str(folder)], capsys)
    one_line(["bundle", str(folder)], capsys)


def test_a_record_that_is_a_bomb(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, _ = run_tiny()
    (folder / "run.json").write_text("[" * 200_000)
    assert "run.json" in one_line(["reproduce", str(folder)], capsys)


def test_commands_to_a_terminal_are_shown(run_tiny: RunTiny, capsys: Capture) -> None:
    folder, record = run_tiny()
    plain = json.loads((folder / "run.json").read_text())
    plain["environment"]["cpu"] = "\x1b]0;owned\x07\x1b[2J"
    (folder / "run.json").write_text(json.dumps(plain))
    assert main(["reproduce", str(folder), "--check-only"]) == 3
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\x1b]0;owned\\x07\\x1b[2J" in said
    assert record.status == "completed"


# --- images


def png(width: int, height: int) -> bytes:
    """A PNG that says it is this large, and is a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def frames() -> bytes:
    """A valid JPEG that is cut off."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()[:300]


IMAGES = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(proof) (w) file closefile\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "bomb": png(60_000, 60_000),
    "negative": png(0, 10),
    "cut off": frames(),
    "pickle": pickle.dumps(Evil()),
    "empty": b"",
    "page": b"<!doctype html><script>alert(1)</script>",
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image(tmp_path: Path, name: str) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "red" / "evil.jpg").write_bytes(IMAGES[name])
    words = ("data=image_folder", f"data.path={photos}", "data.train_size=null", "data.test_size=null")
    with pytest.raises(HeadstartError, match=r"evil\.jpg"):
        run(tiny_config(*words), command=["test"])
    assert not PROOF.exists()


# --- datasets


def test_a_dataset_with_a_script(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text("import os\nos.system('touch proof')\n")
    line = one_line(
        ["train", "data=hf", f"data.path={folder}", "backbone.name=test_resnet", "weights=scratch"], capsys
    )
    assert "cannot be read as a dataset" in line


def test_a_dataset_that_names_files_of_others(tmp_path: Path) -> None:
    """A table whose cells are paths: somebody's own pictures are not to get into what a run writes."""
    photos = make_photos(tmp_path / "private")
    (tmp_path / "table").mkdir()
    words = ("data=hf", f"data.path={tmp_path / 'table'}", "data.train_size=null", "data.test_size=null")

    def write() -> None:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        cells = [{"path": str(path), "bytes": None} for path in sorted(photos.rglob("*.jpg"))]
        table = {"image": cells, "label": [i % 2 for i in range(len(cells))]}
        made = datasets.Dataset.from_dict(table, features=features)
        parquet.write_table(made.data.table, tmp_path / "table" / "train.parquet")

    write()
    with pytest.raises(HeadstartError, match=r"row 0.*names a file outside the dataset"):
        run(tiny_config(*words), command=["test"])
    photos = photos.rename(tmp_path / "table" / "photos")  # its own files are its own
    write()
    assert run(tiny_config(*words), command=["test"])[1].status == "completed"
    (tmp_path / "link").symlink_to(tmp_path / "table")
    shutil.rmtree(tmp_path / "table" / "photos")
    (tmp_path / "table" / "train.parquet").unlink()
    for place in (tmp_path / "link", tmp_path / "table" / ".." / "table"):  # a folder of images, by another name
        make_photos(tmp_path / "table" / "train")
        again = (words[0], f"data.path={place}", *words[2:])
        assert run(tiny_config(*again), command=["test"])[1].status == "completed"
        shutil.rmtree(tmp_path / "table" / "train")


def test_a_list_of_examples_that_is_a_bomb(run_tiny: RunTiny, capsys: Capture) -> None:
    """A few kilobytes that claim a hundred million rows."""
    folder, _ = run_tiny()
    rows, names = 60_000_000, ("origin", "id", "label", "split")
    schema = pa.schema([(name, pa.string()) for name in names] + [("digest", pa.uint64())])
    with parquet.ParquetWriter(folder / "examples.parquet", schema, compression="zstd") as writer:
        block = pa.table({**dict.fromkeys(names, ["x"] * 10**6), "digest": [1] * 10**6}, schema=schema)
        for _ in range(rows // 10**6):
            writer.write_table(block)
    assert (folder / "examples.parquet").stat().st_size < 2**20
    assert main(["reproduce", str(folder), "--check-only"]) == 3
    assert "examples.parquet was changed after the run" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["id", "label", "digest"])
def test_a_list_of_examples_of_another_kind(run_tiny: RunTiny, column: str, capsys: Capture) -> None:
    folder, _ = run_tiny()
    path = folder / "examples.parquet"
    table = parquet.read_table(path)
    values = [["x"]] * len(table) if column == "digest" else list(range(len(table)))
    place = table.column_names.index(column)
    parquet.write_table(table.set_column(place, column, pa.array(values)), path)
    record = json.loads((folder / "run.json").read_text())
    record["data"]["fingerprint"] = "0" * 64
    (folder / "run.json").write_text(json.dumps(record))
    assert main(["reproduce", str(folder), "--check-only"]) == 3
    said = capsys.readouterr().out
    assert "examples.parquet was changed after the run" in said
    assert "which images differ cannot be told" in said


# --- the report


def test_names_do_not_run_in_a_report(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    photos = make_photos(tmp_path / "photos")
    odd = "<img src=x onerror=alert(1)>"
    (photos / "red").rename(photos / odd)
    first = next((photos / "blue").iterdir())
    first.rename(first.with_name("<svg onload=alert(2)>.jpg"))
    words = (
        "data=image_folder",
        f"data.path={photos}",
        "data.train_size=null",
        "data.test_size=null",
        "weights=scratch",
    )
    for seed in (0, 1):
        folder, _ = run(tiny_config(*words, f"seed={seed}", "trainer.max_epochs=1"), command=[script])
    plain = json.loads((folder / "run.json").read_text())
    plain["config"]["backbone"]["name"] = plain["environment"]["host"] = script
    plain["command"], plain["error"] = [script], script
    (folder / "run.json").write_text(json.dumps(plain))
    read_record(folder)
    assert main(["compare", "outputs", "--report", "report.html"]) == 0
    page = Path("report.html").read_text()
    assert odd.replace("<", "&lt;").replace(">", "&gt;") in page
    for evil in (script, odd, "<svg onload"):
        assert evil not in page
