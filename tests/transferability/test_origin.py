"""What weights were pretrained on: by timm's and torchvision's tags, packages and the records of runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from tests.conftest import RunTiny
from timm.data import ImageNetInfo

from headstart.config.schema.weights import RunConfig
from headstart.models.weights import PACKAGES, WeightsFile, locate_weights
from headstart.records.store import read_record, write_record
from headstart.transferability.origin import NOTHING, UNKNOWN, Origin, origin_of


def located(origin: str, path: str = "weights.safetensors") -> WeightsFile:
    return WeightsFile(origin, "", Path(path), "", "")


def by_tag(name: str) -> Origin:
    return origin_of(located("hub"), name=name, library="timm")


@pytest.mark.parametrize(
    ("name", "words", "classes"),
    [
        ("resnet50.a1_in1k", "ImageNet-1k", 1000),
        ("vit_base_patch16_clip_224.openai", "OpenAI's images with captions", None),
        ("convnext_base.clip_laion2b_augreg_ft_in12k_in1k", "LAION-2B + ImageNet-12k + ImageNet-1k", 11_821),
        ("convnext_tiny.in12k_ft_in1k", "ImageNet-12k + ImageNet-1k", 11_821),
        ("mobilenetv3_large_100.miil_in21k", "ImageNet-21k", 11_221),
        ("tf_efficientnet_b5.ns_jft_in1k", "JFT + ImageNet-1k", 1000),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", "ImageNet-21k + ImageNet-1k", 21_843),
        ("vit_base_patch16_224.orig_in21k", "ImageNet-21k", None),  # it has no head that tells which cut
        ("convnext_tiny.fb_in22k", "ImageNet-22k", 21_841),
        ("vit_base_patch16_224.mae", UNKNOWN, None),
        ("vit_base_patch16_224.a_tag_of_nobody", UNKNOWN, None),
        ("vit_base_patch16_224", UNKNOWN, None),
    ],
    ids=str,
)
def test_timm_s_tags(name: str, words: str, classes: int | None) -> None:
    found = by_tag(name)
    assert (found.name, found.data, found.known) == (words, None, words != UNKNOWN)
    if classes is None:
        assert found.classes is None
    else:
        lists = [set(ImageNetInfo(s).label_names()) for s in _subsets(classes, words)]
        synsets = {one.rpartition(", ")[2] for one in found.classes or ()}
        assert synsets == set().union(*lists)


def _subsets(classes: int, words: str) -> list[str]:
    by_count = {
        1000: "imagenet-1k", 11_221: "imagenet-21k-miil", 11_821: "imagenet-12k", 21_841: "imagenet-22k",
        21_843: "imagenet-21k-goog",
    }  # fmt: skip
    return [by_count[classes], *(["imagenet-1k"] if "ImageNet-1k" in words else [])]


def test_every_tag_with_an_imagenet_and_a_head_is_of_that_size() -> None:
    """The last stage of a tag says how many classes the head has: in1k a thousand, whatever stands before it."""
    for name in timm.list_pretrained():
        words = name.partition(".")[2].split("_")
        sizes = {"in1k": 1000, "in12k": 11_821}
        last = [word for word in words if word in ("in1k", "in12k", "in21k", "in22k")][-1:]
        if last and last[0] in sizes:
            found = by_tag(name)
            assert found.known
            assert len(found.classes or ()) >= sizes[last[0]]
            assert timm.models.get_pretrained_cfg(name).num_classes in (sizes[last[0]], 0), name


def test_packages_torchvision_and_what_nobody_knows() -> None:
    for name in PACKAGES:
        found = origin_of(located("package"), name=name, library="timm")
        assert found.name == "ImageNet-1k"
        assert found.classes
        assert "tench, Tinca tinca, n01440764" in found.classes
    tv = origin_of(located("torchvision"), name="vgg16.IMAGENET1K_FEATURES", library="torchvision")
    assert tv.name == "ImageNet-1k"
    assert len(tv.classes or ()) == 1000
    other = origin_of(located("torchvision"), name="vgg16.PLACES", library="torchvision")
    assert other == Origin(UNKNOWN)
    assert origin_of(located("file"), name="resnet50.a1_in1k", library="timm") == Origin(UNKNOWN)
    assert origin_of(None, name="resnet50.a1_in1k", library="timm") == Origin(NOTHING)


def test_a_run_says_what_it_saw_and_how_its_images_are_read_again(run_tiny: RunTiny, photos: Path) -> None:
    folder, record = run_tiny("data=image_folder", f"data.path={photos}", "data.train_size=12", "data.test_size=6")

    def origin() -> Origin:
        weights = locate_weights(RunConfig(path=str(folder)), name="test_resnet.r160_in1k", library="timm")
        return origin_of(weights, name="test_resnet.r160_in1k", library="timm")

    found = origin()
    assert found == Origin(photos.name, tuple(record.data["class_names"]), record.config["data"])
    assert found.data is not None
    assert found.data["path"] == str(photos)
    record = read_record(folder)
    record.config["weights"] = {"source": "pretrained"}
    record.weights["origin"] = "hub"
    write_record(folder, record)
    found = origin()
    assert found.name == f"ImageNet-1k + {photos.name}"
    assert len(found.classes or ()) == 1000 + len(record.data["class_names"])
    record.config["weights"] = {"source": "file", "path": "x"}
    record.data["task"] = "regression"
    write_record(folder, record)
    assert origin() == Origin(f"{UNKNOWN} + {photos.name}", None, record.config["data"])
