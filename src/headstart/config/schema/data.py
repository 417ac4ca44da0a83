"""Which images, how they are split and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option, required

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass
class DataConfig:
    """Options that every source of images has."""

    source: str = required("Kind of source; choose it with `data=`.")
    image_size: Any = option(
        None, "Pixels, a number or [height, width].", above=0, auto="what the backbone was trained at"
    )
    channels: int = option(3, "Colour channels the model sees; images are converted to it.", least=1)
    mean: list[float] | None = option(None, "Per channel, of pixels in [0, 1].", auto="the backbone's own")
    std: list[float] | None = option(None, "Per channel, of pixels in [0, 1].", above=0, auto="the backbone's own")
    interpolation: str | None = option(
        None, "How images are resized.", choices=INTERPOLATIONS, auto="the backbone's own"
    )
    crop_pct: float | None = option(
        None,
        "Share of the resized image kept by the evaluation crop.",
        above=0,
        most=1,
        auto="the backbone's own",
    )
    augment: str = option(
        "none",
        "What is done to training images; `light`: random resized crop and horizontal flip; `bit`: resized to a "
        "square, random crop and flip, and evaluation without a crop (BiT-HyperRule, Kolesnikov et al. 2020).",
        choices=("none", "light", "bit"),
    )
    mixup_alpha: float | None = option(
        None,
        "Images and targets of a batch are mixed in pairs, by a share drawn from Beta(alpha, alpha) for each step "
        "(Zhang et al. 2018); 0 is off.",
        least=0,
        auto="off; under schedule=bit_hyperrule by the number of images",
    )
    batch_size: int = option(32, "Images per step.", least=1)
    classes: Any = option(
        None,
        "The classes to use, by name or number from 0, in that order; the rest is left out.",
        auto="all of them",
    )
    positive: Any = option(
        None,
        "Of two classes the one that is looked for: the model then has one output, and the task is binary.",
        auto="both count alike",
    )
    train_size: Any = option(
        None, "Training examples used: a count, or a share (0.1, 1.0).", above=0, auto="all there are"
    )
    val_size: Any = option(
        None,
        "Validation examples: a count, or a share below 1 of where they are taken from.",
        above=0,
        auto="the source's own validation split, else 0.1 of what the test leaves of training",
    )
    test_size: Any = option(
        None,
        "Test examples: a count, or a share below 1 of where they are taken from.",
        above=0,
        auto="the source's own test split, else 0.2 of its training split",
    )
    refit_on_val: bool = option(
        False,
        "Train on the validation examples as well, as protocols do once rates and steps have been chosen: the last "
        "weights are tested, and nothing is chosen by validation.",
    )
    shots: int | None = option(
        None, "Training examples per class, in place of train_size.", least=1, auto="no such limit"
    )
    split_seed: int = option(0, "Which examples go where; the training seed has no part in it.", least=0)
    num_workers: int | None = option(
        None, "Processes that load images.", least=0, auto="0 on a CPU, up to 8 beside a GPU"
    )
    on_bad_image: str = option(
        "error", "What to do with an image that cannot be decoded.", choices=("error", "skip")
    )


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's 1,797 scans of handwritten digits, 8 x 8 pixels; nothing is downloaded."""

    source: str = "digits"
    image_size: Any = option(64, "Pixels, a number or [height, width].", above=0)
    crop_pct: float | None = option(1.0, "Share of the resized image kept by the evaluation crop.", above=0, most=1)


@dataclass
class ImageFolderConfig(DataConfig):
    """A folder of images: a folder per class, inside train/, val/ and test/ or without them."""

    source: str = "image_folder"
    path: str = required("The folder.")


@dataclass
class HuggingFaceConfig(DataConfig):
    """A Hugging Face dataset: a hub name or a local folder."""

    source: str = "hf"
    path: str = required("A hub name (`owner/name`), or a folder.")
    subset: str | None = option(None, "Configuration of the dataset, where it has several.", auto="its default")
    image_column: str | None = option(None, "Column with the images.", auto="the only one of that type")
    label_column: str | None = option(
        None, "Column with a class or a list of classes.", auto="label, labels, fine_label or the only one"
    )


@dataclass
class TorchvisionConfig(DataConfig):
    """Any classification set of torchvision.datasets."""

    source: str = "torchvision"
    name: str = required("Class name in torchvision.datasets, such as CIFAR10; `headstart list data`.")
    path: str = option("./data", "Folder that holds the set, or will.")
    download: bool = option(False, "Fetch it if it is not there.")
    options: Any = option(
        None, "What else the set is asked for by, such as {split: letters} of EMNIST.", auto="nothing else"
    )


OPTIONS = {
    "digits": DigitsConfig,
    "image_folder": ImageFolderConfig,
    "hf": HuggingFaceConfig,
    "torchvision": TorchvisionConfig,
}
