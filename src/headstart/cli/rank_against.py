"""How good a ranking was: its scores, and the static baseline, beside what training measured."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import RecordError

if TYPE_CHECKING:
    from headstart.transferability.against import Against
    from headstart.transferability.ranking import Ranking

WIDTH = 170


def show(
    ranking: Ranking | None,
    paths: Sequence[Path],
    *,
    metric: str | None,
    how: str,
    plot: Path | None,
    elsewhere: Sequence[Path] = (),
) -> int:
    """Print how scores agree with what training measured; returns the exit status, 0.

    With a `ranking`, `paths` are sweeps, runs, folders above them or one CSV table that trained its candidates;
    without, CSV tables that hold scores and what was measured. `how` is table, json or csv; `plot` a picture to
    draw; `elsewhere` results on other data sets, for the static baseline of a ranking. Raises RecordError where
    nothing matches, ConfigError for a picture that cannot be drawn.
    """
    from headstart.transferability.against import against_ranking, against_tables

    if plot:
        from headstart.records.pictures import check_picture

        check_picture(plot)
    if ranking is not None:
        found = against_ranking(ranking, paths, metric=metric, elsewhere=elsewhere)
    else:
        if folder := next((path for path in paths if path.suffix.lower() != ".csv"), None):
            raise RecordError(
                f"--against {folder}: is no CSV table of scores; for runs, say which ranking by --ranking."
            )
        if elsewhere:
            raise RecordError(
                "--elsewhere: is for a ranking; the data sets of a table are each other's static baseline."
            )
        found = against_tables(paths, metric=metric)
    from headstart.transferability.against_shown import in_lines

    shown = in_lines(found)
    if plot:
        from headstart.transferability.against_picture import draw

        draw(shown, plot)
    _print(found if how == "json" else shown, how)
    if plot and how == "table":
        print(f"Picture: {plot}")
    return 0


def _print(found: Against, how: str) -> None:
    if how == "json":
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
        return
    if how == "csv":
        text = io.StringIO()
        rows = found.flat_rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        print(text.getvalue(), end="")
        for note in found.notes:
            print(note, file=sys.stderr)  # the rows have no place for it
        return
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH)
    from rich.text import Text

    from headstart.compare.formats import grid
    from headstart.transferability.against_words import footer, sheets

    for sheet in sheets(found):
        console.print(Text(sheet.title, style="bold"), grid(sheet))
        if sheet.note:
            console.print(Text(sheet.note), end="\n\n")
    for line in footer(found):
        console.print(Text(line))
