"""What an audit finds on made-up folders: each finding with its exact counts and pairs."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.audit.photographs import cropped, jpeg, lighter, pieces, resized

from headstart.audit.findings import Audit, audit, plain
from headstart.audit.labels import describe_labels, label_text
from headstart.audit.leaks import crosses
from headstart.audit.likeness import likeness
from headstart.audit.look import look_at
from headstart.audit.words import report
from headstart.config.compose import compose
from headstart.data.opening import open_source
from headstart.errors import DataError
from headstart.resolve import resolve, spec_of

CLASSES = ("ash", "birch")


def audited(*overrides: str) -> Audit:
    config = resolve(compose(["backbone.name=test_resnet", "weights=scratch", "data.image_size=64", *overrides]))
    return audit(config.data, spec_of(config), seed=0, threads=2)


def folder(path: Path, *overrides: str) -> Audit:
    return audited("data=image_folder", f"data.path={path}", *overrides)


def make_split_folders(root: Path) -> Path:
    """12 photographs in train, 4 in val, 4 in test; no two alike."""
    for i, image in enumerate(pieces()[:20]):
        split = "train" if i < 12 else "val" if i < 16 else "test"
        place = root / split / CLASSES[i % 2] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)
    return root


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    return make_split_folders(tmp_path / "trees")


def pairs_in(found: Audit) -> set[tuple[str, str, str]]:
    examples = found.findings.examples
    return {(examples[p.first].id, examples[p.second].id, p.kind) for p in found.findings.pairs}


def test_a_clean_folder(trees: Path) -> None:
    found = folder(trees)
    assert found.findings.sizes == {"train": 12, "val": 4, "test": 4}
    assert found.findings.labels.counts == {"train": (6, 6), "val": (2, 2), "test": (2, 2)}
    assert not found.findings.bad
    assert found.findings.pairs == ()
    assert found.data is not None
    assert found.findings.fingerprint == found.data.facts.fingerprint
    assert found.findings.files.formats == {"PNG": 20}
    assert "nothing that would mislead" in report(found.findings, pairs=5)


def test_an_exact_copy_across_split_folders_is_a_leak(trees: Path) -> None:
    content = (trees / "train/ash/00.png").read_bytes()
    (trees / "test/ash/again.png").write_bytes(content)
    (trees / "train/ash/twice.png").write_bytes(content)
    found = folder(trees)
    [leak] = found.findings.leaks
    assert (leak.splits, leak.exact, leak.near, leak.of) == (("train", "test"), 1, 0, 5)
    assert pairs_in(found) == {
        ("train/ash/00.png", "test/ash/again.png", "exact"),
        ("train/ash/00.png", "train/ash/twice.png", "exact"),
    }
    splits = [one.split for one in found.findings.examples]
    assert [crosses(pair, splits) for pair in found.findings.pairs] == [True, False]
    assert found.findings.contradictions == ()
    text = report(found.findings, pairs=5)
    assert "LEAK         1 of 5 test images are in train as well (1 exact, 0 near)" in text
    assert "train/ash/00.png [train, ash] = test/ash/again.png [test, ash]" in text


def test_near_copies_across_splits_are_a_leak_with_their_pairs(trees: Path) -> None:
    names = sorted(path for path in (trees / "train/ash").iterdir())
    ways = {"jpeg": jpeg, "resized": resized, "cropped": cropped, "lighter": lighter}
    expected = set()
    for source, (how, make) in zip(names, ways.items(), strict=False):
        make(Image.open(source)).save(trees / "val/ash" / f"{how}.png")
        expected.add((f"train/ash/{source.name}", f"val/ash/{how}.png", "near"))
    found = folder(trees)
    assert pairs_in(found) == expected
    [leak] = found.findings.leaks
    assert (leak.splits, leak.exact, leak.near, leak.of) == (("train", "val"), 0, 4, 8)


def test_a_near_copy_of_a_group_leaks_from_each_split_of_it(trees: Path) -> None:
    content = (trees / "train/ash/00.png").read_bytes()
    (trees / "val/ash/again.png").write_bytes(content)
    jpeg(Image.open(trees / "train/ash/00.png")).save(trees / "test/ash/small.jpg")
    found = folder(trees)
    assert {(leak.splits, leak.exact, leak.near) for leak in found.findings.leaks} == {
        (("train", "val"), 1, 0),
        (("train", "test"), 0, 1),
        (("val", "test"), 0, 1),
    }
    assert pairs_in(found) == {
        ("train/ash/00.png", "val/ash/again.png", "exact"),
        ("train/ash/00.png", "test/ash/small.jpg", "near"),
        ("val/ash/again.png", "test/ash/small.jpg", "near"),
    }


def test_an_image_that_leaks_in_two_ways_is_counted_once(trees: Path) -> None:
    (trees / "test/ash/again.png").write_bytes((trees / "train/ash/00.png").read_bytes())
    jpeg(Image.open(trees / "train/ash/00.png")).save(trees / "train/ash/near.png")
    [leak] = folder(trees).findings.leaks
    assert (leak.exact, leak.near) == (1, 0)


def test_copies_inside_a_split_are_no_leak(trees: Path) -> None:
    jpeg(Image.open(trees / "train/ash/00.png")).save(trees / "train/ash/near.png")
    found = folder(trees)
    assert found.findings.leaks == ()
    assert pairs_in(found) == {("train/ash/00.png", "train/ash/near.png", "near")}
    assert not found.findings.bad


def test_splits_taken_from_train_leak_too_and_copies_outside_them_do_not(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    for i, image in enumerate(pieces()[:20]):
        for suffix in ("a", "b"):
            place = root / CLASSES[i % 2] / f"{i:02d}{suffix}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
    found = folder(root, "data.test_size=8", "data.val_size=4", "data.train_size=10").findings
    assert found.unused == 18
    split_of = {one.id: one.split for one in found.examples}
    leaked: dict[tuple[str, str], int] = {}
    for i in range(20):
        one, other = (split_of[f"{CLASSES[i % 2]}/{i:02d}{suffix}.png"] for suffix in ("a", "b"))
        order = [s for s in ("train", "val", "test") if s in (one, other)]
        if len(order) == 2:
            leaked[order[0], order[1]] = leaked.get((order[0], order[1]), 0) + 1
    assert leaked
    assert {leak.splits: leak.exact for leak in found.leaks} == leaked
    assert len(found.copies.exact) == 20
    assert len(found.pairs) == 20


def test_training_on_validation_is_no_leak(trees: Path) -> None:
    found = folder(trees, "data.refit_on_val=true")
    assert found.findings.sizes == {"train": 12, "val": 4, "test": 4}
    assert found.findings.leaks == ()
    assert found.findings.split_fingerprint == folder(trees).findings.split_fingerprint
    assert found.data is not None
    assert len(found.data.splits["train"].indices) == 12


def test_contradictory_labels_are_named(trees: Path) -> None:
    (trees / "train/birch/odd.png").write_bytes((trees / "train/ash/00.png").read_bytes())
    jpeg(Image.open(trees / "train/ash/02.png")).save(trees / "train/birch/near.png")
    found = folder(trees).findings
    named = {(found.examples[p.first].id, found.examples[p.second].id, p.kind) for p in found.contradictions}
    assert named == {
        ("train/ash/00.png", "train/birch/odd.png", "exact"),
        ("train/ash/02.png", "train/birch/near.png", "near"),
    }
    assert found.bad
    assert found.leaks == ()
    assert "CONTRADICT   2 pairs of copies with different labels:" in report(found, pairs=5)


def test_all_unreadable_images_are_listed_with_their_reasons(trees: Path) -> None:
    (trees / "train/ash/00.png").write_bytes(b"")
    (trees / "train/birch/01.png").write_text("no image")
    whole = (trees / "val/ash/12.png").read_bytes()
    (trees / "val/ash/12.png").write_bytes(whole[: len(whole) // 2])
    (trees / "test/birch/bomb.png").write_bytes(_huge_png())
    found = folder(trees).findings
    names = {Path(one.where).relative_to(trees).as_posix(): one.reason for one in found.unreadable}
    assert set(names) == {"train/ash/00.png", "train/birch/01.png", "val/ash/12.png", "test/birch/bomb.png"}
    assert all(names.values())
    assert "pixels" in names["test/birch/bomb.png"]
    assert found.sizes == {"train": 10, "val": 3, "test": 4}
    assert found.bad
    text = report(found, pairs=5)
    assert "UNREADABLE   4 images:" in text
    assert all(name in text for name in names)


def _huge_png() -> bytes:
    """A valid header of 60,000 x 60,000 pixels."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_formats_modes_sizes_and_what_is_odd(trees: Path) -> None:
    train = trees / "train/ash"
    image = pieces()[25]
    levels = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(levels).save(train / "deep.png")
    pieces()[26].convert("CMYK").save(train / "print.jpg", quality=95)
    clear = pieces()[27].convert("RGBA")
    clear.putalpha(200)
    clear.save(train / "clear.webp", lossless=True)
    turned = pieces()[28].resize((80, 120))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(train / "turned.jpg", exif=exif)
    pieces()[29].save(train / "wrong.jpg", "PNG")
    pieces()[30].resize((900, 100)).save(train / "wide.bmp")
    pieces()[31].resize((20, 24)).save(train / "little.png")
    pieces()[32].convert("P").save(train / "pal.gif", save_all=True, append_images=[pieces()[33].convert("P")])
    found = folder(trees).findings
    files = found.files
    assert files.formats == {"PNG": 23, "JPEG": 2, "BMP": 1, "GIF": 1, "WEBP": 1}
    assert files.modes == {"RGB": 24, "I;16": 1, "CMYK": 1, "RGBA": 1, "P": 1}
    assert files.traits == {"animated": 1, "turned by EXIF": 1, "with transparency": 1}
    assert [(one.id, one.why) for one in files.misnamed] == [("train/ash/wrong.jpg", "PNG")]
    assert {one.id for one in files.odd} == {"train/ash/wide.bmp", "train/ash/little.png"}
    assert files.width is not None
    assert files.height is not None
    # the turned one is 120 x 80 as a person sees it
    assert (files.width.least, files.width.median, files.width.most) == (20, 100, 900)
    assert (files.height.least, files.height.median, files.height.most) == (24, 100, 100)
    assert files.small == 1
    assert files.smallest == ("train/ash/little.png", 20, 24)
    assert not found.bad
    text = report(found, pairs=5)
    assert "wrong.jpg is PNG" in text
    assert "1 image below the 64 x 64 that the model takes, enlarged; the smallest is 20 x 24" in text


