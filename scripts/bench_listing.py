"""How long it takes to list, fingerprint and split many image files, cold and with the digests cached."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many files."""
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)


def run(words: argparse.Namespace) -> int:
    """Make the files (6 GB for 100,000), and measure."""
    listing(files=words.files, threads=words.threads, rounds=words.rounds)
    return 0


def listing(*, files: int, threads: int, rounds: int, folder: Path | None = None) -> None:
    """Print seconds and peak memory of each step, for `files` JPEGs of 20 to 100 kB that lie in the page cache."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = Path(made)
        size = write_photographs(root / "images", files=files)
        print(f"{files:,} JPEG files, {size / 1e9:.1f} GB; {threads} threads")
        print("\n| way | list | fingerprint | split | together | peak memory |\n|---|---:|---:|---:|---:|---:|")
        for way in ("cold", "cached"):
            found = []
            for i in range(rounds):
                # a cache of its own for each cold round, and the last one's for all others
                cache = root / f"cache{i if way == 'cold' else rounds - 1}"
                found.append(_apart(root / "images", cache, threads))
            steps = [statistics.median(one[step] for one in found) for step in ("list", "fingerprint", "split")]
            peak = max(one["peak"] for one in found)
            shown = " | ".join(f"{seconds:.1f} s" for seconds in (*steps, sum(steps)))
            print(f"| {way} | {shown} | {peak / 1e6:.0f} MB |")


def write_photographs(root: Path, *, files: int, distinct: int = 200, classes: int = 100) -> int:
    """Write `files` JPEGs in class folders: `distinct` pictures, each copy with a tail of its own after its end.

    Returns the bytes written.
    """
    random = np.random.default_rng(0)
    kinds = [_photograph(random) for _ in range(distinct)]
    total = 0
    for i in range(files):
        folder = root / f"class{i % classes:03d}"
        if i < classes:
            folder.mkdir(parents=True)
        content = kinds[i % distinct] + f"{i:08d}".encode()
        (folder / f"{i:06d}.jpg").write_bytes(content)
        total += len(content)
    return total


def _photograph(random: Any) -> bytes:
    """A JPEG of 20 to 100 kB: noise at every scale, as photographs have it."""
    height, width = (int(side) for side in random.integers(300, 520, 2))
    pixels = np.zeros((height, width, 3))
    for scale in (1, 2, 4, 8, 16, 64, 128):
        small = random.normal(0, 3 * scale**0.6, (height // scale + 2, width // scale + 2, 3))
        grown = [
            np.asarray(Image.fromarray(small[..., c].astype(np.float32)).resize((width, height), 3))
            for c in range(3)
        ]
        pixels += np.stack(grown, axis=-1)
    image = Image.fromarray(np.clip(pixels + 120, 0, 255).astype(np.uint8))
    target = int(random.integers(20_000, 100_000))
    best = b""
    for quality in range(30, 97, 2):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        best = buffer.getvalue()
        if len(best) >= target:
            break
    return best


def _apart(images: Path, cache: Path, threads: int) -> dict[str, float]:
    """Measured in a process of its own: peak memory is of a process."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(images, cache, threads, theirs))
    process.start()
    theirs.close()
    found: dict[str, float] = ours.recv()
    process.join()
    return found


def _measure(images: Path, cache: Path, threads: int, pipe: Any) -> None:
    os.environ["HEADSTART_CACHE"] = str(cache)
    from headstart.config.schema.data import ImageFolderConfig
    from headstart.data.fingerprint import scan
    from headstart.data.load import open_source, split_source

    config = ImageFolderConfig(path=str(images))
    marks = [time.perf_counter()]
    source = open_source(config)
    marks.append(time.perf_counter())
    found = scan(source, threads=threads, on_bad_image="error")
    marks.append(time.perf_counter())
    split_source(source, config, found.usable)
    marks.append(time.perf_counter())
    steps = {step: marks[i + 1] - marks[i] for i, step in enumerate(("list", "fingerprint", "split"))}
    pipe.send({**steps, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    pipe.close()
