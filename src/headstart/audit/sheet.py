"""A contact sheet: examples of each split as they are and as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.audit.pixels import Pixels, Shown
from headstart.records.pictures import check_picture, write_picture

DRAWS = 4
"""Augmented images of each training example."""
COLUMNS = 2 + DRAWS
_ACROSS = COLUMNS // 2
"""Validation and test examples in a row: two pictures each."""
TRAINING, OTHERS = 6, 6
_CELL, _CAPTION, _HEAD = 1.5, 0.42, 0.4
"""Inches."""
_LONGEST = 24
_INK, _SOFT = "#1f2933", "#616e7c"


def draw_sheet(shown: Mapping[str, Sequence[Shown]], path: Path, *, title: str) -> None:
    """Write the examples of each split, in sections; raises ConfigError for another kind of file."""
    check_picture(path)
    from matplotlib.figure import Figure

    # an example is a row of pictures: an original, as tested, and as trained on
    sections = [
        (f"{split}: {_words(split)}", [_pictures(one) for one in examples], 1 if split == "train" else _ACROSS)
        for split, examples in shown.items()
        if examples
    ]
    rows = [-(-len(examples) // across) for _, examples, across in sections]
    heights = [_HEAD + count * (_CELL + _CAPTION) for count in rows]
    figure = Figure(figsize=(COLUMNS * _CELL + 0.3, sum(heights) + _HEAD))
    figure.suptitle(title, fontsize=9, color=_INK, parse_math=False, y=1 - 0.12 / figure.get_figheight())
    top = figure.get_figheight() - _HEAD
    for (head, examples, across), height in zip(sections, heights, strict=True):
        _words_at(figure, 0.15, top - 0.2, head, size=9, weight="bold")
        for i, pictures in enumerate(examples):
            row, column = divmod(i, across)
            down = top - _HEAD - row * (_CELL + _CAPTION)
            for j, (pixels, lines) in enumerate(pictures):
                across_at = 0.15 + (column * 2 + j) * _CELL
                for k, line in enumerate(lines):
                    _words_at(figure, across_at + 0.04, down - 0.15 - 0.14 * k, line, size=6, weight="normal")
                _picture_at(figure, across_at, down - _CAPTION + 0.06 - _CELL, pixels)
        top -= height
    write_picture(figure, path)


def _words(split: str) -> str:
    if split == "train":
        return f"the original, as it is evaluated, and {DRAWS} times as it is trained on"
    return "the original, and as it is evaluated"


def _pictures(one: Shown) -> list[tuple[Pixels, tuple[str, ...]]]:
    height, width = one.evaluated.shape[:2]
    return [
        (one.original, (_beginning(one.label), _end(one.id))),
        (one.evaluated, (f"{one.size[0]} x {one.size[1]}", f"to {width} x {height}")),
        *((pixels, ("", f"epoch {epoch}")) for epoch, pixels in enumerate(one.augmented)),
    ]


def _words_at(figure: Any, across: float, up: float, text: str, *, size: float, weight: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        across / width,
        up / height,
        text,
        fontsize=size,
        color=_INK if weight == "bold" else _SOFT,
        weight=weight,
        va="center",
        parse_math=False,
    )


def _picture_at(figure: Any, across: float, up: float, pixels: Pixels) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((across / width, up / height, (_CELL - 0.06) / width, (_CELL - 0.06) / height))
    axes.set_axis_off()
    axes.set_facecolor("#e4e7eb")
    axes.imshow(pixels, interpolation="nearest" if max(pixels.shape[:2]) <= 64 else "antialiased")
    axes.set_anchor("NW")


def _beginning(line: str) -> str:
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _end(line: str) -> str:
    """Of an id the end says more than the beginning."""
    return line if len(line) <= _LONGEST else "…" + line[1 - _LONGEST :]
