"""Augmentation: draws of an example's own, torchvision's crops and operations, Pillow's resizing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms.v2 import functional as F

from headstart.data import crops, resample
from headstart.data.augmentation import RATIO, SCALE, build_augmentation
from headstart.data.draws import keys_of, uniforms
from headstart.data.half_products import by_half_products
from headstart.data.policies import AugMix, RandAugment, TrivialAugment
from headstart.data.transforms import Normalize
from headstart.facts import InputSpec

PHOTO = load_sample_images().images[0][:200, :300]
RESAMPLING: dict[str, Any] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def photos(count: int = 12, size: int = 24) -> torch.Tensor:
    """Real pixels: windows of a photograph."""
    windows = []
    for i in range(count):
        top, left = 7 * i % 150, 11 * i % 250
        windows.append(PHOTO[top : top + size, left : left + size])
    return torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).contiguous()


def test_draws_are_uniform_and_each_examples_own() -> None:
    keys = keys_of([f"image {i}" for i in range(20_000)])
    draws = uniforms(keys, seed=0, epoch=3, count=5)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in draws.T])
    assert (((counts - 1000) ** 2 / 1000).sum(axis=1) < 45).all()  # chi-squared, 19 degrees of freedom: p > 0.001
    correlations = np.corrcoef(draws.T)
    assert np.abs(correlations - np.eye(5)).max() < 0.03
    assert np.array_equal(uniforms(keys[[7, 3]], seed=0, epoch=3, count=5), draws[[7, 3]])
    for other in (uniforms(keys, seed=1, epoch=3, count=5), uniforms(keys, seed=0, epoch=4, count=5)):
        assert abs(np.corrcoef(other[:, 0], draws[:, 0])[0, 1]) < 0.03


def test_crops_are_those_of_random_resized_crop() -> None:
    """Against the algorithm for a single image, a step at a time, as torchvision's get_params has it."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 400, (300, 2))
    sizes[:3] = [(5, 400), (400, 5), (1, 1)]
    draws = random.random((300, crops.RESIZED_DRAWS))
    boxes = crops.random_resized(sizes, draws, scale=SCALE, ratio=RATIO)
    for (height, width), drawn, box in zip(sizes.tolist(), draws, boxes.tolist(), strict=True):
        expected = None
        for i in range(10):
            area = height * width * (0.2 + 0.8 * drawn[2 * i])
            aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * drawn[2 * i + 1])
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                expected = [int(drawn[20] * (height - h + 1)), int(drawn[21] * (width - w + 1)), h, w]
                break
        if expected is None:
            h, w = height, width
            if width / height < 3 / 4:
                h = max(1, round(width / (3 / 4)))
            elif width / height > 4 / 3:
                w = max(1, round(height * (4 / 3)))
            expected = [(height - h) // 2, (width - w) // 2, h, w]
        assert box == expected


def test_crops_of_one_size_lie_everywhere() -> None:
    sizes = np.tile([5, 7], (2000, 1))
    boxes = crops.random_placed(sizes, np.random.default_rng(0).random((2000, 2)), size=(4, 4))
    places, counts = np.unique(boxes[:, :2], axis=0, return_counts=True)
    assert places.tolist() == [[top, left] for top in range(2) for left in range(4)]
    assert counts.min() > 190


@pytest.mark.parametrize("interpolation", RESAMPLING)
@pytest.mark.parametrize("products", [False, True])
def test_resizing_is_pillows_to_within_a_level(interpolation: str, products: bool) -> None:
    boxes = [(0, 0, 200, 300), (20, 10, 31, 44), (50, 60, 150, 97), (3, 4, 60, 70)]
    if interpolation == "nearest":  # with odd sizes no two pixels are as near
        boxes = [(top, left, (tall - 1) | 1, (wide - 1) | 1) for top, left, tall, wide in boxes]
    padded = np.full((len(boxes), 200, 300, 3), 99, dtype=np.uint8)
    expected: list[Any] = []
    for place, (top, left, tall, wide) in enumerate(boxes):
        window = PHOTO[top : top + tall, left : left + wide]
        padded[place, :tall, :wide] = window
        expected.append(np.asarray(Image.fromarray(window).resize((70, 60), RESAMPLING[interpolation])))
    sizes = np.array([box[2:] for box in boxes])
    images = torch.from_numpy(padded)
    if products and interpolation != "nearest":
        ours = resample.by_products(images, sizes, (60, 70), interpolation)
    else:
        ours = resample.resample(resample.Packed(images, sizes), size=(60, 70), interpolation=interpolation)
    apart = np.abs(ours.permute(0, 2, 3, 1).numpy().astype(int) - np.stack(expected).astype(int))
    # Pillow resizes the axis first that is cheaper: what overshoots in between is cut off elsewhere
    assert apart.max() <= (3 if interpolation == "lanczos" else 1)
    assert apart.mean() < 0.1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("hard", [False, True])
def test_a_gpus_way_to_resize_is_a_level_from_that_in_float32(interpolation: str, hard: bool) -> None:
    """Made to run here; photographs, and black and white at random, where errors are largest."""
    random = np.random.default_rng(0)
    windows = []
    for _ in range(12):
        tall, wide = (int(side) for side in random.integers(20, 190, 2))
        window = random.integers(0, 2, (tall, wide, 3), dtype=np.uint8) * 255 if hard else PHOTO[:tall, :wide]
        windows.append(np.ascontiguousarray(window))
    together, mirrored = resample.packed(windows), random.random(12) < 0.5
    ours = by_half_products(together.images, together.sizes, (60, 70), interpolation, mirrored=mirrored)
    plain = resample.by_products(together.images, together.sizes, (60, 70), interpolation)
    expected = torch.where(torch.from_numpy(mirrored)[:, None, None, None], plain.flip(-1), plain)
    apart = (ours.int() - expected.int()).abs()
    assert apart.max() <= 1
    assert apart.float().mean() < 0.25
    white = torch.full_like(together.images, 255)
    assert (by_half_products(white, together.sizes, (60, 70), interpolation) == 255).all()


def test_a_gpus_way_to_normalise_is_the_same() -> None:
    normalize = Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.allclose(normalize._at_once(pixels), normalize(pixels), rtol=0, atol=1e-6)


def test_crops_of_the_size_itself_are_only_cut() -> None:
    image = PHOTO[:60, :70].copy()
    for crops_ in ([image], resample.packed([image, PHOTO.copy()])):
        ours = resample.resample(crops_, size=(60, 70), interpolation="bicubic")
        assert np.array_equal(ours[0].permute(1, 2, 0), image)


def test_crops_are_the_same_packed_or_where_they_lie() -> None:
    windows = [PHOTO[:31, :44].copy(), PHOTO[50:200, 60:157].copy()]
    for interpolation in RESAMPLING:
        apart = resample.resample(windows, size=(60, 70), interpolation=interpolation)
        together = resample.resample(resample.packed(windows), size=(60, 70), interpolation=interpolation)
        assert torch.equal(apart, together)


def test_flips_and_crops_meet_the_pixels_they_should() -> None:
    spec = InputSpec(size=(20, 20), mean=(), std=(), interpolation="bilinear", crop_pct=1.0)
    augmentation = build_augmentation("light", spec, channels=3, side=100, magnitude=0)
    assert augmentation is not None
    draws = uniforms(keys_of(map(str, range(400))), seed=0, epoch=0, count=augmentation.draws)
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None], (100, 100, 3)).copy()
    cut = augmentation.cut([ramp] * 400, draws)
    made = augmentation.finish(cut, draws)
    falling = made[:, 0, 10, 0] > made[:, 0, 10, -1]
    assert 160 < int(falling.sum()) < 240  # half of them are mirrored
    shares = np.array([crop.shape[0] * crop.shape[1] for crop in cut]) / 100**2
    assert shares.min() >= 0.19
    assert 0.5 < shares.mean() < 0.6  # wide crops that do not fit are drawn again


