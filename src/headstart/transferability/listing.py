"""A ranking as a table for people, and as rows for files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.errors import listed
from headstart.printable import one_line
from headstart.transferability.ranking import STATIC, Ranked, Ranking

if TYPE_CHECKING:
    from rich.table import Table


_NAMED = 4
"""Candidates or classes that a line names."""
WIDE = 150
"""Columns of a terminal that all scores take."""


def table(ranking: Ranking, *, width: int) -> Table:
    """The candidates, best first: their place and its interval, every score that any has, and what each costs.

    On a terminal of less than `WIDE` columns it is the score that orders them and the static baseline alone.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column(f"place by\n{ranking.by}", justify="right", no_wrap=True)
    longest = max(len(one.label) for one in ranking.candidates)
    made.add_column("candidate", overflow="fold", min_width=min(44 if width >= WIDE else 24, longest))
    there = [name for name in ranking.scores if any(one.scores.get(name) is not None for one in ranking.candidates)]
    shown = there if width >= WIDE else [name for name in there if name in (ranking.by, STATIC)]
    for name in shown:
        words = "static\n(no data)" if name == STATIC else name.replace("_", "\n", 1)
        made.add_column(words, justify="right", no_wrap=True)
    for words in ("images\nper s", "million\nnumbers", "GB per\nstep", "s\nspent"):
        made.add_column(words, justify="right", no_wrap=True)
    for place, one in enumerate(ranking.candidates, start=1):
        interval = one.ranks.get(ranking.by)
        where = f"{place} [{interval[0]:.0f} to {interval[1]:.0f}]" if interval else str(place)
        scores = [number(one.scores.get(name)) for name in shown]
        named = Text(one_line(one.label), style="yellow" if one.warning else "")
        made.add_row(where, named, *scores, *_costs(one))
    return made


def _costs(one: Ranked) -> list[str]:
    return [
        f"{one.images_per_second:,.0f}",
        f"{one.parameters / 1e6:,.1f}",
        f"{one.memory / 1e9:.2f}" if one.memory else "too much",
        f"{sum(one.seconds.values()):.1f}",
    ]


def number(value: float | None) -> str:
    """A score in four digits; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value / 1e6:.1f}M" if value >= 1e5 else f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


def lines(ranking: Ranking) -> list[str]:
    """What is to be said beside the table: what static is, what was left out or is missing, distances, warnings."""
    said = [
        f"static: the {ranking.static}; it knows nothing of these images, and is hard to beat "
        "(docs/ranking_agreement.md)."
    ]
    said += _missing(ranking)
    sources: dict[str, list[str]] = {}
    for one in ranking.candidates:
        if words := source_words(one.distance):
            sources.setdefault(words, []).append(one.label)
    said += [f"source of {listed(names, most=_NAMED)}: {words}" for words, names in sources.items()]
    said += [f"warning: {one.warning}" for one in ranking.candidates if one.warning]
    return [one_line(line) for line in said]


def source_words(distance: Mapping[str, Any]) -> str:
    """What is known of how far a source lies, in a line; empty where nothing is."""
    parts = []
    if (shared := distance.get("shared_classes")) and distance.get("share") != 1:
        parts.append(f"has {distance['share']:.0%} of the classes by name ({listed(shared, most=_NAMED)})")
    if (far := distance.get("frechet_relative")) is not None:
        floor = distance.get("frechet_floor")
        halves = f"; two halves of these images: {floor:.2g}" if floor is not None else ""
        parts.append(f"Fréchet distance {far:.3g} of these images' own variance{halves}")
    if (alike := distance.get("structure_cka")) is not None:
        parts.append(f"features vary in the same directions to {alike:.2f} (linear CKA)")
    parts += [distance["note"]] if distance.get("note") else []
    return f"{distance['origin']}: {', '.join(parts)}" if parts else ""


def _missing(ranking: Ranking) -> list[str]:
    """A line for each reason why candidates lack scores."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in ranking.candidates:
        for name, note in one.notes.items():
            if one.scores.get(name) is None:
                reasons.setdefault((one.label, note), []).append(name)
    grouped: dict[tuple[str, str], list[str]] = {}
    for (candidate, note), names in reasons.items():
        grouped.setdefault((", ".join(names), note), []).append(candidate)
    return [f"no {names} for {listed(whom, most=_NAMED)}: {note}" for (names, note), whom in grouped.items()]


def csv_of(ranking: Ranking) -> str:
    """The rows as CSV, which `headstart rank --against` reads once a column of what was measured is added."""
    import pandas as pd

    return pd.DataFrame(rows(ranking)).to_csv(index=False)


def rows(ranking: Ranking) -> list[dict[str, Any]]:
    """A flat row per candidate: plain numbers under plain names."""
    found = []
    for place, one in enumerate(ranking.candidates, start=1):
        row: dict[str, Any] = {"dataset": ranking.dataset, "model": one.name, "place": place}
        row |= {name: one.scores.get(name) for name in ranking.scores}
        for name, (low, high) in one.intervals.items():
            row |= {f"{name}_low": low, f"{name}_high": high}
        for name, (first, last) in one.ranks.items():
            row |= {f"{name}_place_low": first, f"{name}_place_high": last}
        row |= {
            "images_per_second": one.images_per_second,
            "parameters": one.parameters,
            "memory_bytes": one.memory,
            "seconds": round(sum(one.seconds.values()), 3),
            "backbone": one.backbone,
            "library": one.library,
            "weights": one.weights.get("source"),
            "weights_sha256": one.weights.get("sha256"),
            "warning": one.warning or "",
        }
        found.append(row)
    return found
