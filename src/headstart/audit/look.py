"""One look at every image of a source: is it readable, what kind of file is it, and a sketch of what it shows."""

from __future__ import annotations

import hashlib
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.pictures import BAD_IMAGE, as_channels, identified, orientation_of
from headstart.data.source import Examples, Picture, Source
from headstart.progress import track

SIDE = 16
"""Pixels of a sketch's side: small enough for hundreds of thousands in memory, and blurred enough that a copy that
lost 3 % of each edge still matches."""

_CHUNK = 32
_MANY = 2_000
"""From here on a pass is worth a progress bar."""


@dataclass(frozen=True)
class Look:
    """What one image shows; `problem` is why it cannot be decoded, else empty."""

    digest: bytes
    """First 16 bytes of the SHA-256 of its content."""
    problem: str = ""
    sketch: npt.NDArray[np.uint8] | None = None
    width: int = 0
    """As a person sees it: turned as its EXIF data says."""
    height: int = 0
    format: str = ""
    """Pillow's name; empty where it is no image file."""
    mode: str = ""
    traits: tuple[str, ...] = ()
    """Of `turned by EXIF`, `with transparency` and `animated`."""


@dataclass(frozen=True)
class Looks:
    """What was seen of n images, one after the other through the splits of the source: about 300 bytes each."""

    origins: tuple[str, ...]
    """The split of the source that each is from."""
    indices: npt.NDArray[np.int64]
    """(n,) its index there."""
    digests: npt.NDArray[np.uint64]
    """(n, 2)"""
    sketches: npt.NDArray[np.uint8]
    """(n, 16, 16) grey levels, of the whole image; zeros where it cannot be decoded."""
    sizes: npt.NDArray[np.int32]
    """(n, 2) width and height in pixels; zeros where it cannot be decoded."""
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    traits: dict[str, list[int]]
    """Which images have which traits."""
    problems: dict[int, str]
    """Why those that cannot be decoded cannot be."""

    def __len__(self) -> int:
        return len(self.origins)


def look_at(source: Source, *, threads: int) -> Looks:
    """Read and decode every image once, in `threads` threads; none that is broken stops it."""
    total = sum(len(examples.ids) for examples in source.splits.values())
    places = [(name, i) for name, examples in source.splits.items() for i in range(len(examples.ids))]
    digests = np.zeros((total, 2), dtype=np.uint64)
    sketches = np.zeros((total, SIDE, SIDE), dtype=np.uint8)
    sizes = np.zeros((total, 2), dtype=np.int32)
    formats, modes = [""] * total, [""] * total
    traits: dict[str, list[int]] = {}
    problems: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of files that it reads all the same
        looks = _in_threads(source, places, threads=threads)
        for n, look in enumerate(track(looks, total=total, what="Looking at images", show=total >= _MANY)):
            digests[n] = np.frombuffer(look.digest, dtype=np.uint64) if look.digest else 0
            if look.problem or look.sketch is None:
                problems[n] = look.problem
                continue
            sketches[n], sizes[n] = look.sketch, (look.width, look.height)
            formats[n], modes[n] = look.format, look.mode
            for trait in look.traits:
                traits.setdefault(trait, []).append(n)
    origins = tuple(name for name, _ in places)
    indices = np.array([i for _, i in places], dtype=np.int64)
    return Looks(origins, indices, digests, sketches, sizes, tuple(formats), tuple(modes), traits, problems)


def _in_threads(source: Source, places: Sequence[tuple[str, int]], *, threads: int) -> Iterator[Look]:
    """Looks in the order of `places`; a few chunks ahead and no more, so that memory stays flat."""

    def chunk(start: int) -> list[Look]:
        return [look(source.splits[name], index) for name, index in places[start : start + _CHUNK]]

    pool = ThreadPoolExecutor(max(1, threads))
    waiting: deque[Future[list[Look]]] = deque()
    try:
        for start in range(0, len(places), _CHUNK):
            waiting.append(pool.submit(chunk, start))
            if len(waiting) > 4 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def look(examples: Examples, index: int) -> Look:
    """Read and decode one image."""
    digest = b""
    try:
        content = examples.content(index)
        digest = hashlib.sha256(content).digest()[:16]
        picture = identified(content) if examples.encoded else examples.image(index)
        return _describe(digest, picture)
    except BAD_IMAGE as error:
        return Look(digest, problem=" ".join(str(error).split())[:200] or type(error).__name__)


def _describe(digest: bytes, picture: Picture) -> Look:
    if isinstance(picture, np.ndarray):
        array = picture[:, :, None] if picture.ndim == 2 else picture
        grey = array.astype(np.float32).mean(axis=2).round().astype(np.uint8)
        height, width, channels = array.shape
        return Look(digest, "", sketch_of(Image.fromarray(grey)), width, height, "", f"{channels} channels")
    width, height, mode, form = picture.width, picture.height, picture.mode, picture.format or ""
    traits = ["animated"] if getattr(picture, "is_animated", False) else []
    if form in ("JPEG", "MPO"):  # all of its data is read all the same
        picture.draft(None, (4 * SIDE, 4 * SIDE))
    picture.load()
    turned = orientation_of(picture)
    if turned > 1:
        traits.append("turned by EXIF")
    if turned >= 5:
        width, height = height, width
    if mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        traits.append("with transparency")
    grey = as_channels(picture, 1)
    assert isinstance(grey, Image.Image)
    return Look(digest, "", sketch_of(grey), width, height, form, mode, tuple(traits))


def sketch_of(grey: Image.Image) -> npt.NDArray[np.uint8]:
    """(16, 16) grey levels of a whole picture of mode L, whatever its shape."""
    small = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(small, dtype=np.uint8)