# --- policies

SPECIMENS = {
    "Identity": lambda image: image,
    "ShearX": lambda image: F.affine(image, 0.0, [0, 0], 1.0, [math.degrees(math.atan(0.09)), 0.0], center=[0, 0]),
    "TranslateY": lambda image: F.affine(image, 0.0, [0, int(150 / 331 * 24 * 9 / 30)], 1.0, [0.0, 0.0]),
    "Rotate": lambda image: F.rotate(image, 9.0),
    "Brightness": lambda image: F.adjust_brightness(image, 1.27),
    "Color": lambda image: F.adjust_saturation(image, 1.27),
    "Contrast": lambda image: F.adjust_contrast(image, 1.27),
    "Sharpness": lambda image: F.adjust_sharpness(image, 1.27),
    "Posterize": lambda image: F.posterize(image, 7),
    "Solarize": lambda image: F.solarize(image, 255 * 0.7),
    "AutoContrast": F.autocontrast,
    "Equalize": F.equalize,
}


def test_randaugment_does_torchvisions_operations() -> None:
    """Each operation at magnitude 9, without a change of sign, against the same by torchvision's functions."""
    from torchvision.transforms import v2

    names = list(v2.RandAugment._AUGMENTATION_SPACE)
    assert len(names) == 14
    policy = RandAugment(9, operations=1)
    images = photos(len(names))
    draws = np.array([[(i + 0.5) / 14, 0.9] for i in range(14)])
    made = policy(images, draws)
    for place, name in enumerate(names):
        if name in SPECIMENS:
            apart = (made[place].int() - SPECIMENS[name](images[place]).int()).abs()
            assert int(apart.max()) <= 1, name
        else:
            assert name in ("ShearY", "TranslateX")
            assert not torch.equal(made[place], images[place])
    mirrored = policy(images, np.array([[(i + 0.5) / 14, 0.1] for i in range(14)]))
    assert torch.equal(mirrored[names.index("Rotate")], F.rotate(images[names.index("Rotate")], -9.0))


