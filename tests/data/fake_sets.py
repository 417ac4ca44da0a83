"""Small sets in the original formats on disk, as torchvision reads them: each image's colour tells its class."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.io import savemat

Array = npt.NDArray[np.uint8]


def grey(target: int) -> int:
    """The level that stands for a class."""
    return 10 + 20 * target


def class_of(image: Image.Image) -> int:
    """The class that an image's colour tells."""
    return round((float(np.asarray(image.convert("L")).mean()) - 10) / 20)


def picture(path: Path, target: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (grey(target),) * 3).save(path, quality=95)


def pixels(targets: list[int], *shape: int) -> Array:
    return np.stack([np.full(shape, grey(target), dtype=np.uint8) for target in targets])


def cifar(root: Path, *, classes: int, coarse: bool = False) -> None:
    """Pickled dictionaries of rows of 3,072 bytes."""
    folder = root / ("cifar-100-python" if coarse else "cifar-10-batches-py")
    folder.mkdir()
    key = "fine_labels" if coarse else "labels"
    names = ("train",) if coarse else tuple(f"data_batch_{i}" for i in range(1, 6))
    for i, name in enumerate((*names, "test" if coarse else "test_batch")):
        targets = [(i + k) % classes for k in range(20)]
        content = {"data": pixels(targets, 3072), key: targets}
        (folder / name).write_bytes(pickle.dumps(content))
    meta = ("meta", "fine_label_names") if coarse else ("batches.meta", "label_names")
    (folder / meta[0]).write_bytes(pickle.dumps({meta[1]: [f"class {i}" for i in range(classes)]}))


def mnist(root: Path, name: str) -> None:
    """IDX: a header in big-endian, then bytes."""
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        targets = list(range(10)) * 4
        for part, magic, array in (
            ("images-idx3", 2051, pixels(targets, 28, 28)),
            ("labels-idx1", 2049, np.array(targets, dtype=np.uint8)),
        ):
            content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()
            (raw / f"{split}-{part}-ubyte").write_bytes(content)
            (raw / f"{split}-{part}-ubyte.gz").write_bytes(gzip.compress(content))


def flowers(root: Path) -> None:
    """image_00001.jpg and so on; labels and splits in .mat files, counted from 1."""
    folder = root / "flowers-102"
    targets = [i % 4 for i in range(40)]
    for i, target in enumerate(targets, 1):
        picture(folder / "jpg" / f"image_{i:05d}.jpg", target)
    savemat(folder / "imagelabels.mat", {"labels": np.array(targets) + 1})
    ids = np.arange(1, 41)
    savemat(folder / "setid.mat", {"trnid": ids[:12], "valid": ids[12:20], "tstid": ids[20:]})


def pets(root: Path) -> None:
    """Breed_number.jpg; lists with the class counted from 1, the species and a number that is unused."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for split, start in (("trainval", 0), ("test", 100)):
        lines = []
        for i in range(30):
            breed = ("Abyssinian", "american_bulldog", "Bengal")[i % 3]
            picture(folder / "images" / f"{breed}_{start + i}.jpg", i % 3)
            lines.append(f"{breed}_{start + i} {i % 3 + 1} {1 + (i % 3 == 1)} {i + 1}")
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def dtd(root: Path) -> None:
    """Lists of class/file for each of ten partitions."""
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    names = ("banded", "blotchy", "braided")
    for i in range(36):
        picture(folder / "images" / names[i % 3] / f"{names[i % 3]}_{i:04d}.jpg", i % 3)
    for partition in (1, 2):
        for part, split in enumerate(("train", "val", "test")):
            chosen = [i for i in range(36) if (i // 3 + partition) % 3 == part]
            lines = [f"{names[i % 3]}/{names[i % 3]}_{i:04d}.jpg" for i in chosen]
            (folder / "labels" / f"{split}{partition}.txt").write_text("\n".join(lines) + "\n")


def food(root: Path) -> None:
    """JSON of class -> class/number without a suffix."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    names = ("apple_pie", "baklava", "churros")
    for split, start in (("train", 0), ("test", 100)):
        lists = {name: [f"{name}/{start + i}" for i in range(10)] for name in names}
        for target, name in enumerate(names):
            for path in lists[name]:
                picture(folder / "images" / f"{path}.jpg", target)
        (folder / "meta" / f"{split}.json").write_text(json.dumps(lists))


