"""What the chosen backbone will be given of an image, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.facts import InputSpec

_LIGHT = "random crop of 0.2 to 1 of the area, resized to the size itself; mirrored at random"
_TRAINING = {
    "none": "as for evaluation: nothing is drawn at random",
    "light": _LIGHT,
    "randaugment": f"{_LIGHT}; two operations of RandAugment",
    "trivial": f"{_LIGHT}; one operation of TrivialAugmentWide",
    "augmix": f"{_LIGHT}; AugMix",
    "bit": "resized to a larger square, random crop, mirrored at random (BiT-HyperRule)",
}


@dataclass(frozen=True)
class Preprocessing:
    """Each a line of text."""

    evaluation: str
    training: str
    values: str


def describe_preprocessing(
    spec: InputSpec, *, channels: int, augment: str, mixes: Sequence[str] = ()
) -> Preprocessing:
    """`spec` with options applied; `mixes` are what is done to whole batches, in words."""
    return Preprocessing(
        evaluation=_evaluation(spec, whole=augment == "bit"),
        training="; ".join([_TRAINING[augment], *mixes]),
        values=f"{channels} channel{'s' if channels > 1 else ''} in [0, 1], less the mean "
        f"{_numbers(spec.mean)}, by the deviation {_numbers(spec.std)}",
    )


def _evaluation(spec: InputSpec, *, whole: bool) -> str:
    height, width = spec.size
    shown = f"{width} x {height}"
    if whole:
        return f"resized to {shown} whatever the shape ({spec.interpolation}); nothing is cut off"
    larger = [math.floor(side / spec.crop_pct) for side in (height, width)]
    if spec.crop_mode == "squash":
        first = f"resized to {larger[1]} x {larger[0]} whatever the shape"
    elif spec.crop_mode == "border":
        first = f"resized to fit into {larger[1]} x {larger[0]}, with borders"
    elif height == width:
        first = f"the shorter side resized to {larger[0]}"
    else:
        first = f"resized to cover {larger[1]} x {larger[0]}"
    return f"{first} ({spec.interpolation}), the middle {shown} taken"


def _numbers(values: Sequence[float]) -> str:
    some = list(dict.fromkeys(f"{value:.3g}" for value in values))
    return some[0] if len(some) == 1 else " ".join(f"{value:.3g}" for value in values)