@pytest.mark.parametrize("policy", [RandAugment(9), TrivialAugment(), AugMix(3)], ids=lambda p: type(p).__name__)
def test_an_images_policy_does_not_depend_on_its_batch(policy: RandAugment | TrivialAugment | AugMix) -> None:
    images = photos(16)
    draws = uniforms(keys_of(map(str, range(16))), seed=0, epoch=0, count=policy.draws)
    made = policy(images, draws)
    assert made.dtype == torch.uint8
    assert not torch.equal(made, images)
    for place in range(16):
        assert torch.equal(policy(images[place : place + 1], draws[place : place + 1])[0], made[place])
    grey = policy(images[:, :1].contiguous(), draws)
    assert grey.shape == (16, 1, 24, 24)


def test_trivial_augment_draws_operations_and_magnitudes_evenly() -> None:
    draws = np.random.default_rng(0).random((4000, 3))
    image = torch.full((4000, 3, 8, 8), 100, dtype=torch.uint8)
    image[:, :, :4] = 180
    made = TrivialAugment()(image, draws)
    brightness = (draws[:, 0] * 14).astype(int) == 6
    factors = made[torch.from_numpy(brightness)][:, 0, 7, 0].float() / 100
    assert float(factors.min()) < 0.1
    assert float(factors.max()) > 1.9
    assert abs(float(factors.mean()) - 1) < 0.1


def test_augmix_is_a_mixture_by_its_weights() -> None:
    """Without operations that do anything the image itself comes out; its own share is uniform."""
    images = photos(64)
    draws = uniforms(keys_of(map(str, range(64))), seed=0, epoch=0, count=AugMix(1).draws)
    draws[:, 0] = 0.0  # nothing of the chains
    assert torch.equal(AugMix(3)(images, draws), images)
    draws[:, 0] = 1 - 1e-12  # nothing of the image itself
    draws[:, 1::11] = 0.5  # equal weights
    draws[:, 2::11] = 0.0  # chains of one operation
    from torchvision.transforms import v2

    names = list(v2.AugMix._AUGMENTATION_SPACE)
    place = names.index("Solarize")
    draws[:, 3::11] = (place + 0.5) / len(names)
    draws[:, 4::11] = 0.999  # the highest of severity 3: the third of ten magnitudes
    expected = F.solarize(images, 255 * float(torch.linspace(1, 0, 10)[2]))
    assert int((AugMix(3)(images, draws).int() - expected.int()).abs().max()) <= 1


def test_stronger_is_further() -> None:
    images = photos(64)
    for kind in (RandAugment, AugMix):
        apart = []
        for magnitude in (1, 5, 10):
            policy = kind(magnitude)
            draws = uniforms(keys_of(map(str, range(64))), seed=0, epoch=0, count=policy.draws)
            apart.append(float((policy(images, draws).float() - images.float()).abs().mean()))
        assert apart[0] < apart[1] < apart[2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", ["light", "randaugment", "trivial", "augmix", "bit"])
def test_a_gpu_does_the_same_to_within_a_level(name: str) -> None:
    """But where an operation jumps: posterised or equalised, a level becomes many."""
    spec = InputSpec(size=(48, 40), mean=(), std=(), interpolation="bicubic", crop_pct=1.0)
    augmentation = build_augmentation(name, spec, channels=3, side=100, magnitude=9 if name != "augmix" else 3)
    assert augmentation is not None
    images = [augmentation.form(Image.fromarray(PHOTO[: 100 + i, i : 150 + i])) for i in range(64)]
    draws = uniforms(keys_of(map(str, range(64))), seed=0, epoch=0, count=augmentation.draws)
    cut = augmentation.cut(images, draws)
    here = augmentation.finish(cut, draws).int()
    there = augmentation.finish(resample.packed(cut).to("cuda"), draws).cpu().int()
    apart = (here - there).abs().float()
    if name in ("light", "bit"):
        assert int(apart.max()) <= 1
    assert float((apart <= 1).float().mean()) > 0.9
    assert float(apart.mean()) < 1