def aircraft(root: Path) -> None:
    """Lists of image and variant; the variants' names have blanks."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    names = ("707-320", "A340-200", "DC-9-30 long")
    (folder).mkdir(parents=True)
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    for part, split in enumerate(("train", "val", "test")):
        lines = []
        for i in range(12):
            picture(folder / "images" / f"{part}{i:05d}.jpg", i % 3)
            lines.append(f"{part}{i:05d} {names[i % 3]}")
        (folder / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")


def caltech(root: Path) -> None:
    """A folder per class, files counted from 1, and one of backgrounds."""
    folder = root / "caltech101" / "101_ObjectCategories"
    for target, name in enumerate(("Faces", "accordion", "ant")):
        for i in range(1, 41 + target):
            picture(folder / name / f"image_{i:04d}.jpg", target)
    picture(folder / "BACKGROUND_Google" / "image_0001.jpg", 9)


def eurosat(root: Path) -> None:
    """A folder per class."""
    for target, name in enumerate(("AnnualCrop", "Forest", "River")):
        for i in range(1, 21):
            picture(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", target)


def svhn(root: Path) -> None:
    """MATLAB arrays (height, width, channel, n); the digit 0 has the label 10."""
    for split in ("train", "test"):
        targets = list(range(10)) * 3
        labels = np.array([target or 10 for target in targets], dtype=np.uint8)[:, None]
        savemat(root / f"{split}_32x32.mat", {"X": pixels(targets, 32, 32, 3).transpose(1, 2, 3, 0), "y": labels})


def stl(root: Path) -> None:
    """Bytes, column by column; labels counted from 1."""
    folder = root / "stl10_binary"
    folder.mkdir()
    names = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    for split in ("train", "test"):
        targets = list(range(10)) * 3
        (folder / f"{split}_X.bin").write_bytes(pixels(targets, 3, 96, 96).tobytes())
        (folder / f"{split}_y.bin").write_bytes((np.array(targets, dtype=np.uint8) + 1).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(pixels([0], 3, 96, 96).tobytes())
    (folder / "fold_indices.txt").write_text("0 1 2\n" * 10)


def sun(root: Path) -> None:
    """ClassName.txt of /a/abbey; images at a/abbey/sun_....jpg, some classes a folder deeper."""
    names = ("/a/abbey", "/a/apse/indoor", "/b/beach")
    for target, name in enumerate(names):
        for i in range(60):
            picture(root / "SUN397" / name[1:] / f"sun_{target}{i:06d}.jpg", target)
    (root / "SUN397" / "ClassName.txt").write_text("\n".join(names) + "\n")


def cars(root: Path) -> None:
    """The hub's copy: Parquet with the images in it."""
    import datasets

    (root / "data").mkdir()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["AM General Hummer", "Acura RL", "BMW M3"])}
    )
    for split in ("train", "test"):
        targets = [i % 3 for i in range(30)]
        rows = {"image": [Image.new("RGB", (24, 20), (grey(t),) * 3) for t in targets], "label": targets}
        made = datasets.Dataset.from_dict(rows, features=features)
        made.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")


FAKES: dict[str, Callable[[Path], None]] = {
    "aircraft": aircraft,
    "caltech101": caltech,
    "cars": cars,
    "cifar10": lambda root: cifar(root, classes=10),
    "cifar100": lambda root: cifar(root, classes=11, coarse=True),
    "dtd": dtd,
    "eurosat": eurosat,
    "fashion_mnist": lambda root: mnist(root, "FashionMNIST"),
    "flowers102": flowers,
    "food101": food,
    "kmnist": lambda root: mnist(root, "KMNIST"),
    "mnist": lambda root: mnist(root, "MNIST"),
    "pets": pets,
    "stl10": stl,
    "sun397": sun,
    "svhn": svhn,
}
