"""The findings as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headstart.audit.findings import Findings
from headstart.audit.images import OddImage, Range
from headstart.audit.labels import Labels
from headstart.audit.leaks import Pair, crosses

MOST_CLASSES = 24
"""Up to so many classes all are listed; of more the most and the least frequent."""
_ENDS = 8
_SOME = 5
_NAME = 36


def report(found: Findings, *, pairs: int) -> str:
    """The whole report; at most `pairs` pairs of copies are listed of each kind."""
    sections = (
        _overview(found),
        _classes(found),
        _files(found),
        _unreadable(found),
        _copies(found, pairs),
        _preprocessing(found),
        _verdict(found),
    )
    return "\n".join(line for section in sections for line in section)


def _overview(found: Findings) -> Iterator[str]:
    sizes = ", ".join(f"{count:,} {split}" for split, count in found.sizes.items())
    unused = f"; {found.unused:,} in no split" if found.unused else ""
    yield f"data         {found.source}: {found.task}, {_many(found.images, 'image')}: {sizes}{unused}"
    if found.fingerprint:
        yield f"fingerprint  {found.fingerprint}"
        yield f"split        {found.split_fingerprint}"


def _classes(found: Findings) -> Iterator[str]:
    labels, names = found.labels, found.class_names
    yield ""
    if labels.spread:
        yield f"{'number':<{_NAME}}{'split':<7}{'least':>12}{'mean':>12}{'most':>12}{'deviation':>12}"
        for split, columns in labels.spread.items():
            for one in columns:
                values = (one.least, one.mean, one.most, one.deviation)
                yield f"{_short(one.name):<{_NAME}}{split:<7}" + "".join(f"{value:>12.5g}" for value in values)
        return
    yield from _table(names, labels)
    if (balance := labels.balance) and balance.largest_count:
        if balance.largest_count == balance.smallest_count:
            said = f"{balance.largest_count:,} of each class"
        else:
            ratio = "" if balance.ratio is None else f", {balance.ratio:.3g} to 1"
            said = (
                f"from {balance.largest_count:,} ({balance.largest}) to {balance.smallest_count:,} "
                f"({balance.smallest}){ratio}"
            )
        yield f"balance      training: {said}"
        if labels.majority:
            shares = ", ".join(f"{share:.3f} of {split}" for split, share in labels.majority.items())
            yield f"majority     always answering {balance.largest!r} is right for {shares}"
    if any(labels.unlabelled.values()):
        shares = ", ".join(f"{count:,} of {split}" for split, count in labels.unlabelled.items() if count)
        yield f"unlabelled   {shares} have none of the labels"


def _table(names: Sequence[str], labels: Labels) -> Iterator[str]:
    splits = list(labels.counts)
    if not splits:
        return
    width = min(_NAME, max(len("class"), *(len(_short(name)) for name in names))) + 2
    totals = [sum(labels.counts[split][i] for split in splits) for i in range(len(names))]

    def row(i: int) -> str:
        return f"{_short(names[i]):<{width}}" + "".join(f"{labels.counts[split][i]:>9,}" for split in splits)

    yield f"{'class':<{width}}" + "".join(f"{split:>9}" for split in splits)
    if len(names) <= MOST_CLASSES:
        yield from map(row, range(len(names)))
        return
    # most frequent first; of the same count in the order of the classes
    order = sorted(range(len(names)), key=lambda i: -totals[i])
    yield from map(row, order[:_ENDS])
    between = order[_ENDS:-_ENDS]
    text = f"... {len(between):,} more"
    ranges = [_span([labels.counts[split][i] for i in between]) for split in splits]
    yield f"{text:<{width}}" + "".join(f"{span:>9}" for span in ranges)
    yield from map(row, order[-_ENDS:])


def _span(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{most:,}-{least:,}"


def _files(found: Findings) -> Iterator[str]:
    files = found.files
    yield ""
    if files.width is None or files.height is None:
        yield "images       none can be read"
        return
    yield f"width        {_range(files.width)}"
    yield f"height       {_range(files.height)}"
    if files.formats:
        yield f"format       {_counts(files.formats)}"
    yield f"mode         {_counts(files.modes)}"
    if files.traits:
        yield f"of them      {_counts(files.traits)}"
    height, width = found.image_size
    if files.small and files.smallest:
        name, w, h = files.smallest
        yield (
            f"small        {_many(files.small, 'image')} below the {width} x {height} that the model takes, "
            f"enlarged; the smallest is {w} x {h} ({name})"
        )
    yield from _odd("odd          ", files.odd, "of unusual shape or size", sign=": ")
    yield from _odd("misnamed     ", files.misnamed, "whose suffix names another format", sign=" is ")


def _odd(head: str, images: Sequence[OddImage], what: str, *, sign: str) -> Iterator[str]:
    if images:
        yield f"{head}{_many(len(images), 'image')} {what}:"
        yield from (f"    {one.id}{sign}{one.why}" for one in images[:_SOME])
        yield from _rest(len(images), _SOME)


def _unreadable(found: Findings) -> Iterator[str]:
    if found.unreadable:
        yield ""
        yield f"UNREADABLE   {_many(len(found.unreadable), 'image')}:"
        yield from (f"    {one.where}: {one.reason}" for one in found.unreadable)


def _copies(found: Findings, most: int) -> Iterator[str]:
    copies = found.copies
    yield ""
    exact = sum(len(group) - 1 for group in copies.exact)
    yield (
        f"duplicates   {_many(exact, 'exact copy', 'exact copies')} in {_many(len(copies.exact), 'group')}, "
        f"{_many(len(copies.near), 'near duplicate')}"
    )
    if copies.small:
        yield f"    {_many(copies.small, 'image')} below 16 pixels: too small to be near duplicates of anything"
    if copies.flat:
        yield f"    {_many(copies.flat, 'image')} nearly flat: only exact copies of them are told"
    if copies.alike:
        yield (
            f"    {_many(copies.alike, 'further pair')} among many images that look alike by nature: taken for "
            "likenesses, not for copies"
        )
    if not copies.complete:
        yield "    so many images look alike that not all pairs were compared"
    splits = [example.split for example in found.examples]
    across = [pair for pair in found.pairs if crosses(pair, splits)]
    within = [pair for pair in found.pairs if not crosses(pair, splits)]
    for leak in found.leaks:
        first, second = leak.splits
        yield (
            f"LEAK         {leak.exact + leak.near:,} of {leak.of:,} {second} images are in {first} as well "
            f"({leak.exact:,} exact, {leak.near:,} near)"
        )
    yield from _pairs(found, across, most)
    if found.contradictions:
        yield f"CONTRADICT   {_many(len(found.contradictions), 'pair')} of copies with different labels:"
        yield from _pairs(found, found.contradictions, most)
    if within:
        yield f"within       {_many(len(within), 'pair')} of copies inside a split:"
        yield from _pairs(found, within, most)


def _pairs(found: Findings, pairs: Sequence[Pair], most: int) -> Iterator[str]:
    for pair in pairs[:most]:
        how = pair.kind if pair.kind == "exact" else f"near {pair.likeness:.3f}"
        ones = (found.examples[place] for place in (pair.first, pair.second))
        both = " = ".join(f"{one.id} [{one.split or 'unused'}, {one.label}]" for one in ones)
        yield f"    {how:<11}{both}{' (mirrored)' if pair.mirrored else ''}"
    yield from _rest(len(pairs), most)


def _preprocessing(found: Findings) -> Iterator[str]:
    said = found.preprocessing
    yield ""
    yield f"evaluation   {said.evaluation}"
    yield f"training     {said.training}"
    yield f"values       {said.values}"


def _verdict(found: Findings) -> Iterator[str]:
    troubles = []
    if found.unreadable:
        troubles.append(_many(len(found.unreadable), "unreadable image"))
    if found.leaks:
        troubles.append("a leak across splits")
    if found.contradictions:
        troubles.append("copies with different labels")
    yield ""
    yield f"result       {', '.join(troubles)}" if troubles else "result       nothing that would mislead"


def _rest(count: int, shown: int) -> Iterator[str]:
    if count > shown:
        yield f"    ... and {count - shown:,} more"


def _range(values: Range) -> str:
    if values.least == values.most:
        return f"{values.least:,}"
    return f"{values.least:,} to {values.most:,}, median {values.median:,g}"


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _many(count: int, what: str, plural: str | None = None) -> str:
    return f"{count:,} {what if count == 1 else plural or what + 's'}"


def _short(name: str) -> str:
    return name if len(name) <= _NAME - 2 else name[: _NAME - 3] + "…"
