"""Batches: timm's own preprocessing, and bits that depend on (seed, epoch, example) alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps

from headstart.config.compose import compose
from headstart.data import load_data, transforms
from headstart.data.datamodule import ImageDataModule
from headstart.data.forms import Finished
from headstart.data.pictures import as_channels, check_picture, open_picture
from headstart.models.classifier import full_name, input_spec
from headstart.resolve import resolve, spec_of


def module(photos: Path, *overrides: str, seed: int = 0, workers: int = 0) -> ImageDataModule:
    base = ["backbone.name=test_resnet", "weights=scratch", "data=image_folder", f"data.path={photos}"]
    config = resolve(compose([*base, "data.image_size=16", "data.batch_size=8", *overrides]))
    return load_data(config.data, spec_of(config), seed=seed, threads=1, num_workers=workers)


def epochs(data: ImageDataModule, count: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Order and pixels of each epoch, through one loader as training has it."""
    loader, epoch = None, 0
    data.epoch = lambda: epoch
    loader = data.train_dataloader()
    for epoch in range(count):  # noqa: B007 - the loader asks for it
        batches = [data.augmented(batch) for batch in loader]
        yield torch.cat([b["index"] for b in batches]).tolist(), torch.cat([b["image"] for b in batches])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker:UserWarning")  # on fewer cores
@pytest.mark.parametrize("augment", ["none", "light", "randaugment", "trivial", "augmix", "bit"])
def test_workers_change_nothing(photos: Path, augment: str) -> None:
    alone = list(epochs(module(photos, f"data.augment={augment}"), 3))
    for workers in (1, 4):
        beside = list(epochs(module(photos, f"data.augment={augment}", workers=workers), 3))
        for (order, pixels), (other_order, other_pixels) in zip(alone, beside, strict=True):
            assert order == other_order
            assert torch.equal(pixels, other_pixels)


def test_order_and_augmentation_follow_seed_epoch_and_example(photos: Path) -> None:
    (order0, pixels0), (order1, pixels1) = epochs(module(photos, "data.augment=light"), 2)
    assert order0 != order1
    assert sorted(order0) == sorted(order1)
    by_example0 = pixels0[torch.tensor(order0).argsort()]
    by_example1 = pixels1[torch.tensor(order1).argsort()]
    assert not torch.equal(by_example0, by_example1)
    again, _ = next(epochs(module(photos, "data.augment=light"), 1))
    other, _ = next(epochs(module(photos, "data.augment=light", seed=1), 1))
    assert again == order0
    assert other != order0


def test_augmentation_leaves_the_global_generator_alone(photos: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(epochs(module(photos, "data.augment=light"), 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_augmentation_training_sees_what_evaluation_sees(photos: Path) -> None:
    data = module(photos)
    order, pixels = next(epochs(data, 1))
    loader = data._loader("train", shuffle=False)
    assert torch.equal(pixels[torch.tensor(order).argsort()], torch.cat([b["image"] for b in loader]))


def test_a_last_batch_of_one_is_left_out_in_training_alone(photos: Path) -> None:
    data = module(photos, "data.train_size=17", "data.test_size=9", "data.val_size=3")
    assert [len(b["index"]) for b in data.train_dataloader()] == [8, 8]
    assert [len(b["index"]) for b in data.test_dataloader()] == [8, 1]


BACKBONES = (
    "tf_efficientnet_lite0",
    "resnet50",
    "vit_small_patch16_224",
    "inception_v3",
    "convnext_tiny",
    "tf_efficientnet_b3",
)


@pytest.mark.parametrize("name", BACKBONES)
def test_preprocessing_is_timms_own(name: str) -> None:
    spec = input_spec(full_name(name, library="timm"), library="timm")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (310, 420, 3), dtype=np.uint8))
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    ours = transforms.Normalize(spec.mean, spec.std)(torch.from_numpy(Finished(spec, 3)(picture)))
    scale = torch.tensor(spec.std).view(-1, 1, 1)
    assert ((ours - expected) * scale).abs().max() < 1 / 255
    assert tuple(config["input_size"][1:]) == spec.size


def test_options_replace_the_backbones_preprocessing(photos: Path) -> None:
    plain = next(iter(module(photos).test_dataloader()))["image"]
    for override in ("data.crop_pct=0.5", "data.interpolation=nearest", "data.crop_mode=squash"):
        assert not torch.equal(plain, next(iter(module(photos, override).test_dataloader()))["image"])
    data = module(photos, "data.mean=[0.1]", "data.std=[0.2]")
    batch = next(iter(data.test_dataloader()))
    normalised = data.on_after_batch_transfer(batch, 0)["image"]
    assert torch.allclose(normalised, (batch["image"] / 255 - 0.1) / 0.2)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("LA", 3), ("1", 3), ("RGB", 1), ("RGB", 4)],
)
def test_every_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    picture = as_channels(Image.new(mode, (5, 4)), channels)
    assert isinstance(picture, Image.Image)
    assert len(picture.getbands()) == channels


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    levels = np.array([[0, 32768, 65535]], dtype=np.uint16)
    picture = as_channels(Image.fromarray(levels), 1)
    assert np.asarray(picture).tolist() == [[0, 128, 255]]
    dark = as_channels(Image.fromarray(np.array([[60, 600]], dtype=np.uint16)), 1)
    assert np.asarray(dark).tolist() == [[0, 2]]
    shares = as_channels(Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)), 1)
    assert np.asarray(shares).tolist() == [[0, 128]]


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    data = (tmp_path / "x.jpg").read_bytes()
    assert as_channels(open_picture(data), 3).size == (20, 40)


def test_the_quick_look_at_a_jpeg_finds_a_truncated_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    check_picture(data)
    with pytest.raises(OSError, match="truncated"):
        check_picture(data[: len(data) // 2])


def test_every_orientation_is_undone_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, "PNG", exif=exif)
        picture = open_picture(target.getvalue())
        expected = np.asarray(ImageOps.exif_transpose(open_picture(target.getvalue())))
        assert np.array_equal(np.asarray(as_channels(picture, 3)), expected)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # as outside of pytest
def test_damaged_exif_is_no_reason_to_fail() -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[305] = 6, 72.5, "a camera"
    target = io.BytesIO()
    Image.new("RGB", (12, 8)).save(target, "JPEG", exif=exif)
    data, random = target.getvalue(), np.random.default_rng(0)
    start = data.index(b"Exif")
    end = start - 2 + int.from_bytes(data[start - 2 : start], "big")
    for _ in range(2000):
        spoilt = bytearray(data)
        for place in random.integers(start + 6, end, int(random.integers(1, 5))):
            spoilt[int(place)] = int(random.integers(0, 256))
        picture = as_channels(open_picture(bytes(spoilt)), 3)
        assert isinstance(picture, Image.Image)
        assert picture.size in ((12, 8), (8, 12))


@pytest.mark.parametrize("augment", ["none", "light", "bit", "augmix"])
def test_batches_lie_in_memory_as_their_axes_say(photos: Path, augment: str) -> None:
    """Another order would choose other convolutions, of other last bits."""
    data = module(photos, f"data.augment={augment}")
    for loader in (data.train_dataloader(), data.test_dataloader()):
        batch = data.augmented(next(iter(loader)))
        assert batch["image"].is_contiguous()
        assert data.normalize(batch["image"]).is_contiguous()
