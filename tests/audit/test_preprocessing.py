"""What the report says of preprocessing is what timm's own transform does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from headstart.audit.preprocessing import describe_preprocessing
from headstart.config.schema.data import AUGMENTS
from headstart.data.transforms import evaluation
from headstart.facts import InputSpec


def spec(size: tuple[int, int], crop_pct: float, crop_mode: str = "center") -> InputSpec:
    return InputSpec(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", crop_pct, crop_mode)


@pytest.mark.parametrize(
    ("size", "crop_pct", "mode", "said"),
    [
        ((224, 224), 0.875, "center", "the shorter side resized to 256 (bicubic), the middle 224 x 224 taken"),
        ((96, 96), 1.0, "center", "the shorter side resized to 96 (bicubic), the middle 96 x 96 taken"),
        ((64, 128), 0.9, "center", "resized to cover 142 x 71 (bicubic), the middle 128 x 64 taken"),
        (
            (224, 224),
            0.9,
            "squash",
            "resized to 248 x 248 whatever the shape (bicubic), the middle 224 x 224 taken",
        ),
        (
            (224, 224),
            0.9,
            "border",
            "resized to fit into 248 x 248, with borders (bicubic), the middle 224 x 224 taken",
        ),
    ],
)
def test_the_words_are_what_timm_does(size: tuple[int, int], crop_pct: float, mode: str, said: str) -> None:
    assert describe_preprocessing(spec(size, crop_pct, mode), channels=3, augment="none").evaluation == said
    geometry = evaluation(spec(size, crop_pct, mode))
    steps = {type(step).__name__: step for step in geometry.transforms}  # type: ignore[attr-defined]
    larger = [math.floor(side / crop_pct) for side in size]
    if mode == "center" and size[0] == size[1]:
        assert steps["Resize"].size == larger[0]
    elif mode == "squash":
        assert list(steps["Resize"].size) == larger
    else:
        assert list(steps["ResizeKeepRatio"].size) == larger
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert tuple(geometry(Image.fromarray(pixels)).shape) == (3, *size)


def test_training_and_values() -> None:
    said = describe_preprocessing(
        spec((64, 64), 1.0), channels=3, augment="light", mixes=["mixup of pairs, Beta(0.2)"]
    )
    assert said.training.startswith("random crop of 0.2 to 1 of the area")
    assert said.training.endswith("; mixup of pairs, Beta(0.2)")
    assert (
        said.values == "3 channels in [0, 1], less the mean 0.485 0.456 0.406, by the deviation 0.229 0.224 0.225"
    )
    for augment in AUGMENTS:
        assert describe_preprocessing(spec((64, 64), 1.0), channels=3, augment=augment).training
    bit = describe_preprocessing(spec((128, 128), 0.9), channels=1, augment="bit")
    assert bit.evaluation == "resized to 128 x 128 whatever the shape (bicubic); nothing is cut off"
    assert bit.values.startswith("1 channel in")
