"""scikit-learn's 1,797 scans of handwritten digits (Alpaydin and Kaynak 1998): the embedded default."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.source import Source


class DigitExamples:
    """8 x 8 pixels of 17 grey levels, as images of 256 levels."""

    encoded = False

    def __init__(self) -> None:
        levels, targets = _read()
        self.pixels: npt.NDArray[np.uint8] = np.rint(levels * (255 / 16)).astype(np.uint8)
        self.targets: npt.NDArray[np.int64] = targets.astype(np.int64)
        self.ids = [f"digits/{i:04d}" for i in range(len(self.targets))]

    def content(self, index: int) -> bytes:
        """The 64 pixels."""
        return self.pixels[index].tobytes()

    def image(self, index: int) -> Image.Image:
        """A grey image."""
        return Image.fromarray(self.pixels[index])

    def where(self, index: int) -> str:
        """Its number in scikit-learn's order."""
        return f"sklearn.datasets.load_digits()[{index}]"


def _read() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Levels (n, 8, 8) from 0 to 16, and digits (n,), from scikit-learn's file: importing all takes longer."""
    found = find_spec("sklearn")
    file = Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz" if found and found.origin else None
    if file is None or not file.is_file():  # it lies elsewhere in another release
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target
    with gzip.open(file, "rb") as lines:
        table = np.array(lines.read().replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.float64)
    rows = table.reshape(-1, 65)
    return rows[:, :64].reshape(-1, 8, 8), rows[:, 64]


def digits() -> Source:
    """The digits, which come without a test split."""
    return Source(tuple("0123456789"), "multiclass", {"train": DigitExamples()})
