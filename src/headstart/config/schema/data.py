"""Which images, how they are split and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.config.schema.option import option, required

AUGMENTS = ("none", "light", "randaugment", "trivial", "augmix", "bit")
REST = "rest"
"""The test size that is all that training and validation leave."""
TASKS = ("auto", "multiclass", "multilabel", "binary", "regression")
CROP_MODES = ("center", "squash", "border")
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
    crop_mode: str | None = option(
        None,
        "How the evaluation crop comes about: the middle of the image (`center`), the whole image squeezed into it "
        "(`squash`), or the whole image with borders (`border`).",
        choices=CROP_MODES,
        auto="the backbone's own",
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
        "What is done to training images; `light`: random resized crop and horizontal flip; `randaugment`, "
        "`trivial` and `augmix`: those, and torchvision's RandAugment, TrivialAugmentWide or AugMix; `bit`: "
        "resized to a square, random crop and flip, and evaluation without a crop (BiT-HyperRule, Kolesnikov et "
        "al. 2020).",
        choices=AUGMENTS,
    )
    augment_magnitude: int | None = option(
        None,
        "Strength of randaugment's operations (0 to 30) or augmix's (severity, 1 to 10).",
        least=0,
        most=30,
        auto="9 of randaugment, 3 of augmix",
    )
    keep_side: int | None = option(
        None,
        "Pixels of the shorter side that images have, at most, before they are cropped at random: they are shrunk "
        "to it once, never enlarged.",
        least=1,
        auto="one and a half times image_size",
    )
    mixup_alpha: float | None = option(
        None,
        "Images and targets of a batch are mixed in pairs, by a share drawn from Beta(alpha, alpha) for each step "
        "(Zhang et al. 2018); 0 is off.",
        least=0,
        auto="off; under schedule=bit_hyperrule by the number of images",
    )
    cutmix_alpha: float = option(
        0.0,
        "A rectangle of each image is replaced by that of another, and targets are mixed by its area, a share "
        "drawn from Beta(alpha, alpha) for each step (Yun et al. 2019); 0 is off. With mixup_alpha too, each step "
        "takes one of the two at random.",
        least=0,
    )
    sampling: str = option(
        "natural",
        "Which training examples an epoch has: each once (`natural`), or as many as there are, drawn with "
        "replacement so that all classes are as likely (`balanced`); of several labels the rarest counts.",
        choices=("natural", "balanced"),
    )
    batch_size: int = option(32, "Images per step.", least=1)
    classes: Any = option(
        None,
        "The classes to use, by name or number from 0, in that order; the rest is left out. Where all names are "
        "whole numbers, a number is a name.",
        auto="all of them",
    )
    task: str | None = option(
        None,
        "What the labels are. `binary`: two classes, of which the second is the positive one, and one output.",
        choices=TASKS,
        auto="what the labels look like",
    )
    positive: Any = option(
        None,
        "Of two classes the one that is looked for: the model then has one output, and the task is binary.",
        auto="both count alike",
    )
    metric: str | None = option(
        None,
        "The metric that counts for this set, such as accuracy_macro: where trainer.monitor=auto it chooses the "
        "checkpoint, and `compare` shows it first.",
        auto="the task's main one",
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
        "Test examples: a count, a share below 1 of where they are taken from, or `rest`: all that train_size or "
        "shots leave, out of which validation is then taken as well.",
        above=0,
        auto="the source's own test split, else 0.2 of its training split",
    )
    num_folds: int | None = option(
        None, "Parts of which each is the test split once; data.fold says which.", least=2, auto="no folds"
    )
    fold: int | None = option(
        None,
        "The fold that is the test split; where the source has one of its own, the validation split.",
        least=0,
        auto="no folds",
    )
    split_file: str | None = option(
        None,
        "A table (.csv, .parquet) of `id` and `split` that says which example goes where, such as a run's own "
        "examples.parquet; what it does not name is left out.",
        auto="no such file",
    )
    split_sha256: str | None = option(
        None, "Digest of what split_file says, by which runs are told apart; it is filled in.", auto="of split_file"
    )
    group_pattern: str | None = option(
        None,
        "A regular expression with one group in (), found in each example's id: examples with the same text in it "
        "are a patient or a scene, and never in two splits.",
        auto="no groups",
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
    cache: bool = option(
        True,
        "Keep decoded images in the cache folder, so that each is decoded once; `headstart cache` shows it. What "
        "comes out is the same.",
    )
    cache_gb: float = option(
        50.0,
        "Gigabytes that decoded images of all data sets may take; those not used for longest make way.",
        above=0,
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
class CsvConfig(DataConfig):
    """A table (.csv, .parquet) with a row per image: its path, its labels, perhaps its split and its group."""

    source: str = "csv"
    path: str = required("The table.")
    root: str | None = option(None, "Folder that relative image paths start from.", auto="the table's own folder")
    image_column: str | None = option(
        None, "Column with the images' paths.", auto="path, image, file, filename or filepath: the one there is"
    )
    label_column: Any = option(
        None,
        "Column with the label, or a list of columns: of 0 and 1 (several labels per image) or of numbers.",
        auto="label, labels, class, target or category, or the only other one",
    )
    label_separator: str | None = option(
        None, "Text between the labels in a cell, such as '|': an image may then have several.", auto="one label"
    )
    split_column: str | None = option(
        None,
        "Column that says train, val or test; `none` uses no such column.",
        auto="the column called split, if there is one",
    )
    group_column: str | None = option(
        None, "Column with what may not be in two splits: a patient, a scene.", auto="no groups"
    )


@dataclass
class HuggingFaceConfig(DataConfig):
    """A Hugging Face dataset: a hub name or a local folder."""

    source: str = "hf"
    path: str = required("A hub name (`owner/name`), or a folder.")
    subset: str | None = option(None, "Configuration of the dataset, where it has several.", auto="its default")
    image_column: str | None = option(None, "Column with the images.", auto="the only one of that type")
    label_column: Any = option(
        None,
        "Column with a class, a list of classes or a number; or a list of columns with numbers.",
        auto="label, labels, fine_label or the only one",
    )
    group_column: str | None = option(
        None, "Column with what may not be in two splits: a patient, a scene.", auto="no groups"
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
    "csv": CsvConfig,
    "hf": HuggingFaceConfig,
    "torchvision": TorchvisionConfig,
}
