"""A look at one image: nothing that it holds ends an audit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.audit.look import look
from headstart.data.files import FileExamples


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # as outside of pytest
def test_damaged_exif_does_not_end_an_audit(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[305] = 6, 72.5, "a camera"
    target = io.BytesIO()
    Image.new("RGB", (12, 8)).save(target, "JPEG", exif=exif)
    data, random = target.getvalue(), np.random.default_rng(0)
    start = data.index(b"Exif")
    end = start - 2 + int.from_bytes(data[start - 2 : start], "big")
    for _ in range(1000):
        spoilt = bytearray(data)
        for place in random.integers(start + 6, end, int(random.integers(1, 5))):
            spoilt[int(place)] = int(random.integers(0, 256))
        (tmp_path / "x.jpg").write_bytes(spoilt)
        seen = look(FileExamples(str(tmp_path), ["x.jpg"], np.zeros(1, dtype=np.int64)), 0)
        assert (seen.width, seen.height) in ((12, 8), (8, 12))