def test_the_same_picture_in_other_kinds_of_file_is_a_copy(trees: Path) -> None:
    original = Image.open(trees / "train/ash/00.png")
    levels = np.asarray(original.convert("L")).astype(np.uint16) * 257
    Image.fromarray(levels).save(trees / "test/ash/deep.png")
    original.convert("CMYK").save(trees / "test/ash/print.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 8
    original.transpose(Image.Transpose.ROTATE_270).save(trees / "test/ash/turned.jpg", exif=exif, quality=95)
    found = folder(trees)
    assert {pair for pair in pairs_in(found) if pair[0].startswith("train")} == {
        ("train/ash/00.png", "test/ash/deep.png", "near"),
        ("train/ash/00.png", "test/ash/print.jpg", "near"),
        ("train/ash/00.png", "test/ash/turned.jpg", "near"),
    }


def test_imbalance_and_the_majority(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, count in (("few", 10), ("many", 90)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
                tmp_path / "set" / name / f"{i}.png"
            )
    found = folder(tmp_path / "set", "data.test_size=20", "data.val_size=10").findings
    balance = found.labels.balance
    assert balance is not None
    counts = found.labels.counts
    assert (balance.largest, balance.largest_count) == ("many", counts["train"][1])
    assert balance.ratio == counts["train"][1] / counts["train"][0]
    assert found.labels.majority["test"] == counts["test"][1] / 20
    assert "always answering 'many' is right for" in report(found, pairs=5)


def test_data_that_cannot_be_split_is_shown_all_the_same(tmp_path: Path) -> None:
    for i, image in enumerate(pieces()[:8]):
        place = tmp_path / "set" / ("only" if i else "one") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place)
    found = folder(tmp_path / "set")
    assert "leaves out the class 'one'" in found.findings.problem
    assert found.data is None
    assert found.findings.sizes == {"train": 8}
    assert found.findings.labels.counts == {"train": (1, 7)}
    assert "fingerprint" not in report(found.findings, pairs=3)
    with pytest.raises(DataError, match="there is no such folder"):
        folder(tmp_path / "nowhere")


def test_classes_restrict_what_is_looked_at(trees: Path) -> None:
    for split in ("train", "val", "test"):
        (trees / split / "cedar").mkdir()
        pieces()[30 + len(split)].save(trees / split / "cedar" / "c.png")
    found = folder(trees, "data.classes=[birch,ash]").findings
    assert found.class_names == ("birch", "ash")
    assert found.images == 20
    assert not any("cedar" in one.id for one in found.examples)


def test_labels_of_other_tasks() -> None:
    several = describe_labels("multilabel", ("a", "b"), {"train": np.array([[1, 0], [1, 1], [0, 0]])})
    assert several.counts == {"train": (2, 1)}
    assert several.unlabelled == {"train": 1}
    assert several.majority == {}
    numbers = describe_labels("regression", ("age",), {"train": np.array([[1.0], [3.0]])})
    [spread] = numbers.spread["train"]
    assert (spread.least, spread.mean, spread.most, spread.deviation) == (1, 2, 3, 1)
    two = describe_labels("binary", ("no", "yes"), {"train": np.array([0, 1, 1, 1])})
    assert (two.counts, two.majority) == ({"train": (1, 3)}, {"train": 0.75})
    assert label_text("multilabel", ("a", "b"), np.array([1, 1])) == "a, b"
    assert label_text("multilabel", ("a", "b"), np.array([0, 0])) == "(none)"
    assert label_text("regression", ("age",), np.array([2.5])) == "2.5"
    assert label_text("binary", ("no", "yes"), np.int64(1)) == "yes"


def test_several_labels_and_many_channels_of_a_hub_dataset(tmp_path: Path) -> None:
    import datasets

    random = np.random.default_rng(0)
    rows: dict[str, Any] = {
        "image": [random.integers(0, 256, (5, 24, 24), dtype=np.uint8) for _ in range(60)],
        "labels": [sorted({i % 3, (i // 3) % 3}) for i in range(60)],
    }
    rows["image"][7] = rows["image"][3]
    rows["labels"][7] = [0, 1, 2]
    features = datasets.Features(
        {
            "image": datasets.Array3D((5, 24, 24), "uint8"),
            "labels": datasets.List(datasets.ClassLabel(names=["x", "y", "z"])),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    found = audited("data=hf", f"data.path={tmp_path / 'set'}", "data.channels=5").findings
    assert found.task == "multilabel"
    assert found.files.modes == {"5 channels": 60}
    [pair] = found.contradictions
    assert (found.examples[pair.first].id, found.examples[pair.second].id) == ("train/000003", "train/000007")


def test_one_look_decodes_each_file_once(trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(compose(["data=image_folder", f"data.path={trees}"]).data)
    read: list[str] = []
    kind = type(source.splits["train"])
    content = kind.content

    def counted(self: Any, index: int) -> bytes:
        read.append(self.ids[index])
        return content(self, index)

    monkeypatch.setattr(kind, "content", counted)
    looks = look_at(source, threads=3)
    assert sorted(read) == sorted(name for examples in source.splits.values() for name in examples.ids)
    assert [source.splits[o].ids[i] for o, i in zip(looks.origins, looks.indices, strict=True)] == [
        name for examples in source.splits.values() for name in examples.ids
    ]


def test_findings_are_plain_data(trees: Path) -> None:
    (trees / "test/birch/again.png").write_bytes((trees / "train/ash/00.png").read_bytes())
    value = json.loads(json.dumps(plain(folder(trees).findings)))
    assert value["sizes"] == {"train": 12, "val": 4, "test": 5}
    assert value["leaks"] == [{"splits": ["train", "test"], "exact": 1, "near": 0, "of": 5}]
    assert value["pairs"][0]["images"] == [
        {"id": "train/ash/00.png", "split": "train", "label": "ash"},
        {"id": "test/birch/again.png", "split": "test", "label": "birch"},
    ]
    assert len(value["contradictory_labels"]) == 1
    assert value["bad"] is True
    assert value["labels"]["balance"]["ratio"] == 1.0


def test_a_thousand_classes_stay_readable(trees: Path) -> None:
    from dataclasses import replace

    counts = tuple(range(1, 1001))
    found = folder(trees).findings
    labels = replace(found.labels, counts={"train": counts}, majority={})
    names = tuple(f"class {i}" for i in range(1000))
    text = report(replace(found, labels=labels, class_names=names), pairs=5)
    lines = text.splitlines()
    assert len(lines) < 45
    assert any(line.split() == ["class", "999", "1,000"] for line in lines)
    assert any(line.split() == ["class", "0", "1"] for line in lines)
    assert any("... 984 more" in line and "992-9" in line for line in lines)


def test_an_image_in_memory_and_its_jpeg_have_one_sketch() -> None:
    from headstart.audit.look import _describe
    from headstart.data.pictures import identified

    large = pieces(200)[0].resize((1600, 1600), Image.Resampling.BICUBIC)
    target = io.BytesIO()
    large.save(target, "JPEG", quality=95)
    drafted = _describe(b"", identified(target.getvalue())).sketch
    direct = _describe(b"", large).sketch
    assert drafted is not None
    assert direct is not None
    assert likeness(drafted[None], direct[None])[0] > 0.995
