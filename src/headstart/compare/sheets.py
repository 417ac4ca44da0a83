"""Tables as text in cells, for the terminal, for Markdown and for the report alike; and the first of them."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.compare.abroad import summed_up
from headstart.compare.comparison import Comparison
from headstart.compare.verdicts import signed, unsigned, verdict_of

MOST_ABROAD = 3
"""Further test sets that stand in the table of the arms; all of them stand in a table of their own."""


@dataclass(frozen=True)
class Sheet:
    """A table: the first column is text, the others are numbers or words; `note` says how they came about."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def arms_sheet(comparison: Comparison) -> Sheet:
    """A row per arm: value, gain, what that decides, cost; and the values on a few further test sets."""
    columns = summed_up(comparison.abroad)[:MOST_ABROAD]
    spread = [] if columns else ["std"]  # it makes room for them: the interval says the same
    against = "scratch" if comparison.baseline == "training from scratch" else "baseline"
    header = [
        "arm",
        "n",
        comparison.metric,
        *(one.name for one in columns),
        *spread,
        f"gain over {against}",
        "verdict",
        "trainable",
        "seconds",
    ]
    cells = [
        [
            row.arm,
            str(row.n) + (f" (+{row.failed} failed)" if row.failed else ""),
            unsigned(row.value) if row.value else "-",
            *(unsigned(one.values[row.key]) if row.key in one.values else "-" for one in columns),
            *([f"{row.value.std:.3f}" if row.value and row.value.std is not None else "-"] if spread else []),
            signed(row.gain) if row.gain else "-",
            verdict_of(row),
            count_words(row.trainable),
            f"{row.seconds:.1f}" if row.seconds is not None else "-",
        ]
        for row in comparison.rows
    ]
    return without_empty(Sheet("Arms", tuple(header), tuple(map(tuple, cells))))


def without_empty(sheet: Sheet) -> Sheet:
    """Without columns that say nothing in any row."""
    kept = [
        i for i in range(len(sheet.header)) if i == 0 or not sheet.rows or any(row[i] != "-" for row in sheet.rows)
    ]
    return Sheet(
        sheet.title,
        tuple(sheet.header[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in sheet.rows),
        sheet.note,
    )


def p_words(p: float | None) -> str:
    """A p-value with two digits that count, or what it is below."""
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def count_words(number: int | None) -> str:
    """`3.4 M`, `12.8 k`."""
    if number is None:
        return "-"
    for size, unit in ((1_000_000, " M"), (1_000, " k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
