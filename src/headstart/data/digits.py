"""scikit-learn's 1,797 scans of handwritten digits (Alpaydin and Kaynak 1998): the embedded default."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.source import Source


class DigitExamples:
    """8 x 8 pixels of 17 grey levels, as images of 256 levels."""

    encoded = False

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self.pixels: npt.NDArray[np.uint8] = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        self.targets: npt.NDArray[np.int64] = bunch.target.astype(np.int64)
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


def digits() -> Source:
    """The digits, which come without a test split."""
    return Source(tuple("0123456789"), "multiclass", {"train": DigitExamples()})
