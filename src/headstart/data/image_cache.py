"""The cache of decoded images: whose images it keeps, how much room they may take, and what makes way for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.caches import ABOUT, IMAGES, NoRoom, make_room, mark_used
from headstart.data.decoded import Place, ShortDigests, build, places
from headstart.data.forms import Form, Pixels, form_key
from headstart.data.pictures import BAD_IMAGE
from headstart.data.subset import Split
from headstart.errors import DataError
from headstart.records.atomic import write_json

_SAMPLE = 8


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class ImageCache:
    """Where the decoded images of one data set lie, and how much all sets together may take."""

    root: Path
    """The cache folder."""
    fingerprint: str
    source: str
    """The data in words, for people."""
    limit: int
    """Bytes."""
    say: Callable[[str], None] = _to_stderr

    def folder(self, form: Form) -> Path:
        """Where the images of a form lie."""
        return self.root / IMAGES / f"{self.fingerprint[:20]}-{form_key(form)[:12]}"

    def places(self, form: Form, digests: ShortDigests) -> list[Place | None]:
        """Where each image lies, None for those that are not there."""
        folder = self.folder(form)
        if not folder.is_dir():
            return [None] * len(digests)
        return places(folder, digests)

    def fill(self, form: Form, parts: Sequence[tuple[Split, ShortDigests]], *, threads: int) -> None:
        """Decode what is not there yet, or say that there is no room: images are then decoded anew.

        Raises DataError for an image that cannot be decoded.
        """
        folder = self.folder(form)
        digests = np.concatenate([own for _, own in parts])
        origin = [(split, position) for split, own in parts for position in range(len(own))]

        bad: list[str] = []

        def decode(i: int) -> Pixels | None:
            split, position = origin[i]
            try:
                return form(split.image(position, int(digests[i])))
            except BAD_IMAGE as error:
                where = split.examples.where(int(split.indices[position]))
                bad.append(f"{where}: cannot be decoded any more ({error}).")
            except DataError as error:
                bad.append(str(error))
            return None

        missing = [i for i, place in enumerate(self.places(form, digests)) if place is None]
        try:
            if missing:
                most = self._room(folder, missing, decode)
                if most is None:
                    return
                folder.mkdir(parents=True, exist_ok=True)
                about = {"source": self.source, "form": str(form), "fingerprint": self.fingerprint}
                if not (folder / ABOUT).exists():
                    write_json(folder / ABOUT, about)
                fits = build(
                    folder,
                    digests,
                    decode,
                    threads=threads,
                    most=most,
                    waiting=lambda: self.say("Waiting for another process that decodes the same images ..."),
                )
                if not fits:
                    self.say(
                        f"data.cache_gb={self.limit / 1e9:g}: the decoded images take more than that; those that "
                        "are not kept are decoded anew in each epoch."
                    )
            mark_used(folder)
            if bad:
                raise DataError(min(bad))
        except OSError as error:
            self.say(
                f"{folder}: the cache of decoded images cannot be written ({error.strerror or error}); images are "
                "decoded anew in each epoch."
            )

    def _room(self, folder: Path, missing: Sequence[int], decode: Callable[[int], Pixels | None]) -> int | None:
        """Bytes that the missing images may take, after removing what has not been used for longest; None where
        they will not fit."""
        chosen = np.linspace(0, len(missing) - 1, min(_SAMPLE, len(missing))).round().astype(int)
        sizes = [pixels.size for i in chosen if (pixels := decode(missing[int(i)])) is not None]
        needed = int(np.mean(sizes) * len(missing)) if sizes else 0
        try:
            return make_room(folder, needed=needed, limit=self.limit)
        except NoRoom as lack:
            if lack.reason == "limit":
                self.say(
                    f"data.cache_gb={self.limit / 1e9:g}: the decoded images would take {lack.size / 1e9:.1f} GB; "
                    "each is decoded anew in each epoch."
                )
            elif lack.reason == "busy":
                self.say(
                    f"data.cache_gb={self.limit / 1e9:g}: the cache is full of images that others are decoding; "
                    "each is decoded anew in each epoch."
                )
            else:
                self.say(
                    f"{self.root}: has no room for {needed / 1e9:.1f} GB of decoded images; each is decoded anew "
                    "in each epoch."
                )
            return None
